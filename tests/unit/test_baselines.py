from __future__ import annotations

import importlib.util
from unittest import mock

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta import baselines
from urbandelta.baselines import baseline_maps
from urbandelta.errors import ConfigError
from urbandelta.metrics import roc_auc
from urbandelta.simulate import NO_CHANGE, simulate
from urbandelta.store import create_cube


@pytest.fixture(scope="module")
def scene_cube(tmp_path_factory):
    scene = simulate("s12", size=32, months=12, seed=5)
    cube = create_cube(str(tmp_path_factory.mktemp("baselines") / "cube"), era="s12", grid=scene.grid)
    for name in scene.era.stream_names:
        cube.append(name, scene.acquisitions(name))
    times = np.concatenate([cube.times(name) for name in cube.streams])
    return scene, cube, times.min(), times.max()


def test_every_baseline_knows_something_of_what_was_built(scene_cube):
    scene, cube, start, end = scene_cube
    seen = []
    found = baseline_maps(cube, start, end, progress=lambda done, total, _: seen.append((done, total)))
    assert set(found.maps) == {"change_vector", "omnibus", "index_difference"}
    assert not found.skipped
    assert "seasons may differ" in found.notes[0]
    changed = scene.truth != NO_CHANGE
    for name, values in found.maps.items():
        known = np.isfinite(values)
        assert known.mean() > 0.9
        assert roc_auc(values[known], changed[known]) > 0.5, name
    assert seen[-1] == (2000, 2000)


def test_blocks_do_not_change_the_maps(scene_cube):
    _, cube, start, end = scene_cube
    whole = baseline_maps(cube, start, end).maps
    with mock.patch.object(baselines, "BLOCK_PX", 12):
        parts = baseline_maps(cube, start, end).maps
    for name, values in whole.items():
        npt.assert_allclose(parts[name], values, rtol=1e-4, atol=1e-5)


def test_composites_are_medians_of_what_is_valid(make_cube):
    cube = make_cube(streams=("optical",))
    values, mask = cube.read("optical", slice(0, 9), slice(0, 8), slice(0, 8))
    values[mask != 0] = np.nan
    expected = np.nanmedian(values, axis=0)
    composite = baselines._composite(cube, "optical", slice(0, 9), (slice(0, 8), slice(0, 8)))
    npt.assert_allclose(composite, expected, rtol=1e-6)


def test_what_a_cube_lacks_is_told(make_cube):
    start, end = np.datetime64("2018-01-01"), np.datetime64("2018-08-01")
    radar = baseline_maps(make_cube(streams=("s1_asc",)), start, end)
    assert set(radar.maps) == {"omnibus"}
    assert "no optical" in radar.skipped["change_vector"]
    optical = baseline_maps(make_cube(streams=("optical",)), start, end)
    assert set(optical.maps) == {"change_vector", "index_difference"}
    assert "no radar" in optical.skipped["omnibus"]
    early = baseline_maps(make_cube(streams=("optical",)), np.datetime64("2010-01-01"), np.datetime64("2012-01-01"))
    assert not early.maps


def test_break_detectors_are_an_extra():
    with mock.patch.object(baselines, "find_spec", return_value=None), pytest.raises(ConfigError, match="pip install"):
        baselines._require_pyxccd("cold")
    with pytest.raises(ConfigError, match="unknown break detector"):
        baselines._require_pyxccd("bfast")


@pytest.mark.skipif(importlib.util.find_spec("pyxccd") is None, reason="needs pyxccd")
@pytest.mark.parametrize("method", ["sccd", "cold"])
def test_a_step_is_a_break_and_a_season_is_none(method):
    rng = np.random.default_rng(0)
    days = np.sort(rng.choice(1000, 160, replace=False)) + 737_000
    season = 500 + 80 * np.sin(2 * np.pi * days / 365.25)[:, None] + rng.normal(0, 15, (160, 6))
    step = season + 900 * (days > 737_600)[:, None]
    strongest = baselines._strongest_break(method)
    valid = np.ones(160, bool)
    assert strongest(days, step.round().astype(np.int64), valid) > 10
    assert strongest(days, season.round().astype(np.int64), valid) == 0
    assert strongest(days, step.round().astype(np.int64), np.zeros(160, bool)) == 0
