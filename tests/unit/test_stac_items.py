"""The catalogue of the rasters, validated by the schemas of STAC and of every extension that it declares."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyproj
import pyproj.datadir
import pystac
import pystac.validation
import pytest
import rasterio
from event_scene import scores_of
from jsonschema.validators import validator_for
from pystac.validation.local_validator import get_local_schema_cache
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from referencing import Registry, Resource

from urbandelta.grid import Grid
from urbandelta.rasters import write_rasters
from urbandelta.stac_items import write_stac

SCHEMAS = Path(__file__).resolve().parents[1] / "data" / "stac_schemas"
PROJJSON = Path(pyproj.datadir.get_data_dir()) / "projjson.schema.json"
CORE = "https://schemas.stacspec.org/v1.1.0/{0}-spec/json-schema/{0}.json"
EQUAL_AREA = "+proj=laea +lat_0=48 +lon_0=16 +datum=WGS84 +units=m"
GRIDS = {
    "utm": Grid("EPSG:32631", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_600_000.0), 24, 24),
    "degrees": Grid("EPSG:4326", (0.0001, 0.0, 16.0, 0.0, -0.0001, 48.0), 24, 24),
    "no EPSG code": Grid(EQUAL_AREA, (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_600_000.0), 24, 24),
    "feet": Grid("EPSG:2263", (30.0, 0.0, 980_000.0, 0.0, -30.0, 200_000.0), 24, 24),
}
Document = dict[str, Any]
Catalogue = dict[str, Document]


@cache
def schemas() -> dict[str, Document]:
    """Every schema that the catalogue needs, by its address."""
    found = dict(get_local_schema_cache())
    for path in SCHEMAS.glob("*.json"):
        name, _, version = path.stem.partition("-")
        found[f"https://stac-extensions.github.io/{name}/{version}/schema.json"] = json.loads(path.read_text())
    projjson = json.loads(PROJJSON.read_text())
    # The projection extension names version 0.7; another one must not pass for it.
    found[projjson["$id"]] = projjson
    return found


def validate(document: Document) -> None:
    """As a STAC validator does it: by the core, then by each declared extension."""
    core = CORE.format("item" if document["type"] == "Feature" else "collection")
    registry: Registry[Any] = Registry().with_resources(
        (address, Resource.from_contents(schema)) for address, schema in schemas().items()
    )
    for address in (core, *document["stac_extensions"]):
        schema = schemas()[address]
        validator_for(schema)(schema, registry=registry, format_checker=jsonschema.FormatChecker()).validate(document)


@pytest.fixture(scope="module", params=GRIDS)
def catalogue(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Grid, Path]:
    """A grid, and the folder of the catalogue of rasters on it."""
    grid = GRIDS[request.param]
    folder = tmp_path_factory.mktemp("catalogue")
    scores = scores_of([(slice(4, 12), slice(5, 13), 150)], grid=grid, windows=30, spread=0.1)
    write_rasters(scores, folder / "rasters")
    write_stac(scores, folder / "rasters", folder / "stac", name="city", platforms=["S1A", "S2B"])
    return grid, folder / "stac"


def documents(folder: Path) -> Catalogue:
    items = [json.loads(path.read_text()) for path in (folder / "items").glob("*.json")]
    return {each["id"]: each for each in (json.loads((folder / "collection.json").read_text()), *items)}


@pytest.fixture
def offline() -> Iterator[None]:
    """Schemas from here for pystac's own validation."""
    before = pystac.validation.RegisteredValidator.get_validator()
    validator = JsonSchemaSTACValidator()
    validator.schema_cache.update(deepcopy(schemas()))
    pystac.validation.set_validator(validator)
    yield
    pystac.validation.set_validator(before)


def test_every_document_is_valid_by_the_core_and_by_each_extension(catalogue: tuple[Grid, Path]) -> None:
    found = documents(catalogue[1])
    assert "city-overall" in found
    assert len(found) > 5
    for document in found.values():
        validate(document)


@pytest.mark.usefixtures("offline")
def test_pystac_finds_every_document_valid(catalogue: tuple[Grid, Path]) -> None:
    collection = pystac.Collection.from_file(str(catalogue[1] / "collection.json"))
    assert len(collection.validate()) == 1 + len(collection.stac_extensions)
    for item in collection.get_items():
        assert len(item.validate()) == 1 + len(item.stac_extensions)


