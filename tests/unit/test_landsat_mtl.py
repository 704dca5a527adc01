import json

import numpy as np
import pytest
from landsat_scene import BEFORE_2012, ETM, OLI, as_json, as_text, groups

from urbandelta.errors import MetadataError
from urbandelta.landsat_mtl import MOST_BYTES, Line, parse_mtl, read_mtl


def parse(text):
    return parse_mtl(text, where="x_MTL.txt")


def test_collection_1_text_is_read_whole():
    mtl = parse(as_text(groups()))
    assert (mtl.spacecraft, mtl.sensor, mtl.collection, mtl.path) == (5, "TM", 1, 198)
    assert mtl.time == np.datetime64("1995-06-12T09:53:14.799482800")
    assert (mtl.sun_elevation, mtl.sun_azimuth, mtl.earth_sun_distance) == (30.0, 138.5, 1.0152)
    assert list(mtl.bands) == ["1", "2", "3", "4", "5", "6", "7"]
    assert mtl.bands["1"].reflectance == Line(0.002, -0.01)
    assert mtl.bands["6"].radiance == Line(0.05, 1.0)
    assert (mtl.bands["6"].reflectance, mtl.bands["6"].k1, mtl.bands["6"].k2) == (None, 607.76, 1260.56)
    assert mtl.quality_file.endswith("_BQA.TIF")


@pytest.mark.parametrize(("spacecraft", "bands"), [(5, ("1", "6")), (7, ETM), (8, OLI)])
def test_all_layouts_say_the_same(spacecraft, bands):
    second = groups(spacecraft=spacecraft, collection=2, bands=bands)
    text = parse(as_text(second, root="LANDSAT_METADATA_FILE"))
    assert parse(as_json(second)) == text
    assert parse(as_text(second, quote=False)) == text
    assert parse(as_text(second).replace("\n", "\r\n") + "\0" * 5000) == text
    assert parse_mtl(b"\xef\xbb\xbf" + as_text(second).encode(), where="x_MTL.txt") == text
    assert parse(as_text(groups(spacecraft=spacecraft, bands=bands))).bands == text.bands
    assert text.collection == 2
    assert text.solar_zenith_file.endswith("_SZA.TIF")
    assert list(text.bands) == list(bands)


def test_names_of_before_2012_are_understood():
    mtl = parse(BEFORE_2012)
    assert (mtl.spacecraft, mtl.sensor, mtl.collection, mtl.row) == (7, "ETM", 0, 38)
    assert list(mtl.bands) == ["1", "6_VCID_1", "6_VCID_2"]
    assert mtl.bands["6_VCID_2"].file == "L72119038_03820000317_B62.TIF"
    first = mtl.bands["1"]
    assert (first.radiance, first.reflectance) == (None, None)
    assert first.radiance_range.mult == pytest.approx((191.6 + 6.2) / 254)
    assert first.radiance_range.mult * 1 + first.radiance_range.add == pytest.approx(-6.2)
    assert mtl.earth_sun_distance is None
    assert mtl.scene_id == "x"


def without(key):
    return "\n".join(line for line in as_text(groups()).splitlines() if line.split("=")[0].strip() != key)


GOOD = as_text(groups())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\0\0\0", "is empty"),
        ("GROUP = L1_METADATA_FILE\n  \0\0 x", "not a text file"),
        ("hello", "expected KEY = VALUE"),
        ("A = 1", "stands outside any group"),
        (GOOD[: len(GOOD) // 2].rsplit("\n", 1)[0], "cut short"),
        (GOOD.replace("END_GROUP = IMAGE_ATTRIBUTES\n", ""), "closes no open group"),
        ("GROUP = A\n" * 20, "nested"),
        ("{", "is not JSON"),
        ("{" * 100_000, "is not JSON"),
        (json.dumps({"a": [1, 2]}), "states no SPACECRAFT_ID"),
        (without("SPACECRAFT_ID"), "states no SPACECRAFT_ID"),
        (without("SUN_ELEVATION"), "states no SUN_ELEVATION"),
        (without("DATE_ACQUIRED"), "states no DATE_ACQUIRED"),
        (without("RADIANCE_ADD_BAND_3"), "make no line"),
        (GOOD.replace("LANDSAT_5", "SPOT_5"), "is not Landsat"),
        (GOOD.replace("LANDSAT_5", "LANDSAT_6"), "is not Landsat"),
        (GOOD.replace('"TM"', '"MSS"'), "is not TM, ETM, OLI or TIRS"),
        (GOOD.replace('"L1TP"', '"L2SP"'), "needs Level-1"),
        (GOOD.replace("= 30.0", "= 300.0"), "is not -90..90"),
        (GOOD.replace("= 30.0", "= thirty"), "is not a number"),
        (GOOD.replace("= 1.0152", "= 152.0"), "is not about 1"),
        (GOOD.replace("1995-06-12", "1995-13-12"), "is not a date"),
        (GOOD.replace("09:53:14", "9h53"), "is not a date"),
        (GOOD.replace("5.0E-02", "-5.0E-02"), "make no line"),
        (GOOD.replace("_B1.TIF", "/../../etc/passwd"), "not the plain name"),
        (GOOD.replace('NUMBER = 01', 'NUMBER = one'), "is not a number"),
        ("A" * (MOST_BYTES + 1), "no Landsat metadata file"),
    ],
)  # fmt: skip
def test_malformed_files_are_refused_with_their_name_and_the_cause(text, message):
    with pytest.raises(MetadataError, match=message) as caught:
        parse(text)
    assert str(caught.value).startswith("x_MTL.txt")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(MetadataError, match="cannot be read"):
        read_mtl(tmp_path / "none_MTL.txt")
    (tmp_path / "b.tif").write_bytes(b"II*\0\xff\xfe")
    with pytest.raises(MetadataError, match="not a text file"):
        read_mtl(tmp_path / "b.tif")
