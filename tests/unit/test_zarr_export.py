from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from event_scene import GRID, scores_of

from urbandelta.dating import NO_DATE, date_maps
from urbandelta.errors import ProductError
from urbandelta.events import EventOptions
from urbandelta.products import score_maps
from urbandelta.zarr_export import write_zarr

TWO = [(slice(2, 8), slice(2, 8), 200), (slice(14, 20), slice(10, 18), 300)]


@pytest.fixture
def scores():
    made = scores_of(TWO, provisional=2, spread=0.05)
    made.attrs["snapshot"] = "ABC"
    x0, y0 = GRID.transform[2] + 5, GRID.transform[5] - 5
    return made.assign_coords(
        x=("x", x0 + 10.0 * np.arange(GRID.width)), y=("y", y0 - 10.0 * np.arange(GRID.height)), spatial_ref=0
    )


def test_xarray_alone_reads_scores_maps_and_dates(scores, tmp_path):
    done = write_zarr(scores, tmp_path / "s.zarr")
    assert done.written == (tmp_path / "s.zarr",)
    with xr.open_zarr(tmp_path / "s.zarr") as read:
        np.testing.assert_array_equal(read["score"], scores["score"])
        np.testing.assert_array_equal(read["spread"], scores["spread"])
        for name in ("time", "window_start", "window_end", "n_obs", "provisional", "x", "y"):
            np.testing.assert_array_equal(read[name], scores[name])
            assert name in read.coords
        maps, dates = score_maps(scores), date_maps(scores)
        np.testing.assert_array_equal(read["score_max"], maps.maximum)
        np.testing.assert_array_equal(read["count"].fillna(NO_DATE), maps.count)
        known = dates.first != NO_DATE
        assert read["first_date"].dtype.kind == "M"
        np.testing.assert_array_equal(read["first_date"].isnull(), ~known)
        days = read["first_date"].values[known].astype("datetime64[D]").astype(int)
        np.testing.assert_array_equal(days, dates.first[known])
        assert read["duration"].dtype.kind == "f"
        assert set(np.unique(read["status"].values[known])) <= set(range(1, 9))
        assert read.attrs["Conventions"].startswith("CF-")
        assert "spatial_ref" in (read["score"].attrs | read["score"].encoding)["grid_mapping"]


def test_it_opens_without_this_program_and_without_a_warning(scores, tmp_path):
    write_zarr(scores, tmp_path / "s.zarr")
    code = (
        "import sys, xarray; sys.modules['urbandelta'] = None; d = xarray.open_zarr(sys.argv[1]);"
        "print(dict(d.sizes), float(d.score.max()))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "s.zarr")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'window': 40" in done.stdout


def test_again_writes_nothing_and_other_options_ask_to_overwrite(scores, tmp_path):
    path = tmp_path / "s.zarr"
    write_zarr(scores, path)
    assert write_zarr(scores, path).kept == (path,)
    other = EventOptions(threshold=0.7)
    with pytest.raises(ProductError, match="--overwrite"):
        write_zarr(scores, path, options=other)
    assert write_zarr(scores, path, options=other, overwrite=True).written == (path,)
    with xr.open_zarr(path) as read:
        assert read["count"].attrs["threshold"] == 0.7
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_what_is_not_an_export_is_never_replaced(scores, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ProductError, match="something else"):
        write_zarr(scores, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    with pytest.raises(ProductError):
        write_zarr(scores, tmp_path / "mine" / "thesis.txt" / "s.zarr")
