"""Published TFRecords against the golden stacks, bit by bit, and the cube that they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import load_golden

import urbandelta as ud
from urbandelta.assemble import stack
from urbandelta.plan import cube_steps
from urbandelta.sources.placement import Placement
from urbandelta.sources.stack_import import import_stack
from urbandelta.sources.tfrecord import feature_of
from urbandelta.tfexample import decode_example
from urbandelta.tfrecord import read_records

ERAS = {"s12": ("golden_stack", "golden_pipeline_s12"), "ers12ls5": ("golden_stack_ers", "golden_pipeline_ers")}
SENSORS = ("asc", "dsc", "opt")
TILE = Placement(bounds=(500_000, 5_000_000, 500_320, 5_000_320), crs="EPSG:32631")


@pytest.fixture(scope="module", params=ERAS)
def golden(request: pytest.FixtureRequest, reference: Path) -> tuple[str, Path, Any, dict[str, Any]]:
    arrays, meta = load_golden(reference / f"{ERAS[request.param][0]}.npz")
    return request.param, reference / "tfrecords" / f"stack_{request.param}", arrays, meta


def tile(arrays: Any, meta: dict[str, Any], sensor: str) -> Any:
    return arrays[f"tile_0_0_{sensor}"].astype(np.float32) / np.float32(meta["scale"][sensor])


def test_records_are_the_golden_tiles(golden: Any) -> None:
    era, folder, arrays, meta = golden
    records = [decode_example(content) for content in read_records(folder / "0_0.tfrecords")]
    np.testing.assert_array_equal([record["Timestamp"] for record in records], arrays["steps"])
    for sensor, stream in zip(SENSORS, ud.ERAS[era].streams, strict=True):
        found = np.stack([record[feature_of(stream)] for record in records])
        np.testing.assert_array_equal(found.view(np.uint32), tile(arrays, meta, sensor).view(np.uint32))


def test_windows_are_runs_of_the_golden_tiles(golden: Any, reference: Path) -> None:
    era, _, arrays, meta = golden
    series = np.concatenate([tile(arrays, meta, sensor) for sensor in SENSORS], axis=-1)
    labels = load_golden(reference / f"{ERAS[era][1]}.npz")[0]["label_0_0"]
    listed = meta["windows"]["t1"]["list"]
    firsts = {detail[1][3]: number for number, detail in enumerate(meta["windows"]["t1"]["detail"])}
    count = 0
    for content in read_records(reference / "tfrecords" / f"windows_{era}" / "Liege_0_0.tfrecords"):
        window = decode_example(content)
        steps = len(window["Feature"])
        starts = [a for a in firsts if np.array_equal(series[a : a + steps], window["Feature"])]
        assert len(starts) == 1
        number = firsts[starts[0]]
        assert listed[number][3] == steps
        np.testing.assert_allclose(window["Label"], labels[number], atol=1e-6)
        count += 1
    assert count == 2


@pytest.mark.slow  # 500 commits
def test_the_cube_gives_the_stacked_images_steps_and_scores_again(golden: Any, reference: Path) -> None:
    era, folder, arrays, meta = golden
    url = f"memory://stacked-{era}"
    report = import_stack(folder, into=url, era=era, placement=TILE)
    cube = ud.open_cube(url)
    start = np.datetime64(report.start)
    steps, _, _ = cube_steps(cube, cube.streams, start=start)
    np.testing.assert_array_equal(steps.astype("datetime64[s]").astype(np.int64), arrays["steps"])
    changes = []
    for sensor, stream in zip(SENSORS, cube.era.streams, strict=True):
        whole = slice(None)
        values, mask = cube.read(stream.name, whole, whole, whole)
        again = stack([(cube.times(stream.name), values, mask == 0)], steps)
        wanted = tile(arrays, meta, sensor)
        np.testing.assert_array_equal(again, wanted)
        before = np.concatenate([np.zeros_like(wanted[:1]), wanted[:-1]])
        changes.append((wanted != before).any(axis=(1, 2, 3)))
    still = ~np.any(changes, axis=0)
    assert report.still_steps == still.sum() > 0
    first, *others = (report.streams[name].added for name in cube.streams)
    assert first == (changes[0] | still).sum()
    assert others == [change.sum() for change in changes[1:]]

    # So scores are those that the published scripts computed from the stack.
    published, _ = load_golden(reference / f"{ERAS[era][1]}.npz")
    weights = ud.load_weights(reference / f"best_weights_{era}.hdf5")
    scores = ud.predict(cube, weights, start=start, tile=32, halo=0, mask_rule="published", accepted=("pixel_m",))
    np.testing.assert_allclose(scores, published["infer_0_0"], rtol=0, atol=1e-5)

    again = import_stack(folder, into=url)
    assert [part.added for part in again.streams.values()] == [0, 0, 0]
    assert again.snapshot == report.snapshot
