"""The set of rasters, and its description as STAC."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from rio_cogeo.cogeo import cog_validate

from urbandelta.errors import ProductError
from urbandelta.events import AlertStatus, EventOptions, find_events
from urbandelta.grid import Grid
from urbandelta.rasters import STATUS_COLOURS, STATUS_MEANINGS, status_map, write_rasters
from urbandelta.stac_items import write_stac

GRID = Grid("EPSG:32631", (10.0, 0.0, 600000.0, 0.0, -10.0, 5600000.0), 40, 48)


def scores_of(*, windows: int = 40, spread: bool = False) -> xr.Dataset:
    """Half-year windows every five days; a building site in the middle, noise elsewhere, one column never seen."""
    rng = np.random.default_rng(3)
    start = np.datetime64("2019-01-01", "ns") + np.arange(windows) * np.timedelta64(5, "D")
    end = start + np.timedelta64(180, "D")
    score = rng.uniform(0, 0.2, (windows, *GRID.shape)).astype(np.float32)
    score[8:30, 10:20, 12:24] = 0.9
    score[:, :, 0] = np.nan
    variables = {"score": (("window", "y", "x"), score)}
    if spread:
        variables["spread"] = (("window", "y", "x"), np.full_like(score, 0.05))
    return xr.Dataset(
        variables,
        coords={
            "window_start": ("window", start),
            "window_end": ("window", end),
            "time": ("window", start + (end - start) // 2),
            "n_obs": ("window", np.full(windows, 60, np.int32)),
        },
        attrs={"grid": GRID.to_json(), "era": "s12", "weights_name": "w", "cube_url": "city", "cube_snapshot": "A"},
    )


def test_the_set_is_whole_valid_and_says_what_it_is(tmp_path: Path) -> None:
    scores = scores_of(spread=True)
    done = write_rasters(scores, tmp_path)
    names = {path.stem for path in done.written}
    summaries = {"score", "spread", "nobs", "count", "first_date", "first_low", "first_high", "last_date"}
    assert summaries | {"last_low", "last_high", "duration", "status"} <= names
    assert sum(name.startswith("score_") for name in names) == 7
    for path in done.written:
        valid, errors, warnings = cog_validate(path, strict=True)
        assert valid, (path, errors, warnings)
    with rasterio.open(tmp_path / "first_date.tif") as first, rasterio.open(tmp_path / "duration.tif") as duration:
        assert (first.nodata, first.dtypes[0]) == (-1, "int32")
        assert first.read(1)[15, 18] > 17900
        assert first.read(1)[0, 5] == -1
        assert duration.read(1)[15, 18] >= 0
    with rasterio.open(tmp_path / "nobs.tif") as observations:
        assert set(np.unique(observations.read(1))) == {-1, 60}


def test_status_shows_events_and_where_nothing_is_known(tmp_path: Path) -> None:
    scores = scores_of()
    write_rasters(scores, tmp_path, months=False)
    with rasterio.open(tmp_path / "status.tif") as source:
        status, colours = source.read(1), source.colormap(1)
    (event,) = find_events(scores)
    assert status[15, 18] == event.status
    assert (status[:, 0] == AlertStatus.NODATA).all()
    assert (status == event.status).sum() == 120
    assert colours[int(AlertStatus.CONFIRMED_HIGH)][3] == 255


LINEAR_RGB = {
    "all cones": np.eye(3),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "tritanopia": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}
"""What is left of linear RGB (Machado et al. 2009, doi:10.1109/TVCG.2009.113, severity 1)."""


@pytest.mark.parametrize("eyes", LINEAR_RGB)
def test_every_status_is_told_apart_by_all_eyes(eyes: str) -> None:
    """CIE 1976 colour difference of any two; 2.3 is just noticeable side by side, a map needs more."""
    shown = np.array([STATUS_COLOURS[value][:3] for value in STATUS_MEANINGS if value != AlertStatus.NONE]) / 255
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ LINEAR_RGB[eyes].T, 0, 1)
    xyz = seen @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    xyz = xyz / np.array([0.9505, 1.0, 1.089])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert apart[~np.eye(len(lab), dtype=bool)].min() > 10
    # In the order of their numbers they darken, so the order shows in grey too.
    assert (np.diff(lab[:, 0]) < -5).all()


def test_of_overlapping_events_the_latest_is_shown() -> None:
    (event,) = find_events(scores_of())
    later = replace(event, first_date=event.first_date + 400, status=AlertStatus.PROVISIONAL_LOW)
    for order in ([event, later], [later, event]):
        assert status_map(order, GRID)[15, 18] == AlertStatus.PROVISIONAL_LOW


def test_a_second_time_nothing_is_written_and_a_new_snapshot_alone_changes_nothing(tmp_path: Path) -> None:
    scores = scores_of()
    write_rasters(scores, tmp_path)
    assert not write_rasters(scores, tmp_path).written
    assert not write_rasters(scores.assign_attrs(cube_snapshot="B"), tmp_path).written
    changed = scores.copy(deep=True)
    changed["score"][-1] = 0.95
    written = {path.stem for path in write_rasters(changed, tmp_path).written}
    assert "score" in written
    assert "score_2019-04" not in written


def test_other_thresholds_replace_what_depends_on_them(tmp_path: Path) -> None:
    scores = scores_of()
    write_rasters(scores, tmp_path)
    written = {path.stem for path in write_rasters(scores, tmp_path, options=EventOptions(threshold=0.95)).written}
    assert {"count", "first_date", "status"} <= written
    assert "score" not in written


def test_the_catalogue_holds_its_items_and_its_checksums_are_those_of_the_files(tmp_path: Path) -> None:
    scores = scores_of()
    write_rasters(scores, tmp_path / "rasters")
    write_stac(scores, tmp_path / "rasters", tmp_path / "stac", name="city", platforms=["S1A", "S2B"])
    collection = pystac.Collection.from_file(str(tmp_path / "stac" / "collection.json"))
    items = list(collection.get_items())
    assert len(items) == 8
    # The render extension is valid only beside the assets that it shows.
    shown = collection.to_dict()
    assert set(shown["renders"]["score"]["assets"]) <= set(shown["item_assets"])
    overall = next(item for item in items if item.id == "city-overall")
    assert any(link.rel == "derived_from" for link in overall.links)
    for item in items:
        for asset in item.get_assets().values():
            path = Path(asset.get_absolute_href() or "")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert asset.extra_fields["file:checksum"] == f"1220{digest}"
    classes = overall.assets["status"].extra_fields["classification:classes"]
    assert [each["value"] for each in classes] == list(range(9))


def test_the_catalogue_is_left_alone_when_nothing_changed_and_forgets_what_is_gone(tmp_path: Path) -> None:
    scores = scores_of()
    write_rasters(scores, tmp_path / "rasters")
    assert write_stac(scores, tmp_path / "rasters", tmp_path / "stac", name="city").written
    assert not write_stac(scores, tmp_path / "rasters", tmp_path / "stac", name="city").written
    (tmp_path / "rasters" / "score_2019-04.tif").unlink()
    write_stac(scores, tmp_path / "rasters", tmp_path / "stac", name="city")
    assert not (tmp_path / "stac" / "items" / "city-2019-04.json").exists()
    links = json.loads((tmp_path / "stac" / "collection.json").read_text())["links"]
    assert not any("2019-04" in link["href"] for link in links)


def test_a_catalogue_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rasters").mkdir()
    with pytest.raises(ProductError, match="holds no rasters"):
        write_stac(scores_of(), tmp_path / "rasters", tmp_path / "stac", name="city")


def test_scores_in_memory_stay_as_they_are(tmp_path: Path) -> None:
    scores = scores_of()
    before = scores["score"].values.copy()
    write_rasters(scores, tmp_path)
    np.testing.assert_array_equal(scores["score"].values, before)
