"""What items of the public archives say, in the words that each archive uses."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from urbandelta.eras import ERAS
from urbandelta.errors import SourceError
from urbandelta.sources.archives import ARCHIVES, StreamRequest, archive_named
from urbandelta.sources.item_facts import (
    ItemFacts,
    distinct_items,
    parse_time,
    platform_name,
    radiometry,
    read_item,
    without_query,
)

ERA = ERAS["s12"]
OPTICAL, ASCENDING = ERA.stream("optical"), ERA.stream("s1_asc")


def collection(archive: str, name: str):
    return next(row for row in ARCHIVES[archive].collections if row.id == name)


def item(item_id: str, properties: dict, assets: dict, **more) -> dict:
    properties = {"datetime": "2024-02-06T13:14:11.918000Z", **properties}
    return {"type": "Feature", "id": item_id, "properties": properties, "assets": assets, "links": [], **more}


EARTH_SEARCH = item(
    "S2B_27VWK_20240206_0_L1C",
    {
        "platform": "sentinel-2b",
        "grid:code": "MGRS-27VWK",
        "s2:product_type": "S2MSI1C",
        "s2:processing_baseline": "05.10",
        "s2:product_uri": "S2B_MSIL1C_20240206T131259_N0510_R081_T27VWK_20240206T133903.SAFE",
        "s2:datastrip_id": "S2B_OPER_MSI_L1C_DS_2BPS_20240206T133903_S20240206T131359_N05.10",
        "eo:cloud_cover": 9.9,
        "updated": "2024-02-06T15:02:12.605Z",
    },
    {
        "blue": {
            "href": "s3://sentinel-s2-l1c/tiles/27/V/WK/2024/2/6/0/B02.jp2",
            "proj:shape": [10980, 10980],
            "proj:transform": [10, 0, 499980, 0, -10, 7000020],
            "raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}],
        },
        "cirrus": {"href": "s3://sentinel-s2-l1c/tiles/27/V/WK/2024/2/6/0/B10.jp2"},
    },
)


def test_reads_an_item_of_earth_search():
    facts = read_item(EARTH_SEARCH, collection("earth-search", "sentinel-2-l1c"), OPTICAL.bands)
    assert facts.platform == "S2B"
    assert facts.relative_orbit == 81  # in the product's name alone
    assert (facts.tile, facts.strip, facts.baseline, facts.level) == ("27VWK", "20240206T131359", "05.10", "L1C")
    assert facts.time == np.datetime64("2024-02-06T13:14:11.918", "ns")
    assert set(facts.assets) == {"B02", "B10"}
    assert facts.assets["B02"].pixel_m == 10
    assert (facts.assets["B02"].scale, facts.assets["B02"].offset) == (0.0001, -0.1)


def test_reads_an_item_of_the_planetary_computer():
    rtc = item(
        "S1A_IW_GRDH_1SDV_20210809T173953_20210809T174018_039156_049F13_rtc",
        {
            "platform": "SENTINEL-1A",
            "datetime": "2021-08-09 17:40:05.653288+00:00",
            "sat:orbit_state": "ascending",
            "sat:relative_orbit": 59,
        },
        {"vv": {"href": "https://account.blob.core.windows.net/c/iw-vv.rtc.tiff"}, "vh": {"href": "https://a/vh.tiff"}},
    )
    facts = read_item(rtc, collection("planetary-computer", "sentinel-1-rtc"), ASCENDING.bands)
    assert (facts.platform, facts.orbit_state, facts.relative_orbit) == ("S1A", "ascending", 59)
    assert facts.missing(("VV", "VH")) == []
    assert facts.baseline == ""


def test_reads_an_item_of_the_copernicus_data_space():
    product = item(
        "S2A_MSIL2A_20250928T050231_N0511_R119_T45TXF_20250928T074723",
        {
            "platform": "sentinel-2a",
            "constellation": "sentinel-2",
            "product:type": "S2MSI2A",
            "grid:code": "MGRS-45TXF",
        },
        {
            "B02_10m": {
                "href": "s3://eodata/Sentinel-2/x/B02_10m.jp2",
                "file:size": 1000,
                "raster:scale": 1e-4,
                "raster:offset": -0.1,
            },
            "B01_60m": {"href": "s3://eodata/Sentinel-2/x/B01_60m.jp2"},
            "SCL_20m": {"href": "s3://eodata/Sentinel-2/x/SCL_20m.jp2"},
        },
    )
    facts = read_item(product, collection("copernicus", "sentinel-2-l2a"), OPTICAL.bands)
    assert (facts.baseline, facts.relative_orbit, facts.level) == ("05.11", 119, "L2A")
    assert set(facts.assets) == {"B01", "B02", "SCL"}
    assert facts.assets["B02"].size == 1000
    assert facts.assets["B02"].offset == -0.1


def test_a_catalogue_of_ones_own_needs_no_list_of_assets():
    custom = archive_named("custom", url="http://localhost/")
    row = custom.collection_for(OPTICAL, StreamRequest(collection="mine", level="L1C"))
    bands = [{"name": "B02"}, {"name": "B03", "raster:scale": 2e-4, "raster:offset": -0.05}]
    stacked = item("a", {}, {"image": {"href": "scenes/a.tif", "bands": bands}, "b04": {"href": "a_b04.tif"}})
    facts = read_item(stacked, row, OPTICAL.bands, href="http://localhost/items/a.json")
    assert facts.assets["B02"].href == "http://localhost/items/scenes/a.tif"
    assert (facts.assets["B03"].band, facts.assets["B03"].scale, facts.assets["B03"].offset) == (2, 2e-4, -0.05)
    assert facts.assets["B04"].href == "http://localhost/items/a_b04.tif"


@pytest.mark.parametrize(
    ("properties", "declared", "scale_and_offset"),
    [
        ({"s2:processing_baseline": "05.10"}, -0.1, (1e-4, -0.1)),
        ({"s2:processing_baseline": "05.10"}, None, (1e-4, -0.1)),  # the Planetary Computer declares nothing
        ({"s2:processing_baseline": "02.14"}, None, (1e-4, 0.0)),
        ({"s2:processing_baseline": "02.14"}, -0.1, (1e-4, 0.0)),  # a template's offset, which no number carries
        ({"s2:processing_baseline": "05.10", "earthsearch:boa_offset_applied": True}, -0.1, (1e-4, 0.0)),
        ({"s2:processing_baseline": "05.10", "earthsearch:boa_offset_applied": False}, -0.1, (1e-4, -0.1)),
        ({"sentinel:processing_baseline": "04.00", "sentinel:boa_offset_applied": "true"}, -0.1, (1e-4, 0.0)),
        ({"s2:processing_baseline": "05.10", "datetime": "2018-05-01T00:00:00Z"}, None, (1e-4, -0.1)),  # reprocessed
        ({"s2:processing_baseline": "05.10"}, 0.0, (1e-4, 0.0)),
    ],
)
def test_offset_by_metadata_and_never_by_date(properties, declared, scale_and_offset):
    asset = {"href": "https://a/B02.tif"}
    if declared is not None:
        asset["raster:bands"] = [{"scale": 1e-4, "offset": declared}]
    row = collection("earth-search", "sentinel-2-l2a")
    facts = read_item(item("x", properties, {"blue": asset}), row, ("B02",))
    rule = radiometry(facts, facts.assets["B02"], row)
    assert (rule.scale, rule.offset) == scale_and_offset


def test_the_newest_processing_of_a_tile_is_kept():
    def of(item_id, baseline, second="11", tile="31UFS", strip="20240206T131359"):
        moment = np.datetime64(f"2024-02-06T13:14:{second}", "ns")
        return ItemFacts(item_id=item_id, time=moment, platform="S2B", baseline=baseline, tile=tile, strip=strip)

    old, new, neighbour, second_strip = (
        of("old", "02.14"),
        of("new", "05.00", "12"),
        of("neighbour", "02.14", tile="31UFR"),
        of("second strip", "02.14", strip="20240206T131500"),
    )
    kept, dropped = distinct_items([new, neighbour, old, second_strip])
    assert [one.item_id for one in dropped] == ["old"]
    assert {one.item_id for one in kept} == {"new", "neighbour", "second strip"}


def test_neighbouring_radar_slices_are_no_duplicates():
    slices = [
        ItemFacts(item_id=name, time=np.datetime64(f"2024-02-06T05:00:{second}", "ns"), platform="S1A")
        for name, second in (("a", "00"), ("b", "25"), ("c", "50"))
    ]
    assert distinct_items(slices) == (slices, [])


def test_bursts_that_follow_within_seconds_are_no_duplicates():
    bursts = [
        ItemFacts(
            item_id=name,
            time=np.datetime64(f"2024-02-06T05:00:0{second}", "ns"),
            platform="S1A",
            geometry=shapely.box(0, north, 1, north + 0.3),
        )
        for name, second, north in (("a", 0, 0.0), ("b", 2, 0.2), ("a again", 0, 0.01))
    ]
    kept, dropped = distinct_items(bursts)
    assert [one.item_id for one in kept] == ["a again", "b"]
    assert [one.item_id for one in dropped] == ["a"]


def test_spellings():
    names = ("SENTINEL-1A", "sentinel-1c", "Sentinel-2B", "S2A", "landsat-5")
    assert [platform_name(name) for name in names] == ["S1A", "S1C", "S2B", "S2A", "landsat-5"]
    assert without_query("https://user:secret@host/a/b.tif?sig=secret#x") == "https://host/a/b.tif"
    assert parse_time("2021-08-09T19:39:53+02:00") == np.datetime64("2021-08-09T17:39:53", "ns")


@pytest.mark.parametrize(
    "wrong", [{"id": "a"}, {"id": "", "properties": {}}, {"id": "a", "properties": {"datetime": None}}]
)
def test_refuses_what_is_no_item(wrong):
    with pytest.raises(SourceError):
        read_item(wrong, collection("earth-search", "sentinel-2-l2a"), OPTICAL.bands)
