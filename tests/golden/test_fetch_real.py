"""Measured scenes behind a server that describes them as public archives do, fetched and imported: the same bits."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from fetch_scene import digests
from rasterio.warp import transform_bounds
from servers.stac_api import Contents, stac_server
from typer.testing import CliRunner

from urbandelta.cli.importing import app
from urbandelta.fetching import FetchReport, fetch
from urbandelta.monitor import parse_monitor
from urbandelta.store import Cube, open_cube


@contextmanager
def served(folder: Path):
    contents = Contents(folder=folder, prefix="/api/stac/v1")
    with stac_server(contents) as server:
        yield contents, server


def footprint(path: Path) -> tuple[float, float, float, float]:
    with rasterio.open(path) as source:
        return transform_bounds(source.crs, "EPSG:4326", *source.bounds)


def item(name: str, collection: str, bounds, properties: dict, assets: dict) -> dict:
    box = shapely.box(*bounds)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": collection,
        "bbox": list(bounds),
        "geometry": shapely.geometry.mapping(box),
        "properties": properties,
        "links": [],
        "assets": assets,
    }


def fetched(
    server, tmp_path, *, archive: str, bbox, start: str, end: str, streams: dict, pixel_m: float
) -> tuple[FetchReport, Cube]:
    source = {"kind": "stac", "archive": archive, "url": f"{server.url}/api/stac/v1", "streams": streams}
    document = {"version": 1, "name": "m", "aoi": {"bbox": bbox}, "start": start, "end": end, "store": "m"}
    document["grid"] = {"pixel_m": pixel_m}
    monitor = parse_monitor({**document, "source": source}, where=tmp_path / "m.yaml")
    return fetch(monitor), open_cube(monitor.cube_url)


def imported(*words: object) -> None:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_opera_bursts_as_terrain_corrected_radar(real_data, tmp_path):
    folder = real_data / "opera_rtc_s1"
    with served(real_data) as (contents, server):
        for vv in sorted(folder.glob("*/*_VV.tif")):
            sensed, platform = (vv.name.split("_")[number] for number in (4, 6))
            moment = f"{sensed[:4]}-{sensed[4:6]}-{sensed[6:8]}T{sensed[9:11]}:{sensed[11:13]}:{sensed[13:15]}Z"
            properties = {
                "datetime": moment,
                "platform": f"SENTINEL-{platform[1:]}",
                "sat:orbit_state": "ascending",
                "sat:relative_orbit": 137,
            }
            base = f"{server.url}/files/{vv.relative_to(real_data).as_posix()}"
            assets = {"vv": {"href": base}, "vh": {"href": base.replace("_VV.tif", "_VH.tif")}}
            contents.items.append(item(vv.stem, "sentinel-1-rtc", footprint(vv), properties, assets))
        boxes = np.array([entry["bbox"] for entry in contents.items])
        bbox = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
        report, cube = fetched(
            server,
            tmp_path,
            archive="planetary-computer",
            bbox=[float(value) for value in bbox],
            start="2021-01-01",
            end="2022-02-01",
            pixel_m=30.0,
            streams={"s1_asc": {"merge_within": 10}},
        )
    assert report.complete, report
    pattern = "*_{date:%Y%m%dT%H%M%SZ}_{*}_{platform}_30_v1.0_{band}.tif"
    words = ["--stream", "s1_asc", "--era", "s12", "--bbox", *bbox, "--pattern", pattern, "--merge-within", 10]
    words += [
        "--pixel-m",
        30,
        "--level",
        "RTC",
        "--coefficient",
        "gamma0",
        "--orbit",
        "ascending",
        "--track",
        137,
        "--nodata",
        -32768,
    ]
    imported("geotiff", folder, "--into", tmp_path / "imported", *words)
    expected = digests(open_cube(str(tmp_path / "imported")))["s1_asc"]
    found = digests(cube)["s1_asc"]
    assert found == [row for row in expected if row in set(found)]
    assert len(found) == report.added["s1_asc"] >= 5
    assert set(cube.acquisitions("s1_asc")["platform"].values) <= {"S1A", "S1B"}


@pytest.mark.parametrize("baseline", ["02.05", "05.00"])
def test_oscd_as_level_1c_of_earth_search(real_data, tmp_path, baseline):
    """Thirteen bands of 10, 20 and 60 m, on another grid and CRS than their own."""
    city = real_data / "oscd" / "images" / "beihai"
    names = {"B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2"}
    names |= {"B07": "rededge3", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B10": "cirrus"}
    names |= {"B11": "swir16", "B12": "swir22"}
    with served(real_data) as (contents, server):
        for blue in sorted(city.glob("imgs_*/*_B02.tif")):
            sensed = blue.name.split("_")[1]
            moment = f"{sensed[:4]}-{sensed[4:6]}-{sensed[6:8]}T{sensed[9:11]}:{sensed[11:13]}:{sensed[13:15]}Z"
            base = f"{server.url}/files/{blue.relative_to(real_data).as_posix()}"
            raster = {"raster:bands": [{"nodata": 0, "scale": 1e-4, "offset": -0.1}]}
            assets = {name: {"href": base.replace("B02", band), **raster} for band, name in names.items()}
            properties = {
                "datetime": moment,
                "platform": "sentinel-2a",
                "grid:code": "MGRS-49QCD",
                "s2:processing_baseline": baseline,
                "s2:product_type": "S2MSI1C",
            }
            contents.items.append(item(blue.stem, "sentinel-2-l1c", footprint(blue), properties, assets))
        bbox = [109.51, 21.56, 109.53, 21.575]
        streams = {"optical": {"offset_check": "warn"}}
        report, cube = fetched(
            server,
            tmp_path,
            archive="earth-search",
            bbox=bbox,
            start="2016-01-01",
            end="2019-01-01",
            streams=streams,
            pixel_m=10.0,
        )
    assert (report.complete, report.added) == (True, {"optical": 2})
    words = ["--stream", "optical", "--era", "s12", "--bbox", *bbox, "--level", "L1C", "--zero", "nodata"]
    words += ["--pattern", "T49QCD_{date:%Y%m%dT%H%M%S}_{band}.tif", "--scale", 1e-4, "--offset", -0.1]
    imported("geotiff", city, "--into", tmp_path / "imported", *words)
    other = open_cube(str(tmp_path / "imported"))
    everywhere = (slice(0, 2), slice(0, cube.grid.height), slice(0, cube.grid.width))
    values, mask = cube.read_raw("optical", *everywhere)
    raw, other_mask = other.read_raw("optical", *everywhere)
    np.testing.assert_array_equal(mask, other_mask)
    assert np.mean(mask == 0) > 0.5
    assert (cube.attributes("optical").scale, cube.attributes("optical").offset) == (1e-4, -0.1)
    # Of an old baseline, numbers gain 1000 counts; of a new one, they are as they were.
    gained = 1000 if baseline < "04.00" else 0
    seen = mask == 0
    np.testing.assert_array_equal(values[seen], raw[seen] + np.uint16(gained))
    if not gained:
        assert digests(cube) == digests(other)
