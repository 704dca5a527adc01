import numpy as np
import pytest

from urbandelta.errors import ConfigError, SourceError
from urbandelta.sources.pattern import compile_pattern, parse_time


def test_fields_of_a_real_name():
    pattern = compile_pattern("*_{date:%Y%m%dT%H%M%SZ}_{*}_{platform}_30_v1.0_{band}.tif")
    match = pattern.match("T137/OPERA_L2_RTC-S1_T137-292319-IW2_20211119T015858Z_20250830T120333Z_S1A_30_v1.0_VH.tif")
    assert match is not None
    assert match.fields == {"platform": "S1A", "band": "VH"}
    assert match.time == np.datetime64("2021-11-19T01:58:58", "ns")


def test_literal_text_is_literal():
    pattern = compile_pattern("a.b+c(1)_{band}.tif")
    assert pattern.match("a.b+c(1)_B02.tif") is not None
    assert pattern.match("aXb+c(1)_B02.tif") is None
    assert pattern.match("a.b+c(1)_B02.tiff") is None


def test_a_star_stays_within_one_name_and_a_field_within_one_word():
    assert compile_pattern("x/*.tif").match("x/y/z.tif") is None
    match = compile_pattern("*_{band}.tif").match("T49QCD_20161209T031122_B01.tif")
    assert match is not None
    assert match.fields == {"band": "B01"}


def test_with_a_slash_the_whole_path_is_matched():
    pattern = compile_pattern("imgs_{scene}/*_{band}.tif")
    assert pattern.match("imgs_2/T_B8A.tif").fields == {"scene": "2", "band": "B8A"}
    assert pattern.match("T_B8A.tif") is None


def test_a_field_may_list_its_values():
    pattern = compile_pattern("{*}{band:B8|B8A|sur_refl}.tif")
    assert pattern.match("x_B8A.tif").fields == {"band": "B8A"}
    assert pattern.match("x_sur_refl.tif").fields == {"band": "sur_refl"}
    assert pattern.match("x_B9.tif") is None


@pytest.mark.parametrize(
    ("date", "expected"),
    [("20180309T120000+0200", "2018-03-09T10:00:00"), ("20180309T120000Z", "2018-03-09T12:00:00")],
)
def test_a_zone_in_the_date_is_converted_to_utc(date, expected):
    match = compile_pattern("{date:%Y%m%dT%H%M%S%z}.tif").match(f"{date}.tif")
    assert match.time == np.datetime64(expected, "ns")


def test_digits_that_are_no_date_are_an_error():
    with pytest.raises(SourceError, match="20181399"):
        compile_pattern("{date:%Y%m%d}.tif").match("20181399.tif")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{foo}.tif", "unknown field"),
        ("{band}_{band}.tif", "twice"),
        ("{band.tif", "unmatched"),
        ("band}.tif", "unmatched"),
        ("{date}.tif", "format"),
        ("{date:%Y%Q}.tif", "directive %Q"),
        ("{}.tif", "unknown field"),
    ],
)
def test_malformed_patterns_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        compile_pattern(text)


def test_times_as_people_write_them():
    assert parse_time("2018-03-09T10:30:00Z", where="x") == np.datetime64("2018-03-09T10:30:00", "ns")
    assert parse_time("2018-03-09T10:30:00+02:00", where="x") == np.datetime64("2018-03-09T08:30:00", "ns")
    assert parse_time(" 20180309 ", where="x") == np.datetime64("2018-03-09", "ns")


@pytest.mark.parametrize(("text", "message"), [("2018-03-09T10:30", "no time zone"), ("soon", "not a date")])
def test_unclear_times_are_refused(text, message):
    with pytest.raises(SourceError, match=message):
        parse_time(text, where="dates.txt:3")
