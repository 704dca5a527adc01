"""Manifests and replays: the same result is recognised, another one too, and nothing foreign is trusted."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.testing as npt
import pytest
import zarr

from urbandelta.errors import MonitorError, StoreError
from urbandelta.extending import extend_scores
from urbandelta.manifests import output_digest, read_manifest, replay, scores_digest, write_manifest
from urbandelta.monitor import Monitor, parse_monitor
from urbandelta.monitor_products import make_products
from urbandelta.repository import open_repository
from urbandelta.scores import open_scores
from urbandelta.store import Cube, open_cube
from urbandelta.stream_index import array_of
from urbandelta.weights import Weights, save_weights

MOMENT = dt.datetime(2026, 5, 4, 3, 2, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def scored(
    tmp_path_factory: pytest.TempPathFactory, make_cube: Callable[..., Cube], make_weights: Callable[..., Weights]
) -> tuple[Monitor, Path]:
    """A monitor with cube, scores and products, and the manifest of the run."""
    folder = tmp_path_factory.mktemp("monitor")
    save_weights(make_weights(), folder / "w.safetensors")
    ring = [[2.99, 45.14], [3.01, 45.14], [3.01, 45.16], [2.99, 45.16], [2.99, 45.14]]
    district = {
        "type": "Feature",
        "properties": {"name": "all"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    (folder / "districts.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [district]}))
    shutil.copytree(make_cube(days=230, every=5).url, folder / "town" / "cube")
    monitor = parse_monitor(
        {
            "version": 1,
            "name": "town",
            "aoi": {"bbox": [3.0, 45.1, 3.01, 45.11]},
            "start": "2018-01-01",
            "store": "town",
            "source": {"kind": "none"},
            "weights": "w.safetensors",
            "predict": {"tile": 12, "halo": 4},
            "events": {"threshold": 0.01, "low": 0.005},
            "products": {"report": False, "districts": "districts.geojson"},
        },
        where=folder / "town.yaml",
    )
    extend_scores(
        monitor.cube_url, monitor.weights_path, monitor.scores_url, start=np.datetime64("2018-01-01"), tile=12, halo=4
    )
    cube = open_cube(monitor.cube_url)
    made = make_products(monitor, monitor.folder / "products", scores_url=monitor.scores_url, cube=cube)
    path = write_manifest(
        monitor,
        moment=MOMENT,
        until=None,
        scores_url=monitor.scores_url,
        cube_url=cube.url,
        cube_snapshot=cube.snapshot,
        outputs=made.files,
    )
    return monitor, path


def test_products_are_made_once(scored: tuple[Monitor, Path]) -> None:
    monitor, _ = scored
    again = make_products(
        monitor,
        monitor.folder / "products",
        scores_url=monitor.scores_url,
        cube=open_cube(monitor.cube_url),
    )
    assert not again.written
    names = {path.relative_to(monitor.folder / "products").parts[0] for path in again.files}
    assert names == {"districts", "events", "rasters", "stac"}
    table = (monitor.folder / "products" / "districts" / "districts.csv").read_text().splitlines()
    assert table[1].startswith("all,4.8")


def test_a_manifest_says_what_the_result_was_made_from(scored: tuple[Monitor, Path]) -> None:
    monitor, path = scored
    assert path.name.startswith("20260504T030201Z-")
    manifest = read_manifest(path)
    assert manifest.weights["sha256"] == str(open_scores(monitor.scores_url).attrs["weights_sha256"])
    assert manifest.cube["snapshot"] == open_cube(monitor.cube_url).snapshot
    assert manifest.scores["sha256"] == scores_digest(open_scores(monitor.scores_url))
    assert manifest.versions["numpy"] == np.__version__
    assert "events/events.gpkg" in manifest.outputs
    assert parse_monitor(manifest.config, where=Path(manifest.base) / "x.yaml") == monitor


def test_replay_makes_the_same(scored: tuple[Monitor, Path], tmp_path: Path) -> None:
    _, path = scored
    report = replay(path, tmp_path / "replay")
    assert report.equal
    assert report.scores == "equal"
    assert set(report.outputs.values()) == {"equal", "not compared"}
    assert report.notes == ()
    with pytest.raises(MonitorError, match="is not empty"):
        replay(path, tmp_path / "replay")


def test_replay_tells_what_is_different(scored: tuple[Monitor, Path], tmp_path: Path) -> None:
    _, path = scored
    values = json.loads(path.read_text())
    values["scores"]["sha256"] = "0" * 64
    values["outputs"]["rasters/score.tif"] = "0" * 64
    values["outputs"]["rasters/more.tif"] = "0" * 64
    values["versions"]["numpy"] = "1.0"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(values))
    report = replay(other, tmp_path / "replay")
    assert not report.equal
    assert report.scores == "different"
    assert report.outputs["rasters/score.tif"] == "different"
    assert report.outputs["rasters/more.tif"] == "missing"
    assert report.outputs["events/events.geojson"] == "equal"
    assert report.notes == (f"numpy is {np.__version__}, it was 1.0",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(version=9), "has version 9"),
        (lambda values: values.pop("cube"), "no manifest"),
        (lambda values: values.update(surprise=1), "no manifest"),
        (lambda values: values["scores"].update(parameters=3), "wrong type"),
        (lambda values: values["config"].update(surprise=1), "surprise"),
        (lambda values: values["weights"].update(sha256="0" * 64), "put those weights back"),
    ],
)
def test_foreign_manifests_are_refused(
    scored: tuple[Monitor, Path], tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    values = json.loads(scored[1].read_text())
    change(values)
    path = tmp_path / "m.json"
    path.write_text(json.dumps(values))
    with pytest.raises(MonitorError, match=message):
        replay(path, tmp_path / "replay")


def test_a_snapshot_that_is_gone_is_named(scored: tuple[Monitor, Path], tmp_path: Path) -> None:
    values = json.loads(scored[1].read_text())
    values["cube"]["snapshot"] = "0" * 20
    path = tmp_path / "m.json"
    path.write_text(json.dumps(values))
    with pytest.raises(StoreError, match="as it was"):
        replay(path, tmp_path / "replay")


def test_a_digest_depends_on_every_value(scored: tuple[Monitor, Path], tmp_path: Path) -> None:
    monitor, _ = scored
    shutil.copytree(monitor.scores_url, tmp_path / "scores")
    repository = open_repository(str(tmp_path / "scores"), kind="scores")

    def write(store: Any, _snapshot: str) -> dict[str, Any]:
        array = array_of(zarr.open_group(store, mode="r+", use_consolidated=False), "score")
        array[0, 3, 4] = np.nextafter(np.asarray(array[0, 3, 4], np.float32), np.float32(2))
        return {}

    before = scores_digest(open_scores(str(tmp_path / "scores")))
    repository.commit("change", write)
    after = open_scores(str(tmp_path / "scores"))
    assert before == scores_digest(open_scores(monitor.scores_url))
    assert scores_digest(after) != before
    npt.assert_allclose(after["score"].values, open_scores(monitor.scores_url)["score"].values, atol=1e-6)


def test_the_digest_of_a_raster_is_of_its_pixels(scored: tuple[Monitor, Path], tmp_path: Path) -> None:
    import rasterio

    source = scored[0].folder / "products" / "rasters" / "score.tif"
    with rasterio.open(source) as opened:
        profile = {key: opened.profile[key] for key in ("width", "height", "count", "dtype", "crs", "transform")}
        pixels, nodata = opened.read(), opened.nodata
    plain = tmp_path / "plain.tif"
    with rasterio.open(plain, "w", driver="GTiff", nodata=nodata, **profile) as out:
        out.write(pixels)
    assert output_digest(plain) == output_digest(source)
    pixels[0, 0, 0] = 0.75
    with rasterio.open(plain, "w", driver="GTiff", nodata=nodata, **profile) as out:
        out.write(pixels)
    assert output_digest(plain) != output_digest(source)
