"""Whatever arrives in whatever order: after each night the scores are those of one run over everything, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.eras import ERAS, Stream
from urbandelta.errors import ContractError, TooFewObservations
from urbandelta.extending import extend_scores
from urbandelta.grid import Grid
from urbandelta.infer import predict
from urbandelta.scores import open_scores
from urbandelta.store import create_cube
from urbandelta.types import Acquisition
from urbandelta.weights import Weights

SHAPE = (12, 14)
START = np.datetime64("2018-01-01", "ns")
ERA = ERAS["s12"]


def arrivals(rng: np.random.Generator, days: int) -> list[tuple[int, Stream, Acquisition]]:
    """Day of arrival, stream, acquisition: some late, some streams that begin late, some corners seen late only."""
    found = []
    for stream in ERA.streams:
        seen_from = int(rng.integers(0, days)) if rng.random() < 0.5 else 0
        day = int(rng.integers(0, 60)) if rng.random() < 0.4 else 0
        while day < days:
            hidden = rng.random(SHAPE) < 0.25
            if day < seen_from:
                hidden[:4, 3:8] = True
            acquisition = Acquisition(
                time=START + np.timedelta64(day, "D") + np.timedelta64(int(rng.integers(86_400)), "s"),
                values=rng.random((*SHAPE, len(stream.bands)), np.float32) * np.float32(0.4),
                mask=hidden.astype(np.uint8),
                bands=stream.bands,
                orbit_state=stream.orbit_state,
                processing_level=stream.processing_level,
                backscatter_coefficient=stream.backscatter_coefficient,
            )
            delay = 0 if rng.random() < 0.8 else int(rng.integers(1, 25))
            found.append((day + delay, stream, acquisition))
            day += int(rng.integers(2, 6))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "mask_rule"), [(7, "explicit"), (4, "published")])
def test_nights_of_any_kind_add_up(
    tmp_path: Path, make_weights: Callable[..., Weights], seed: int, mask_rule: str
) -> None:
    rng = np.random.default_rng(seed)
    days = int(rng.integers(120, 200))
    everything = arrivals(rng, days)
    grid = Grid.from_bounds((500_000.0, 5_000_000.0, 500_140.0, 5_000_120.0), "EPSG:32631", SHAPE)
    cube = create_cube(str(tmp_path / "cube"), era=ERA.name, grid=grid)
    options: dict[str, Any] = {
        "start": START,
        "stride": 12,
        "tile": 6,
        "halo": 4,
        "mask_rule": mask_rule,
        "workers": 1,
    }
    weights, scores = make_weights(), str(tmp_path / "scores")
    before, compared = -1, 0
    for night in [*sorted(rng.integers(90, days + 26, 4).tolist()), days + 30]:
        for stream in ERA.streams:
            new = [item for arrival, whose, item in everything if whose is stream and before < arrival <= night]
            if new:
                cube.append(stream.name, new)
        before = night
        try:
            extend_scores(cube.url, weights, scores, **options)
        except (TooFewObservations, ContractError):
            continue
        expected, found = predict(cube.url, weights, **options), open_scores(scores)
        npt.assert_array_equal(found["score"].values, expected.values)
        for name in ("window_start", "window_end", "n_obs", "provisional"):
            npt.assert_array_equal(found[name].values, expected[name].values, err_msg=name)
        compared += 1
    assert compared >= 3
