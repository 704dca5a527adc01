"""Scores against those that the published program computed with the published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import load_golden

import urbandelta as ud
from urbandelta.grid import Grid
from urbandelta.store import create_cube, open_cube
from urbandelta.types import Acquisition, MaskReason

ENGINES = ("native", "openvino", "torch")
WEIGHTS = {"s12": "best_weights_s12.hdf5", "ers": "best_weights_ers12ls5.hdf5"}
ERA_NAMES = {"s12": "s12", "ers": "ers12ls5"}
TOLERANCE = 1e-5
NOT_SEEN, PADDING = -1, -2


@pytest.fixture(scope="module", params=("s12", "ers"))
def era(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def weights(era: str, reference: Path) -> ud.weights.Weights:
    return ud.load_weights(reference / WEIGHTS[era])


def golden_windows(arrays: Any, count: int) -> tuple[Any, Any, Any]:
    """x, the published script's valid steps, and the real (not padding) steps."""
    x, valid, real = [], [], []
    for n in range(count):
        index = arrays[f"w{n}_idx"]
        frames = [arrays[f"w{n}_{sensor}"] for sensor in ("asc", "dsc", "opt")]
        x.append(
            np.stack([np.concatenate([frame(f, i) for f, i in zip(frames, row, strict=True)], -1) for row in index])
        )
        valid.append(arrays[f"w{n}_valid"])
        real.append(index[:, 0] != PADDING)
    return np.stack(x), np.stack(valid), np.stack(real)


def frame(frames: Any, index: int) -> Any:
    if index >= 0:
        return frames[index]
    return np.full((32, 32, frames.shape[-1]), 0 if index == NOT_SEEN else -1, np.float32)


@pytest.mark.parametrize("engine", ENGINES)
def test_scores_of_golden_windows(era: str, weights: Any, engine: str, reference: Path) -> None:
    arrays, meta = load_golden(reference / f"golden_infer_{era}.npz")
    x, valid, real = golden_windows(arrays, len(meta["windows"]))
    np.testing.assert_array_equal(ud.frame_mask(x), valid)
    scores = ud.score_windows(x, ud.frame_mask(x), weights, engine=engine)
    np.testing.assert_allclose(scores, arrays["output"], rtol=0, atol=TOLERANCE)
    scores = ud.score_windows(x, real, weights, engine=engine)
    np.testing.assert_allclose(scores, arrays["output_padmask"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("engine", ENGINES)
def test_masked_steps_wherever_they_lie(era: str, weights: Any, engine: str, reference: Path) -> None:
    arrays, _ = load_golden(reference / f"golden_masksem_{era}.npz")
    valid = ud.frame_mask(arrays["x"])
    np.testing.assert_array_equal(valid, arrays["valid"])
    scores = ud.score_windows(arrays["x"], valid, weights, engine=engine)
    np.testing.assert_allclose(scores, arrays["output"].reshape(scores.shape), rtol=0, atol=TOLERANCE)


def test_bf16_moves_scores_by_little(era: str, weights: Any, reference: Path) -> None:
    arrays, meta = load_golden(reference / f"golden_infer_{era}.npz")
    x, valid, _ = golden_windows(arrays, len(meta["windows"]))
    moved = np.abs(ud.score_windows(x, valid, weights, precision="bf16") - arrays["output"])
    assert 1e-5 < moved.max() < 0.03
    assert moved.mean() < 0.0015


@pytest.mark.slow
def test_whole_chain_from_acquisitions_to_scores(era: str, weights: Any, reference: Path, tmp_path: Path) -> None:
    arrays, meta = load_golden(reference / ("golden_stack.npz" if era == "s12" else "golden_stack_ers.npz"))
    expected, _ = load_golden(reference / f"golden_pipeline_{era}.npz")
    row = ud.ERAS[ERA_NAMES[era]]
    height, width = meta["H"], meta["W"]
    bounds = (0.0, 0.0, width * row.pixel_m, height * row.pixel_m)
    cube = create_cube(
        str(tmp_path / "cube"), era=row.name, grid=Grid.from_bounds(bounds, row.crs or "EPSG:32631", (height, width))
    )
    for sensor, stream in zip(("asc", "dsc", "opt"), row.streams, strict=True):
        scale = np.float32(meta["scale"][sensor])
        # In order of arrival, which is not that of time.
        cube.append(
            stream.name,
            [
                Acquisition(
                    time=np.datetime64(int(time), "s"),
                    values=values.astype(np.float32) / scale,
                    mask=np.where(mask, 0, MaskReason.NODATA).astype(np.uint8),
                    bands=stream.bands,
                    orbit_state=stream.orbit_state,
                    processing_level=stream.processing_level,
                    backscatter_coefficient=stream.backscatter_coefficient,
                )
                for time, values, mask in zip(
                    arrays[f"{sensor}_time"], arrays[f"{sensor}_u8"], arrays[f"{sensor}_mask"], strict=True
                )
            ],
        )
    scores = ud.predict(
        open_cube(cube.url),
        weights,
        start=np.datetime64(meta["start"], "s"),
        end=np.datetime64(meta["end"], "s"),
        tile=32,
        halo=0,
        mask_rule="published",
        out=str(tmp_path / "scores"),
    )
    for tile_row, tile_column in meta["tiles"]:
        tile = scores[:, tile_row * 32 : tile_row * 32 + 32, tile_column * 32 : tile_column * 32 + 32]
        np.testing.assert_allclose(tile, expected[f"infer_{tile_row}_{tile_column}"], rtol=0, atol=TOLERANCE)
