import dataclasses
import json
from itertools import islice

import numpy as np
import numpy.testing as npt
import pytest
import rasterio
import typer
from typer.testing import CliRunner

from urbandelta.cli.simulating import simulate_command
from urbandelta.errors import ConfigError, StoreError
from urbandelta.simulate import MASK_BAND, NO_CHANGE, LandCover, import_pattern, simulate, write_scenes, write_truth
from urbandelta.simulate.noise import block_mean, generator, shifted, smooth_noise, speckle
from urbandelta.simulate.surfaces import REFLECTANCE, Surface
from urbandelta.simulate.weather import Sky, draw_sky, seen_as_cloud
from urbandelta.sources.pattern import compile_pattern
from urbandelta.store import open_cube
from urbandelta.types import MaskReason

DAY = np.timedelta64(1, "D")


@pytest.fixture(scope="module")
def scene():
    return simulate("s12", size=64, months=24, seed=3)


def test_same_seed_same_scene_and_another_seed_another(scene):
    again, other = simulate("s12", size=64, months=24, seed=3), simulate("s12", size=64, months=24, seed=4)
    npt.assert_array_equal(again.truth, scene.truth)
    npt.assert_array_equal(again.land_cover, scene.land_cover)
    assert (other.land_cover != scene.land_cover).any()
    for stream in scene.era.stream_names:
        ours, theirs = next(scene.acquisitions(stream)), next(again.acquisitions(stream))
        npt.assert_array_equal(ours.values, theirs.values)
        npt.assert_array_equal(ours.mask, theirs.mask)
        assert ours.time == theirs.time
    assert (next(other.acquisitions("s1_asc")).values != next(scene.acquisitions("s1_asc")).values).any()


def test_an_acquisition_does_not_depend_on_those_before_it(scene):
    first, second = islice(scene.acquisitions("optical"), 2)
    shorter = simulate("s12", size=64, months=24, seed=3)
    npt.assert_array_equal(list(islice(shorter.acquisitions("optical"), 2))[1].values, second.values)
    assert (first.values != second.values).any()


@pytest.mark.parametrize(("era", "dtype"), [("s12", "uint16"), ("ers12ls5", "uint8")])
def test_acquisitions_carry_what_the_era_expects(era, dtype):
    scene = simulate(era, size=48, months=3, seed=1)
    for stream in scene.era.streams:
        acquisition = next(scene.acquisitions(stream.name))
        assert acquisition.bands == stream.bands
        assert acquisition.values.shape == (48, 48, len(stream.bands))
        assert acquisition.mask.shape == (48, 48)
        assert acquisition.mask.dtype == np.uint8
        assert acquisition.orbit_state == stream.orbit_state
        assert acquisition.processing_level == stream.processing_level
        assert acquisition.backscatter_coefficient == stream.backscatter_coefficient
        assert acquisition.values.dtype == ("float32" if stream.kind == "sar" else dtype)
        assert (acquisition.values > 0).all()  # 0 means "not seen" to the published rule
    assert scene.grid.pixel_size == (scene.era.pixel_m, scene.era.pixel_m) or scene.grid.pixel_size == scene.era.pixel_m


def test_ers_grid_is_in_the_crs_of_the_era():
    assert simulate("ers12ls5", size=32, months=1).grid.crs == "EPSG:3035"


def test_a_few_percent_change_in_every_part_of_the_series(scene):
    changed = scene.truth != NO_CHANGE
    assert scene.truth.dtype == np.int32
    assert 0.02 <= changed.mean() <= 0.07
    begin = scene.start.astype("datetime64[D]").astype(int)
    share = (scene.truth[changed] - begin) / scene.days
    assert share.min() >= 0.15
    assert share.max() <= 0.9
    assert (share < 0.4).any()
    assert ((share >= 0.4) & (share < 0.65)).any()
    assert (share >= 0.65).any()


def test_buildings_stand_on_open_land_and_are_finished_after_they_began(scene):
    changed = scene.truth != NO_CHANGE
    assert set(np.unique(scene.land_cover[changed])) <= {LandCover.FIELD, LandCover.GRASS, LandCover.BARE}
    assert (scene.completed[changed] >= scene.truth[changed] + 50).all()
    npt.assert_array_equal(scene.completed != NO_CHANGE, changed)


