"""From items to passes: what is chosen, merged, refused, and how it is to be read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import shapely

from urbandelta.aoi import Aoi
from urbandelta.eras import ERAS
from urbandelta.errors import ConfigError
from urbandelta.sources.archives import ARCHIVES, StreamRequest, archive_named
from urbandelta.sources.item_facts import AssetFacts, ItemFacts
from urbandelta.sources.stac import AssetLayer, Period, select_passes

ERA = ERAS["s12"]
AOI = Aoi(shapely.box(5.3, 50.5, 5.7, 50.7), "city")
PERIOD = Period(aoi=AOI, start=np.datetime64("2020-01-01", "ns"), end=np.datetime64("2021-01-01", "ns"))


def no_opener(href, band):
    raise AssertionError("searching opens no file")


def radar(item_id, time="2020-03-01T05:50:00", *, bands=("VV", "VH"), **more) -> ItemFacts:
    return ItemFacts(
        item_id=item_id,
        time=np.datetime64(time, "ns"),
        **{"platform": "S1A", "relative_orbit": 37, "orbit_state": "descending", **more},
        assets={band: AssetFacts(href=f"https://host/{item_id}/{band}.tif?sig=secret") for band in bands},
    )


def optical(item_id, time="2020-03-01T10:40:00", *, bands, **more) -> ItemFacts:
    return ItemFacts(
        item_id=item_id,
        time=np.datetime64(time, "ns"),
        **{"platform": "S2A", "relative_orbit": 8, "baseline": "05.10", "tile": "31UFS", **more},
        assets={band: AssetFacts(href=f"https://host/{item_id}/{band}.tif") for band in (*bands, "SCL")},
    )


def select(items, stream="s1_dsc", archive="planetary-computer", *, stored=None, **request):
    row = archive_named(archive) if archive in ARCHIVES else archive_named("custom", url=archive)
    wanted = StreamRequest(**request)
    return select_passes(
        items,
        archive=row,
        collection=row.collection_for(ERA.stream(stream), wanted),
        stream=ERA.stream(stream),
        request=wanted,
        period=PERIOD,
        opener=no_opener,
        stored=stored,
    )


def test_directions_orbits_platforms_periods_and_areas_are_kept_apart():
    items = [
        radar("wanted"),
        radar("ascending", "2020-03-02", orbit_state="ascending"),
        radar("other track", "2020-03-03", relative_orbit=139),
        radar("other satellite", "2020-03-04", platform="S1C"),
        radar("too late", "2021-01-01T00:00:00"),
        radar("elsewhere", "2020-03-05", geometry=shapely.box(10, 10, 11, 11)),
    ]
    found = select(items, relative_orbits=(37,), platforms=("S1A",))
    assert [one.item_id for one in found.passes] == ["wanted"]
    assert found.other == 5


def test_an_item_without_direction_or_without_a_polarisation_is_refused():
    items = [radar("no direction", orbit_state=""), radar("one polarisation", "2020-03-02", bands=("VV",))]
    found = select(items)
    assert found.passes == ()
    assert {one.item.item_id: one.reason for one in found.rejected} == {
        "no direction": "does not say its orbit direction (sat:orbit_state)",
        "one polarisation": "has no asset for VH",
    }


def test_slices_of_one_pass_become_one_acquisition_at_the_time_of_the_first():
    items = [radar("second", "2020-03-01T05:50:25"), radar("first"), radar("next pass", "2020-03-13T05:50:00")]
    found = select(items)
    assert [one.item_id for one in found.passes] == ["first + second", "next pass"]
    assert found.passes[0].time == np.datetime64("2020-03-01T05:50:00", "ns")
    assert [part.item_id for part in found.passes[0].scene.parts] == ["first", "second"]


def test_radar_is_read_as_the_table_says():
    one = select([radar("a")]).passes[0]
    assert one.recipe.declared.coefficient == "gamma0"
    assert one.recipe.declared.level == "RTC"
    assert one.recipe.encoding.zero == "nodata"
    assert one.recipe.encoding.nodata == (-32768.0,)
    assert one.bands == ("VV", "VH")
    assert "secret" not in str(one.recipe.as_dict()) + str(one.provenance()) + one.scene.parts[0].layers["VV"].origin


LEVEL_2A = tuple(band for band in ERA.stream("optical").bands if band != "B10")


def test_all_baselines_end_in_one_encoding():
    items = [
        optical("old", "2020-03-01", bands=LEVEL_2A, baseline="02.14"),
        optical("new", "2020-03-11", bands=LEVEL_2A),
        optical("applied", "2020-03-21", bands=LEVEL_2A, offset_applied=True),
    ]
    found = select(items, "optical", "earth-search", collection="sentinel-2-l2a")
    assert {(one.recipe.encoding.scale, one.recipe.encoding.offset) for one in found.passes} == {(1e-4, -0.1)}
    assert [one.offset_present for one in found.passes] == [False, True, False]
    assert [one.recipe.declared.boa_offset_applied for one in found.passes] == [False, False, True]
    offsets = [one.scene.parts[0].layers["B02"].radiometry.offset for one in found.passes]
    assert offsets == [0.0, -0.1, 0.0]
    assert all("baseline" in one.rules[0] for one in found.passes)


def test_a_stream_that_is_there_keeps_its_encoding_and_bands():
    @dataclasses.dataclass
    class Stored:
        bands = ("B02", "B03")
        scale, offset = 1e-4, 0.0

    one = select(
        [optical("a", bands=LEVEL_2A)], "optical", "earth-search", stored=Stored(), collection="sentinel-2-l2a"
    ).passes[0]
    assert one.bands == ("B02", "B03")
    assert (one.recipe.encoding.scale, one.recipe.encoding.offset) == (1e-4, 0.0)


def test_clouds_are_masked_by_class_where_the_archive_has_classes():
    one = select([optical("a", bands=LEVEL_2A)], "optical").passes[0]
    assert [rule.band for rule in one.recipe.encoding.masks] == ["SCL"]
    layer = one.scene.parts[0].layers["SCL"]
    assert isinstance(layer, AssetLayer)
    assert layer.target is None  # classes are no reflectances


def test_cloudy_tiles_can_be_left_out():
    items = [
        optical("clear", bands=LEVEL_2A, cloud=10.0),
        optical("cloudy", "2020-03-11", bands=LEVEL_2A, cloud=90.0),
        optical("unknown", "2020-03-21", bands=LEVEL_2A),
    ]
    found = select(items, "optical", max_cloud=80.0)
    assert [one.item_id for one in found.passes] == ["clear", "unknown"]


def test_a_catalogue_of_ones_own_must_say_what_it_holds():
    with pytest.raises(ConfigError, match=r"level .*coefficient"):
        select([radar("a")], archive="http://localhost", collection="mine")
    one = select([radar("a")], archive="http://localhost", collection="mine", level="GRD", coefficient="gamma0")
    assert one.passes[0].recipe.declared.level == "GRD"


def test_radar_geometry_is_said_to_be_unreadable():
    for archive in ("planetary-computer", "earth-search", "copernicus"):
        row = ARCHIVES[archive].collection_for(ERA.stream("s1_asc"), StreamRequest(collection="sentinel-1-grd"))
        assert "radar geometry" in row.unreadable


def test_every_row_serves_streams_of_the_era_with_its_bands():
    for archive in ARCHIVES.values():
        for row in archive.collections:
            stream = next(stream for stream in ERA.streams if stream.kind == row.kind)
            assert row.serves(stream)
            assert set(row.assets) <= set(stream.bands)
            assert row.level
            assert not any(row.serves(stream) for stream in ERAS["ers12ls5"].streams)


@pytest.mark.parametrize(
    ("request_", "cause"),
    [
        ({"collection": "sentinel-9"}, "has no collection"),
        ({"collection": "sentinel-2-l2a"}, "cannot take"),
        ({"assets": {"HH": "hh"}}, "HH"),
        ({"mask_band": "m"}, "go together"),
    ],
)
def test_refuses_requests_that_make_no_sense(request_, cause):
    with pytest.raises(ConfigError, match=cause):
        select([radar("a")], **request_)
