"""Labels against the published program's own: the radar test map by map, index, betas, labels, and the whole chain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.testing as npt
import pytest
from conftest import load_golden

import urbandelta as ud
from urbandelta.grid import Grid
from urbandelta.indices import beta_of, endisi_beta
from urbandelta.labelling import label_cube
from urbandelta.omnibus import omnibus_flags, omnibus_frequency
from urbandelta.types import Acquisition

GOLDEN = {"s12": "golden_labels_s12", "ers12ls5": "golden_labels_ers"}
CHAINS = {"s12": ("golden_stack", "golden_pipeline_s12"), "ers12ls5": ("golden_stack_ers", "golden_pipeline_ers")}
TILE = 32


@pytest.fixture(scope="module", params=list(GOLDEN))
def golden(request: pytest.FixtureRequest, reference: Path) -> tuple[str, Any, dict[str, Any]]:
    return request.param, *load_golden(reference / f"{GOLDEN[request.param]}.npz")


def at_steps(frames: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Frames at steps; index -1 is a frame of zeros."""
    return np.concatenate([frames, np.zeros((1, *frames.shape[1:]), frames.dtype)])[index]


def cases(arrays: Any, meta: dict[str, Any]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    for case in range(len(meta["cases"])):
        current = arrays[f"c{case}_cur_idx"]
        yield (
            case,
            {
                "asc": at_steps(arrays[f"c{case}_cur_asc"], current[:, 0]),
                "dsc": at_steps(arrays[f"c{case}_cur_dsc"], current[:, 1]),
                "prev": at_steps(arrays[f"c{case}_prev_opt"], arrays[f"c{case}_prev_idx"][:, 2]),
                "next": at_steps(arrays[f"c{case}_next_opt"], arrays[f"c{case}_next_idx"][:, 2]),
            },
        )


def test_omnibus_maps_without_one_mismatch(golden: Any) -> None:
    era, arrays, meta = golden
    rule = ud.ERAS[era].label
    for case, inputs in cases(arrays, meta):
        for orbit in ("asc", "dsc"):
            options = {"enl": rule.looks, "significance": rule.significance, "mode": "reference"}
            flags = omnibus_flags(inputs[orbit], **options)
            npt.assert_array_equal(flags[1:], arrays[f"c{case}_cmap_{orbit}"])
            assert not flags[0].any()
            npt.assert_allclose(
                omnibus_frequency(inputs[orbit], **options), arrays[f"c{case}_chmap_{orbit}"], atol=1e-12
            )


def test_omnibus_alone_at_other_significances(golden: Any) -> None:
    era, arrays, meta = golden
    for number in range(len(meta["omnibus"])):
        series, significance = arrays[f"u{number}_win"], float(arrays[f"u{number}_sigma"])
        options = {"enl": ud.ERAS[era].label.looks, "significance": significance, "mode": "reference"}
        npt.assert_array_equal(omnibus_flags(series, **options)[1:], arrays[f"u{number}_cmap"].astype(bool))
        npt.assert_allclose(omnibus_frequency(series, **options), arrays[f"u{number}_chmap"], atol=1e-12)


def test_betas_and_index(golden: Any) -> None:
    era, arrays, meta = golden
    coefficients = arrays["beta_coeffs"]
    for case, _ in cases(arrays, meta):
        for side, part in enumerate(("prev", "next")):
            mean, beta = arrays[f"c{case}_mean_{part}"], arrays[f"c{case}_betas"][side]
            npt.assert_allclose(endisi_beta(mean, era=era).coefficients, coefficients[case, side], rtol=1e-6)
            tiles = meta["cases"][case]["beta_tiles"]
            assert beta_of([coefficients[tile, side] for tile in tiles]) == pytest.approx(beta, rel=1e-6)
            index = ud.endisi(mean, beta, era=era, shift=float(arrays[f"c{case}_alpha"]))
            npt.assert_allclose(index, arrays[f"c{case}_endisi_{part}"], rtol=1e-6, atol=2e-7)


def test_labels(golden: Any) -> None:
    era, arrays, meta = golden
    for case, inputs in cases(arrays, meta):
        options = {"era": era, "betas": arrays[f"c{case}_betas"], "shift": float(arrays[f"c{case}_alpha"])}
        for before, after in (
            (inputs["prev"], inputs["next"]),
            (arrays[f"c{case}_mean_prev"], arrays[f"c{case}_mean_next"]),
        ):
            label = ud.synthetic_label(inputs["asc"], inputs["dsc"], before, after, **options, mode="reference")
            npt.assert_allclose(label, arrays[f"c{case}_label"], atol=1e-6)
            assert label.dtype == np.float32


@pytest.mark.parametrize("era", list(CHAINS))
def test_the_whole_chain(era: str, reference: Path, tmp_path: Path) -> None:
    """A cube of the published stack's acquisitions, labelled, against what the original scripts made of them."""
    stack_name, pipeline_name = CHAINS[era]
    arrays, meta = load_golden(reference / f"{stack_name}.npz")
    pipeline, _ = load_golden(reference / f"{pipeline_name}.npz")
    cube = cube_of_stack(str(tmp_path / "cube"), era, arrays, meta)
    labels = label_cube(cube, mode="reference", start=meta["start"], end=meta["end"], workers=1)
    assert [window.count for window in labels.windows] == [row[3] for row in meta["windows"]["t1"]["list"]]
    npt.assert_allclose(labels.betas, pipeline["betas"], rtol=1e-6)
    tiles = [name.split("_")[1:] for name in pipeline.files if name.startswith("label_")]
    assert tiles
    for row, column in tiles:
        y, x = (slice(int(at) * TILE, int(at) * TILE + TILE) for at in (row, column))
        npt.assert_allclose(labels.read(slice(None), y, x), pipeline[f"label_{row}_{column}"], atol=1e-6)


def cube_of_stack(url: str, era: str, arrays: Any, meta: dict[str, Any]) -> Any:
    height, width = meta["H"], meta["W"]
    row = ud.ERAS[era]
    bounds = (500_000.0, 3_000_000.0, 500_000.0 + row.pixel_m * width, 3_000_000.0 + row.pixel_m * height)
    cube = ud.create_cube(url, era=era, grid=Grid.from_bounds(bounds, row.crs or "EPSG:32631", (height, width)))
    for stream, sensor in zip(row.streams, ("asc", "dsc", "opt"), strict=True):
        times = arrays[f"{sensor}_time"].astype("datetime64[s]").astype("datetime64[ns]")
        values = arrays[f"{sensor}_u8"]
        cube.append(
            stream.name,
            [
                Acquisition(
                    time=time,
                    values=raw,
                    mask=np.where(mask.reshape(height, width), 0, 1).astype(np.uint8),
                    bands=stream.bands,
                    scale=1 / meta["scale"][sensor],
                )
                for time, raw, mask in zip(times, values, arrays[f"{sensor}_mask"], strict=True)
            ],
        )
    return cube