def test_ground_changes_for_good_where_the_truth_says_so(scene):
    first, last = (float(day) for day in (scene.truth[scene.truth >= 0].min(), scene.completed.max()))
    before, after = scene.landscape.cover(first - 1), scene.landscape.cover(last + 1)
    changed = scene.truth != NO_CHANGE
    artificial = [Surface.ASPHALT, Surface.BRIGHT_ROOF, Surface.RED_ROOF, Surface.DARK_ROOF]
    assert before[artificial][:, changed].sum(axis=0).max() < 1e-5
    assert after[artificial][:, changed].sum(axis=0).min() > 0.5
    npt.assert_array_equal(before[artificial][:, ~changed], after[artificial][:, ~changed])


def test_fields_change_crop_and_that_is_no_change(scene):
    fields = (scene.land_cover == LandCover.FIELD) & (scene.truth == NO_CHANGE)
    spring = float(np.datetime64("2019-05-15").astype(int))
    green = [scene.landscape.cover(spring + year * 365.25)[Surface.GREEN][fields] for year in (0, 1)]
    assert (np.abs(green[0] - green[1]) > 0.4).mean() > 0.15


def test_revisits_are_those_of_the_real_constellations():
    scene = simulate("s12", size=32, months=24, seed=2)
    visits = scene.passes("s1_asc")
    times = np.array([visit.time for visit in visits])
    assert (np.diff(times) > np.timedelta64(0)).all()
    gaps = np.round(np.diff(times) / DAY).astype(int)
    assert set(gaps) <= {6, 12, 18, 24, 30, 36}
    lost = [visit for visit in visits if 0.55 <= (visit.time - scene.start) / (scene.days * DAY) < 0.8]
    assert {visit.platform for visit in lost} == {"S1A"}
    assert {visit.platform for visit in visits} == {"S1A", "S1B"}
    hours = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "h")
    assert np.abs(hours - 17.42).max() < 0.1
    optical = np.array([visit.time for visit in scene.passes("optical")])
    assert set(np.round(np.diff(optical) / DAY).astype(int)) <= {5, 10, 15, 20}


def test_without_a_loss_both_satellites_fly_to_the_end():
    scene = simulate("s12", size=32, months=24, seed=2, lost_satellite=False)
    lost_part = [v for v in scene.passes("s1_asc") if 0.55 <= (v.time - scene.start) / (scene.days * DAY) < 0.8]
    assert {visit.platform for visit in lost_part} == {"S1A", "S1B"}


def test_windows_of_both_eras_hold_enough_observations():
    for era in ("s12", "ers12ls5"):
        scene = simulate(era, size=32, months=24, seed=7)
        times = np.sort(np.concatenate([[v.time for v in scene.passes(name)] for name in scene.era.stream_names]))
        bucket = (times - times[0]) // np.timedelta64(scene.era.step_seconds, "s")
        steps = times[np.append(np.diff(bucket) > 0, True)]
        first_window = steps < steps[0] + scene.era.window_days * DAY
        assert scene.era.min_obs <= first_window.sum() <= scene.era.max_obs


def test_tandem_passes_are_one_day_apart():
    visits = simulate("ers12ls5", size=32, months=12, seed=1).passes("ers_asc")
    gaps = np.diff([visit.time for visit in visits]) / DAY
    pairs = [visits[k : k + 2] for k in np.flatnonzero(np.abs(gaps - 1) < 0.01)]
    assert len(pairs) >= 3
    assert all((early.platform, late.platform) == ("ERS1", "ERS2") for early, late in pairs)


def test_speckle_has_the_stated_looks_and_is_correlated():
    image = speckle(generator(1), (400, 400), looks=4)
    assert abs(image.mean() - 1) < 0.02
    assert abs(image.var() * 4 - 1) < 0.05
    neighbours = np.corrcoef(image[:, 1:].ravel(), image[:, :-1].ravel())[0, 1]
    assert 0.35 < neighbours < 0.5


def test_smooth_noise_is_standard_and_smooth():
    image = smooth_noise(generator(2), (512, 512), wavelength_px=8, octaves=3)
    assert abs(image.mean()) < 0.1
    assert abs(image.var() - 1) < 0.15
    assert np.abs(np.diff(image, axis=0)).mean() < 0.5