def test_fields_of_an_extension_are_there_only_where_it_is_declared(catalogue: tuple[Grid, Path]) -> None:
    prefixes = {"proj": "projection"}
    for document in documents(catalogue[1]).values():
        used = {prefixes.get(each, each) for each in re.findall(r'"(\w+):\w+":', json.dumps(document))}
        declared = {address.split("/")[3] for address in document["stac_extensions"]}
        # The fields of `render` have no prefix.
        assert used == declared - {"render"}


def _asset(name: str) -> Callable[[Catalogue], Document]:
    return lambda found: found["city-overall"]["assets"][name]


def _properties(found: Catalogue) -> Document:
    return found["city-overall"]["properties"]


BROKEN: dict[str, tuple[Callable[[Catalogue], Document], str, Any]] = {
    "a class without a name": (_asset("status"), "classification:classes", [{"value": 1}]),
    "a checksum that is no multihash": (_asset("score"), "file:checksum", "SHA-256"),
    "a size below nothing": (_asset("score"), "file:size", -1),
    "a resolution as text": (_asset("score"), "raster:spatial_resolution", "10 m"),
    "an unknown sampling": (_asset("score"), "raster:sampling", "volume"),
    "nodata of null": (_asset("score"), "nodata", None),
    "software without a version": (_properties, "processing:software", {"urbandelta": ""}),
    "a level as a number": (_properties, "processing:level", 4),
    "a code as a number": (_properties, "proj:code", 32631),
    "a transform of two numbers": (_properties, "proj:transform", [10.0, 10.0]),
    "PROJJSON of nothing": (_properties, "proj:projjson", {"type": "ProjectedCRS"}),
    "the field of an older version": (_properties, "proj:epsg", 32631),
    "renders of no asset": (lambda found: found["city"], "renders", {"score": {"title": "score"}}),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_field_is_found(catalogue: tuple[Grid, Path], case: str) -> None:
    where, field, value = BROKEN[case]
    found = documents(catalogue[1])
    where(found)[field] = value
    broken = found["city" if field == "renders" else "city-overall"]
    with pytest.raises(jsonschema.ValidationError):
        validate(broken)


def test_resolutions_are_metres(catalogue: tuple[Grid, Path]) -> None:
    grid, folder = catalogue
    # A pixel of 0.0001 degrees at 48 N is 7.5 m wide and 11.1 m high; a foot is 0.3048 m.
    expected = {"EPSG:4326": (7.46 * 11.12) ** 0.5, "EPSG:2263": 9.144}.get(grid.crs, 10.0)
    for document in documents(folder).values():
        if document["type"] == "Feature":
            assert document["properties"]["gsd"] == pytest.approx(expected, rel=1e-3)
            for asset in document["assets"].values():
                assert asset["raster:spatial_resolution"] == document["properties"]["gsd"]


def test_a_crs_without_a_code_is_given_whole(catalogue: tuple[Grid, Path]) -> None:
    grid, folder = catalogue
    found = documents(folder)
    properties, collection = found["city-overall"]["properties"], found["city"]
    if grid.crs.startswith("EPSG:"):
        assert properties["proj:code"] == grid.crs
        assert not {"proj:wkt2", "proj:projjson"} & properties.keys()
        assert collection["summaries"]["proj:code"] == [grid.crs]
    else:
        assert properties["proj:code"] is None
        assert pyproj.CRS.from_json_dict(properties["proj:projjson"]) == pyproj.CRS(grid.crs)
        assert pyproj.CRS.from_wkt(properties["proj:wkt2"]) == pyproj.CRS(grid.crs)
        assert "proj:code" not in collection["summaries"]


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    grid = GRIDS["no EPSG code"]
    scores = scores_of([], grid=grid, windows=3)
    del scores.attrs["version"]
    (tmp_path / "rasters").mkdir()
    profile = {"driver": "GTiff", "height": 24, "width": 24, "count": 1, "dtype": "uint8", "crs": grid.crs}
    with rasterio.open(tmp_path / "rasters" / "mask.tif", "w", transform=grid.affine, **profile) as raster:
        raster.write(np.zeros((1, 24, 24), np.uint8))
    write_stac(scores, tmp_path / "rasters", tmp_path / "stac", name="city")
    found = documents(tmp_path / "stac")
    for document in found.values():
        validate(document)
    assert "nodata" not in found["city-overall"]["assets"]["mask"]
    assert "processing:software" not in found["city-overall"]["properties"]
    assert "summaries" not in found["city"]
