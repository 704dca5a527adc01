from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.cube_view import CubeView
from urbandelta.degrade import Rule, Series, degrade, parse_rule, standard_rules
from urbandelta.eras import ERAS
from urbandelta.errors import ConfigError, StoreError
from urbandelta.observation_loss import cube_series

START = np.datetime64("2020-01-01", "ns")


def series(days: int = 400, every: int = 5) -> list[Series]:
    times = START + np.arange(0, days, every) * np.timedelta64(1, "D")
    platforms = {"sar": ("S1A", "S1B"), "optical": ("S2A", "S2B")}
    return [
        Series(stream, times, tuple(platforms[stream.kind][k % 2] for k in range(len(times))))
        for stream in ERAS["s12"].streams
    ]


def names(left) -> set[str]:
    return set(left.kept)


def test_full_loses_nothing():
    left = degrade(series(), Rule("full"))
    assert left.acquisitions == 3 * 80
    assert left.substitutions == ()


def test_a_share_is_dropped_at_random_and_the_seed_decides():
    one, again, other = (degrade(series(), parse_rule("drop:0.25"), seed=seed) for seed in (1, 1, 2))
    assert one.acquisitions == pytest.approx(0.75 * 240, abs=25)
    for name in names(one):
        npt.assert_array_equal(one.kept[name], again.kept[name])
    assert any(not np.array_equal(one.kept[name], other.kept[name]) for name in names(one))


def test_a_lost_direction_is_replaced_by_the_other_one():
    left = degrade(series(), parse_rule("direction:ascending"))
    assert names(left) == {"s1_asc", "optical"}
    assert left.substitutions == ("s1_dsc=s1_asc",)


@pytest.mark.parametrize(("rule", "frozen"), [("sar-only", ["optical"]), ("optical-only", ["s1_asc", "s1_dsc"])])
def test_a_lost_sensor_stays_frozen_at_its_first_days(rule, frozen):
    left = degrade(series(), parse_rule(rule))
    assert left.substitutions == ()
    for name, positions in left.kept.items():
        npt.assert_array_equal(positions, np.arange(12 if name in frozen else 80))


def test_a_satellite_is_lost_in_all_its_streams():
    left = degrade(series(), parse_rule("platform:S1B"))
    npt.assert_array_equal(left.kept["s1_dsc"], np.arange(0, 80, 2))
    assert len(left.kept["optical"]) == 80


@pytest.mark.parametrize("seed", range(5))
def test_a_gap_is_one_run_of_optical_acquisitions(seed):
    left = degrade(series(), parse_rule("gap:90"), seed=seed)
    lost = np.setdiff1d(np.arange(80), left.kept["optical"])
    assert len(lost) in (18, 19)
    assert (np.diff(lost) == 1).all()
    assert len(left.kept["s1_asc"]) == 80


def test_the_standard_rules_fit_the_cube():
    texts = [rule.text for rule in standard_rules(series(), shares=(0.5,))]
    assert texts == [
        "full", "drop:0.5", "direction:ascending", "direction:descending", "sar-only", "optical-only",
        "platform:S1A", "platform:S1B", "platform:S2A", "platform:S2B", "gap:60", "gap:120",
    ]  # fmt: skip
    for text in texts:
        assert degrade(series(), parse_rule(text)).acquisitions > 0
    assert [rule.text for rule in standard_rules(series()[:1], shares=())] == ["full", "platform:S1A", "platform:S1B"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("half", "unknown rule"),
        ("drop", "write it as drop:0.5"),
        ("full:1", "write it as full"),
        ("drop:2", "0 to 1"),
        ("gap:long", "number"),
        ("direction:up", "ascending or descending"),
    ],
)
def test_rules_that_mean_nothing_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_rule(text)


def test_rules_that_do_not_fit_the_cube_are_refused():
    with pytest.raises(ConfigError, match="satellites: S1A, S1B, S2A, S2B"):
        degrade(series(), parse_rule("platform:S1C"))
    with pytest.raises(ConfigError, match="no descending"):
        degrade(series()[:1], parse_rule("direction:descending"))
    with pytest.raises(ConfigError, match="nothing is left"):
        degrade(series(), parse_rule("drop:1"))


def test_a_view_reads_what_it_shows(make_cube):
    cube = make_cube()
    kept = np.array([0, 1, 4, 7, 8, 9])
    view = CubeView(cube, {"s1_asc": kept, "optical": np.arange(3)})
    assert view.streams == ("s1_asc", "optical")
    assert not len(view.times("s1_dsc"))
    npt.assert_array_equal(view.times("s1_asc"), cube.times("s1_asc")[kept])
    npt.assert_array_equal(view.valid_fraction("s1_asc"), cube.valid_fraction("s1_asc")[kept])
    block = slice(2, 9), slice(3, 11)
    values, mask = cube.read("s1_asc", slice(None), *block)
    for part in (slice(None), slice(1, 4), slice(2, 3), slice(5, 20), slice(3, 3)):
        seen, seen_mask = view.read("s1_asc", part, *block)
        npt.assert_array_equal(seen, values[kept[part]])
        npt.assert_array_equal(seen_mask, mask[kept[part]])
    assert view.snapshot != CubeView(cube, {"s1_asc": kept}).snapshot != cube.snapshot
    assert view.acquisitions("s1_asc").sizes["time"] == view.stream("s1_asc").sizes["time"] == 6
    with pytest.raises(StoreError, match="opened for reading"):
        view.append("s1_asc", [])
    with pytest.raises(StoreError, match="view"):
        view.compact()
    with pytest.raises(StoreError, match="without a step"):
        view.read("s1_asc", slice(0, 4, 2), *block)


def test_series_of_a_cube_are_its_streams(make_cube):
    cube = make_cube()
    assert [item.stream.name for item in cube_series(cube)] == ["s1_asc", "s1_dsc", "optical"]