def test_block_mean_repeats_means_and_cuts_the_edge():
    image = np.arange(20, dtype=np.float32).reshape(4, 5)
    coarse = block_mean(image, 2)
    assert coarse.shape == image.shape
    npt.assert_array_equal(coarse[:2, :2], 3.0)
    npt.assert_array_equal(coarse[2:, 4], 16.5)
    assert block_mean(image, 1) is image


def test_shifted_moves_by_parts_of_a_pixel_and_repeats_edges():
    ramp = np.tile(np.arange(5, dtype=np.float32), (3, 1))
    npt.assert_allclose(shifted(ramp, 0, 0.5)[0], [0, 0.5, 1.5, 2.5, 3.5])
    npt.assert_allclose(shifted(ramp, 0, -0.25)[0], [0.25, 1.25, 2.25, 3.25, 4])
    npt.assert_allclose(shifted(ramp, 0.5, 0), ramp)


def test_clear_skies_have_no_mask_but_mistakes_on_bright_roofs():
    sky = draw_sky(generator(4), (64, 64), day=17800.0, cloudiness=0.0, wavelength_px=60)
    assert sky.opacity.max() == 0
    assert sky.shadow.max() == 0
    ground = np.zeros((64, 64), np.float32)
    cloud, shadow = seen_as_cloud(generator(5), sky, ground)
    assert not cloud.any()
    assert not shadow.any()
    mistaken = [seen_as_cloud(generator(6, n), sky, ground + 1)[0].mean() for n in range(20)]
    assert 0.01 < np.mean(mistaken) < 0.3


def test_clouds_are_masked_imperfectly():
    opacity = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(100, 100)
    sky = Sky(opacity=opacity, shadow=np.zeros_like(opacity), cloud_brightness=0.6, cirrus=0.2, haze=0.2)
    cloud, _ = seen_as_cloud(generator(7), sky, np.zeros_like(opacity))
    assert cloud[opacity > 0.3].all()
    assert ((opacity > 0.02) & ~cloud).any()


def test_more_clouds_when_asked_for(scene):
    masked = {}
    for cloudiness in (0.1, 0.8):
        cloudy = dataclasses.replace(scene, cloudiness=cloudiness)
        images = islice(cloudy.acquisitions("optical"), 40)
        masked[cloudiness] = np.mean([(image.mask & MaskReason.CLOUD > 0).mean() for image in images])
    assert masked[0.1] < 0.35
    assert masked[0.8] > 0.55


def test_cloud_and_shadow_are_never_both(scene):
    for image in islice(scene.acquisitions("optical"), 30):
        assert set(np.unique(image.mask)) <= {0, MaskReason.CLOUD, MaskReason.CLOUD_SHADOW}


def test_surfaces_look_as_they_should():
    scene = simulate("s12", size=96, months=12, seed=5, cloudiness=0.0)
    summer = next(a for a in scene.acquisitions("optical") if a.time >= np.datetime64("2019-07-10"))
    reflectance = summer.values * summer.scale
    red, nir = (reflectance[..., scene.era.stream("optical").index(role)] for role in ("red", "nir"))
    ndvi = (nir - red) / (nir + red)
    assert np.median(ndvi[scene.land_cover == LandCover.FOREST]) > 0.5
    assert np.median(ndvi[scene.land_cover == LandCover.WATER]) < 0.1
    cirrus = reflectance[..., scene.era.stream("optical").index("cirrus")]
    assert cirrus.max() < 0.01
    radar = np.mean([a.values[..., 0] for a in islice(scene.acquisitions("s1_asc"), 20)], axis=0)
    kinds = (LandCover.WATER, LandCover.FIELD, LandCover.BUILDING)
    median = {kind: np.median(radar[scene.land_cover == kind]) for kind in kinds}
    assert median[LandCover.WATER] < 0.5 * median[LandCover.FIELD]
    assert median[LandCover.BUILDING] > 2 * median[LandCover.FIELD]


