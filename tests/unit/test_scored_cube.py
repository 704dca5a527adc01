from __future__ import annotations

import shutil

import numpy.testing as npt
import pytest
import rasterio
from event_scene import DAY, GRID, START, scores_of
from observed_scene import BANDS, cube_of

from urbandelta.dating import date_maps
from urbandelta.grid import Grid
from urbandelta.observed_dates import BOUNDS
from urbandelta.products import export_cogs
from urbandelta.rasters import write_rasters
from urbandelta.scored_cube import scored_cube
from urbandelta.store import create_cube
from urbandelta.types import Acquisition

ONE = (slice(3, 8), slice(3, 9))
WORKS = [(*ONE, 200, 300)]


@pytest.fixture
def scores(tmp_path):
    """Scores that name a stored cube with the images of `cube_of`."""
    fake = cube_of(WORKS, every=10)
    cube = create_cube(str(tmp_path / "cube"), era="s12", grid=GRID)
    cube.append(
        "optical",
        (
            Acquisition(time=START + day * DAY, values=values, mask=mask, bands=BANDS)
            for day, values, mask in zip(fake.days, fake.values, fake.mask, strict=True)
        ),
    )
    found = scores_of([(*ONE, 200)])
    found.attrs |= {"cube_url": cube.url, "cube_snapshot": cube.snapshot}
    return found


def test_a_stored_cube_dates_as_the_same_images_in_memory(scores):
    stored, fake = date_maps(scores, cube=scored_cube(scores)), date_maps(scores, cube=cube_of(WORKS, every=10))
    assert stored.source == "observations"
    for name in BOUNDS:
        npt.assert_array_equal(getattr(stored, name), getattr(fake, name))


def test_the_cube_is_opened_as_it_was_scored(scores):
    cube = scored_cube(scores)
    assert cube is not None
    assert cube.snapshot == scores.attrs["cube_snapshot"]


def test_a_cube_that_is_gone_or_another_is_none(scores, tmp_path):
    assert scored_cube(scores_of([])) is None
    shutil.rmtree(tmp_path / "cube")
    assert scored_cube(scores) is None
    other = create_cube(str(tmp_path / "cube"), era="s12", grid=Grid(GRID.crs, GRID.transform, 8, 8))
    scores.attrs["cube_snapshot"] = other.snapshot
    assert scored_cube(scores) is None


@pytest.mark.parametrize("named", [True, False])
def test_rasters_say_what_their_dates_rest_on(scores, tmp_path, named):
    cube = scored_cube(scores) if named else None
    write_rasters(scores, tmp_path / "set", cube=cube, months=False)
    export_cogs(scores, tmp_path / "maps", which="maps", cube=cube)
    source = "observations" if named else "scores"
    with rasterio.open(tmp_path / "set" / "first_low.tif") as raster:
        assert raster.tags()["dated_by"] == source
        npt.assert_array_equal(raster.read(1), date_maps(scores, cube=cube).first_low)
    with rasterio.open(tmp_path / "maps" / "change_date.tif") as raster:
        assert raster.tags()["estimator"].endswith(f"by {source}")
        npt.assert_array_equal(raster.read(1), date_maps(scores, cube=cube).first)
