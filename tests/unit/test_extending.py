"""Scores that grow night by night are, bit by bit, those of one run over everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.testing as npt
import pytest
import xarray as xr

from urbandelta import extending
from urbandelta.errors import StoreError
from urbandelta.extending import Extension, extend_scores
from urbandelta.infer import predict
from urbandelta.scores import open_scores
from urbandelta.store import Cube, create_cube
from urbandelta.types import Acquisition
from urbandelta.weights import Weights

START = np.datetime64("2018-01-01", "ns")
OPTIONS: dict[str, Any] = {"start": START, "tile": 12, "halo": 4, "workers": 2}


@pytest.fixture(scope="module")
def weights(make_weights: Callable[..., Weights]) -> Weights:
    return make_weights()


@pytest.fixture(scope="module")
def whole(make_cube: Callable[..., Cube]) -> Cube:
    return make_cube(days=270, every=9)


@pytest.fixture(scope="module")
def at_once(whole: Cube, weights: Weights) -> xr.DataArray:
    return predict(whole, weights, **OPTIONS)


def taken(cube: Cube, stream: str, since: np.datetime64, until: np.datetime64) -> Iterator[Acquisition]:
    """Acquisitions of a cube in [since, until), as they are stored."""
    info, times = cube.attributes(stream), cube.times(stream)
    everything = slice(0, cube.grid.height), slice(0, cube.grid.width)
    for n in np.flatnonzero((times >= since) & (times < until)):
        values, mask = cube.read_raw(stream, slice(n, n + 1), *everything)
        yield Acquisition(
            time=times[n],
            values=values[0],
            mask=mask[0],
            bands=info.bands,
            scale=info.scale,
            offset=info.offset,
            orbit_state=cube.era.stream(stream).orbit_state,
            processing_level=cube.era.stream(stream).processing_level,
            backscatter_coefficient=cube.era.stream(stream).backscatter_coefficient,
        )


def add(to: Cube, source: Cube, since: int, until: int, *, streams: tuple[str, ...] | None = None) -> None:
    for name in streams or source.streams:
        to.append(name, list(taken(source, name, *(START + np.timedelta64(day, "D") for day in (since, until)))))


def extend(cube: Cube, weights: Weights, out: Path) -> Extension:
    return extend_scores(cube.url, weights, str(out), **OPTIONS)


def check(out: Path, expected: xr.DataArray) -> None:
    found = open_scores(str(out))
    npt.assert_array_equal(found["score"].values, expected.values)
    for name in ("window_start", "window_end", "n_obs", "provisional", "time"):
        npt.assert_array_equal(found[name].values, expected[name].values, err_msg=name)
    assert found.attrs["complete"]


def test_nights_add_up_to_one_run(tmp_path: Path, whole: Cube, weights: Weights, at_once: xr.DataArray) -> None:
    cube = create_cube(str(tmp_path / "cube"), era="s12", grid=whole.grid)
    nights = [0, 200, 201, 206, 207, 222, 223, 240, 271]
    done = []
    for since, until in pairwise(nights):
        add(cube, whole, since, until)
        done.append(extend(cube, weights, tmp_path / "scores"))
    check(tmp_path / "scores", at_once)
    assert done[-1].kept > 0
    assert done[-1].windows == len(at_once)
    assert done[0].kept == 0
    # Only what may still change is made again.
    assert all(later.kept >= earlier.windows - earlier.provisional for earlier, later in pairwise(done))


def test_a_second_time_nothing_is_computed(tmp_path: Path, whole: Cube, weights: Weights, monkeypatch: Any) -> None:
    first = extend(whole, weights, tmp_path / "scores")
    monkeypatch.setattr(extending, "run_blocks", lambda *args, **kwargs: pytest.fail("computed again"))
    again = extend(whole, weights, tmp_path / "scores")
    assert (again.kept, again.scored, again.snapshot) == (first.windows, 0, first.snapshot)


def test_what_arrives_late_changes_the_windows_that_could_see_it(
    tmp_path: Path, whole: Cube, weights: Weights, at_once: xr.DataArray
) -> None:
    cube = create_cube(str(tmp_path / "cube"), era="s12", grid=whole.grid)
    add(cube, whole, 0, 190)
    add(cube, whole, 196, 271)
    extend(cube, weights, tmp_path / "scores")
    add(cube, whole, 190, 196)
    done = extend(cube, weights, tmp_path / "scores")
    check(tmp_path / "scores", at_once)
    assert done.kept == int((at_once["window_end"].values < START + np.timedelta64(190, "D")).sum())


def test_a_pixel_first_seen_late_changes_what_its_neighbours_saw_before(
    tmp_path: Path, make_cube: Callable[..., Cube], weights: Weights
) -> None:
    """Until then it shows its first value, which nobody knew when the early windows were scored."""
    blind, clear = make_cube(days=270, every=9, blind=(4, 9, 4, 9)), make_cube(days=270, every=9)
    cube = create_cube(str(tmp_path / "cube"), era="s12", grid=blind.grid)
    add(cube, blind, 0, 225)
    extend(cube, weights, tmp_path / "scores")
    early = open_scores(str(tmp_path / "scores"))["score"][0].values
    add(cube, clear, 225, 271)
    extend(cube, weights, tmp_path / "scores")
    check(tmp_path / "scores", predict(cube.url, weights, **OPTIONS))
    assert not np.array_equal(open_scores(str(tmp_path / "scores"))["score"][0].values, early, equal_nan=True)


def test_readers_see_the_old_scores_until_the_new_ones_are_whole(
    tmp_path: Path, whole: Cube, weights: Weights, monkeypatch: Any
) -> None:
    monkeypatch.setattr("urbandelta.plan.BLOCK_PX", 12)
    cube = create_cube(str(tmp_path / "cube"), era="s12", grid=whole.grid)
    add(cube, whole, 0, 240)
    extend(cube, weights, tmp_path / "scores")
    before = open_scores(str(tmp_path / "scores"))["score"].values
    add(cube, whole, 240, 271)
    run_blocks = extending.run_blocks

    class Killed(Exception):
        pass

    def stop_after_one(run: Any, sink: Any, **options: Any) -> None:
        add_block, count = sink.add, []

        def counted(*args: Any) -> str:
            if count:
                raise Killed
            count.append(1)
            return add_block(*args)

        sink.add = counted
        run_blocks(run, sink, **options)

    monkeypatch.setattr(extending, "run_blocks", stop_after_one)
    with pytest.raises(Killed):
        extend(cube, weights, tmp_path / "scores")
    half_way = open_scores(str(tmp_path / "scores"))
    npt.assert_array_equal(half_way["score"].values, before)
    assert half_way.attrs["complete"]
    resumed: list[int] = []
    monkeypatch.setattr(
        extending,
        "run_blocks",
        lambda run, sink, **options: (resumed.append(len(sink.done)), run_blocks(run, sink, **options)),
    )
    extend(cube, weights, tmp_path / "scores")
    assert resumed == [1]
    check(tmp_path / "scores", predict(whole, weights, **OPTIONS))


def test_another_way_of_scoring_is_refused(tmp_path: Path, whole: Cube, weights: Weights) -> None:
    extend(whole, weights, tmp_path / "scores")
    with pytest.raises(StoreError, match="halo is 4, not 0"):
        extend_scores(whole.url, weights, str(tmp_path / "scores"), **{**OPTIONS, "halo": 0})