def test_coarse_bands_are_blocks_on_the_fine_grid(scene):
    values = next(scene.acquisitions("optical")).values
    bands = scene.era.stream("optical").bands
    sixty, twenty, ten = (values[..., bands.index(name)] for name in ("B01", "B11", "B04"))
    npt.assert_array_equal(sixty[:60, :60], sixty[:60:6, :60:6].repeat(6, 0).repeat(6, 1))
    npt.assert_array_equal(twenty, twenty[::2, ::2].repeat(2, 0).repeat(2, 1))
    assert (ten[:, 1:] != ten[:, :-1]).mean() > 0.5


def test_spectra_are_reflectances():
    assert REFLECTANCE.min() >= 0
    assert REFLECTANCE.max() < 0.6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"era_name": "s3"}, "no simulated scene"),
        ({"era_name": "s12", "size": 8}, "at least 32 pixels"),
        ({"era_name": "s12", "months": 0}, "at least one month"),
        ({"era_name": "s12", "seed": -1}, "must not be negative"),
        ({"era_name": "s12", "cloudiness": 1.5}, "cloudiness"),
        ({"era_name": "s12", "looks": 0}, "at least one look"),
        ({"era_name": "s12", "start": "soon"}, "not a date"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ConfigError, match=words):
        simulate(arguments.pop("era_name"), **arguments)


def test_an_unknown_stream_is_named(scene):
    with pytest.raises(ConfigError, match="s1_up"):
        next(scene.acquisitions("s1_up"))


def test_files_hold_the_acquisitions(tmp_path):
    scene = simulate("ers12ls5", size=32, months=2, seed=1)
    seen = []
    paths = write_scenes(
        scene, tmp_path / "scenes", progress=lambda done, total, name: seen.append((done, total, name))
    )
    assert seen[-1][0] == seen[-1][1] == len(paths)
    for stream in scene.era.stream_names:
        pattern = compile_pattern(import_pattern(stream))
        mine = [path for path in paths if pattern.match(path.name)]
        acquisitions = list(scene.acquisitions(stream))
        assert len(mine) == len(acquisitions)
        for path, acquisition in zip(mine, acquisitions, strict=True):
            match = pattern.match(path.name)
            assert match.time == acquisition.time.astype("datetime64[s]")
            assert match.fields["platform"] == acquisition.platform
            assert int(match.fields["track"]) == acquisition.relative_orbit
            with rasterio.open(path) as file:
                assert file.descriptions == (*acquisition.bands, MASK_BAND)
                content = file.read()
                npt.assert_allclose(file.scales[:-1], acquisition.scale)
                assert file.crs.to_string() == scene.grid.crs
            npt.assert_array_equal(content[:-1].transpose(1, 2, 0), acquisition.values)
            npt.assert_array_equal(content[-1], acquisition.mask)


def test_truth_file_round_trips(scene, tmp_path):
    path = write_truth(scene, tmp_path / "deep" / "truth.tif")
    with rasterio.open(path) as file:
        assert file.nodata == NO_CHANGE
        assert file.dtypes == ("int32",)
        npt.assert_array_equal(file.read(1), scene.truth)
        assert tuple(file.transform)[:6] == scene.grid.transform


@pytest.mark.parametrize(("more", "relative"), [([], 2.0**-13), (["--keep-bits", "23"], 1e-6)])
def test_command_writes_a_cube_and_its_truth(tmp_path, more, relative):
    app = typer.Typer()
    app.command()(simulate_command)
    cube = tmp_path / "cube"
    arguments = [str(cube), "--size", "32", "--months", "1", "--seed", "9", *more, "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    scene = simulate("s12", size=32, months=1, seed=9)
    stored = open_cube(str(cube))
    for name in scene.era.stream_names:
        acquisitions = list(scene.acquisitions(name))
        assert summary["acquisitions"][name] == len(acquisitions)
        values, mask = stored.read(name, slice(0, 1), slice(0, 32), slice(0, 32))
        npt.assert_allclose(values[0], acquisitions[0].values * np.float32(acquisitions[0].scale), rtol=relative)
        npt.assert_array_equal(mask[0], acquisitions[0].mask)
    with rasterio.open(f"{cube}.truth.tif") as file:
        npt.assert_array_equal(file.read(1), scene.truth)
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, StoreError)
    assert CliRunner().invoke(app, [*arguments[:-1], "--overwrite"]).exit_code == 0
