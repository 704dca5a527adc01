"""Draws, augmentation, tile labels, folds and transfers on small cubes."""

import json

import geopandas
import numpy as np
import numpy.testing as npt
import pytest
import rasterio
import shapely

import urbandelta as ud
from urbandelta.eras import ERAS
from urbandelta.errors import ContractError, TooFewObservations, TrainingError, TruthError, WeightsError
from urbandelta.samples import Batch
from urbandelta.split import leaks
from urbandelta.training import Hardware, TransferSettings, transfer
from urbandelta.training.draws import AUGMENTATIONS, Augmentation, StartRule, augmented, draw_windows, middle_windows
from urbandelta.training.series import SeriesBatch, series_tensors, window_views
from urbandelta.training.tile_labels import LabelTile, deal_folds, fold_plan, read_tile_labels
from urbandelta.truth import TruthOptions
from urbandelta.types import Window
from urbandelta.weights import load_weights, save_weights

RULE = StartRule(first=(0, 20), increment=(45, 55))
ONE = Hardware(threads=1, accelerator="cpu")


def made_windows(starts, count=60):
    day = np.timedelta64(1, "D")
    zero = np.datetime64("2020-01-01", "ns")
    return [Window(zero + n * day, zero + (n + count - 1) * day, count, n, n + count - 1) for n in starts]


# ---------------------------------------------------------------- draws


def test_windows_start_where_the_rule_says():
    windows = made_windows(range(600))
    firsts, gaps = set(), set()
    for seed in range(300):
        starts = [window.first for window in draw_windows(windows, RULE, 10, np.random.default_rng(seed))]
        assert len(starts) == 10
        firsts.add(starts[0])
        gaps.update(np.diff(starts).tolist())
    assert firsts == set(range(21))
    assert gaps == set(range(45, 56))
    assert [window.first for window in middle_windows(windows, RULE, 3)] == [10, 60, 110]


def test_a_short_series_gives_fewer_windows_and_one_at_least():
    for windows in (made_windows(range(70)), made_windows(range(5)), made_windows([30, 31]), made_windows([0])):
        known = {window.first for window in windows}
        for seed in range(50):
            drawn = draw_windows(windows, RULE, 10, np.random.default_rng(seed))
            assert 1 <= len(drawn) <= 2
            assert {window.first for window in drawn} <= known
    gap = made_windows([*range(20), *range(100, 200)])
    starts = [
        w.first for w in draw_windows(gap, StartRule(first=(5, 5), increment=(50, 50)), 10, np.random.default_rng())
    ]
    assert starts == [5, 105, 155]


def test_eras_have_the_published_increments():
    assert ERAS["s12"].transfer_increment == (45, 55)
    assert ERAS["ers12ls5"].transfer_increment == (40, 49)
    assert {era.transfer_first for era in ERAS.values()} == {(0, 20)}


# ---------------------------------------------------------------- augmentation


@pytest.fixture
def batch():
    rng = np.random.default_rng(3)
    return Batch(
        frames={"sar": rng.random((7, 2, 8, 8), np.float32), "optical": rng.random((5, 3, 8, 8), np.float32)},
        index={"sar": np.array([[0, 1, 2, 3], [4, 5, 6, 0]]), "optical": np.array([[0, 0, 1, 1], [2, 3, 4, 0]])},
        valid=np.array([[True] * 4, [True, True, True, False]]),
        truth=np.where(rng.random((2, 8, 8)) < 0.3, 1, np.nan).astype(np.float32),
    )


def rngs(seed=0):
    return [np.random.default_rng([seed, n]) for n in range(2)]


def test_a_frozen_sample_shows_one_step_and_no_change(batch):
    steps = set()
    for seed in range(40):
        made = augmented(batch, Augmentation(frozen=1), rngs(seed))
        npt.assert_array_equal(made.truth, 0)
        for n, count in enumerate((4, 3)):
            shown = [np.unique(made.index[path][n, :count]) for path in ("sar", "optical")]
            assert all(len(images) == 1 for images in shown)
            step = list(batch.index["sar"][n, :count]).index(shown[0][0])
            assert shown[1][0] == batch.index["optical"][n, step]
            steps.add((n, step))
    assert len(steps) == 7
    assert batch.truth.max() == 1 or np.nanmax(batch.truth) == 1


def test_half_of_the_published_samples_are_frozen(batch):
    frozen = sum(
        int((augmented(batch, AUGMENTATIONS["published"], rngs(seed)).truth[n] == 0).all())
        for seed in range(300)
        for n in range(2)
    )
    assert 0.42 < frozen / 600 < 0.58
    assert AUGMENTATIONS["published"].turns
    assert augmented(batch, AUGMENTATIONS["flips"], rngs()) is batch


def test_lost_images_show_what_was_there_before(batch):
    for seed in range(30):
        made = augmented(batch, Augmentation(lost=0.9), rngs(seed))
        for path, rows in made.index.items():
            for n, count in enumerate((4, 3)):
                before, now = batch.index[path][n, :count], rows[n, :count]
                assert now[0] == before[0]
                assert (now <= before).all()
                assert (np.diff(now) >= 0).all()
        npt.assert_array_equal(made.truth, batch.truth)


def test_gain_is_one_factor_a_band_and_sample(batch):
    made = augmented(batch, Augmentation(gain=0.1), rngs())
    for path, parts in {"sar": (slice(0, 4), slice(4, 7)), "optical": (slice(0, 2), slice(2, 5))}.items():
        factors = [(made.frames[path][part] / batch.frames[path][part]).mean(axis=(0, 2, 3)) for part in parts]
        for part, factor in zip(parts, factors, strict=True):
            npt.assert_allclose(made.frames[path][part], batch.frames[path][part] * factor[:, None, None], rtol=1e-5)
        assert not np.allclose(*factors)


def test_views_hold_what_windows_show(batch):
    chosen = [made_windows([0, 2], 2), made_windows([1], 2)]
    series = series_tensors(SeriesBatch(batch, window_views(batch, chosen)), {"sar": np.full(2, 2, np.float32)})
    assert [rows.tolist() for rows in series.rows] == [[0, 1], [0]]
    for number in range(2):
        window = series.window(number)
        for row, n in enumerate(series.rows[number].tolist()):
            first = chosen[n][number].first
            for path, scale in (("sar", 2), ("optical", 1)):
                shown = window.frames[path][window.index[path][row]].numpy()
                npt.assert_allclose(shown, batch.frames[path][batch.index[path][n, first : first + 2]] / scale)
        assert window.valid.all()


# ---------------------------------------------------------------- labels and folds


def write_truth(path, cube, values, nodata=255):
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=cube.grid.height, width=cube.grid.width, dtype=values.dtype,
        crs=cube.grid.crs, transform=cube.grid.affine, nodata=nodata,
    ) as target:  # fmt: skip
        target.write(values, 1)
    return path


@pytest.fixture
def cube(make_cube):
    return make_cube(shape=(32, 64), days=300, every=5)


@pytest.fixture
def truth(cube, tmp_path):
    values = np.zeros(cube.grid.shape, np.uint8)
    for column in range(4, 64, 16):
        values[4:8, column : column + 4] = 1
    values[:, 48:] = 255
    values[20:24, 2:6] = 1
    return write_truth(tmp_path / "truth.tif", cube, values)


def test_tiles_of_a_raster_are_those_that_are_known(cube, truth):
    labels = read_tile_labels(cube, truth, cube.streams, tile=16)
    assert [(item.y, item.x) for item in labels.tiles] == [(y, x) for y in (0, 16) for x in (0, 16, 32)]
    assert [item.changed for item in labels.tiles] == [16, 16, 16, 16, 0, 0]
    assert {item.known for item in labels.tiles} == {14 * 14}
    assert np.isnan(labels.read(0, slice(0, 4), slice(50, 60))).all()
    assert labels.windows[0].count == len(labels.steps)
    assert labels.starts[-1].last == len(labels.steps) - 1
    later = read_tile_labels(cube, truth, cube.streams, tile=16, start=np.datetime64("2018-03-01"))
    assert later.steps[0] >= np.datetime64("2018-03-01")


def test_dates_outside_the_years_are_no_change(cube, tmp_path):
    days = np.full(cube.grid.shape, -1, np.int32)
    first = np.datetime64("2018-01-01").astype(int)
    days[2:6, 2:6] = first + 100
    days[2:6, 20:24] = first + 250
    path = write_truth(tmp_path / "dates.tif", cube, days, nodata=-1)
    labels = read_tile_labels(cube, path, cube.streams, tile=16, end=np.datetime64("2018-08-01"))
    assert labels.truth[3, 3] == 1
    assert labels.truth[3, 21] == 0
    assert not np.isnan(labels.truth).any()


def boxes(cube, places):
    west, north = cube.grid.bounds[0], cube.grid.bounds[3]
    shapes = [
        shapely.box(west + 10 * x, north - 10 * (y + h), west + 10 * (x + w), north - 10 * y) for y, x, h, w in places
    ]
    return geopandas.GeoDataFrame(geometry=shapes, crs=cube.grid.crs)


def test_footprints_get_tiles_and_hide_the_rest(cube, truth, tmp_path):
    boxes(cube, [(2, 3, 16, 16), (0, 24, 12, 32), (30, 60, 2, 4), (500, 0, 9, 9)]).to_file(tmp_path / "tiles.gpkg")
    labels = read_tile_labels(cube, truth, cube.streams, tile=16, footprints=tmp_path / "tiles.gpkg")
    # The third lies where nothing is known.
    assert [(item.y, item.x) for item in labels.tiles] == [(2, 3), (0, 24), (0, 40)]
    assert np.isnan(labels.truth[13, 30])
    assert labels.truth[17, 10] == 0
    boxes(cube, [(500, 0, 9, 9)]).to_file(tmp_path / "far.gpkg")
    with pytest.raises(TrainingError, match="no tile touches"):
        read_tile_labels(cube, truth, cube.streams, tile=16, footprints=tmp_path / "far.gpkg")


def test_folds_are_dealt_whole_and_kept_apart(cube, truth):
    labels = read_tile_labels(cube, truth, cube.streams, tile=8)
    dealt = deal_folds([labels.tiles], 2, tile=8, buffer_px=8, seed=0)
    assert set(dealt[0]) == {0, 1}
    seen = []
    for fold in range(2):
        plan = fold_plan(labels, dealt[0], fold, tile=8, buffer_px=8, seed=0)
        assert leaks(plan) == ()
        seen += [(tile.y, tile.x) for tile in plan.tiles_of("validation")]
        assert plan.tiles_of("train")
    assert sorted(seen) == sorted((tile.y, tile.x) for tile in labels.tiles)
    every = fold_plan(labels, dealt[0], None, tile=8, buffer_px=8, seed=0)
    assert len(every.tiles_of("train")) == len(labels.tiles)


def test_folds_of_a_large_area_are_balanced():
    rng = np.random.default_rng(0)
    tiles = [LabelTile(32 * y, 32 * x, int(rng.random() < 0.3), 900) for y in range(20) for x in range(20)]
    dealt = np.array(deal_folds([tiles], 4, tile=32, buffer_px=16, seed=1)[0])
    changed = np.array([tile.changed for tile in tiles])
    counts = np.bincount(dealt, weights=changed)
    assert counts.max() - counts.min() <= 8
    assert np.bincount(dealt).min() > 80


def test_too_few_tiles_for_folds():
    tiles = [LabelTile(0, 0, 5, 900), LabelTile(0, 32, 0, 900)]
    with pytest.raises(TrainingError, match="too few for 2 folds"):
        deal_folds([tiles], 2, tile=32, buffer_px=16, seed=0)


# ---------------------------------------------------------------- transfers


SETTINGS = TransferSettings(windows=2, epochs=1, batch=2, augment="rich")


@pytest.fixture
def init(make_weights, tmp_path):
    return save_weights(make_weights(variant="sar"), tmp_path / "init.safetensors")


def test_two_folds_and_a_summary(cube, truth, init, tmp_path):
    told = []
    options = {"labels": truth, "init": init, "tile": 8, "buffer_px": 0, "folds": 2, "settings": SETTINGS}
    result = ud.transfer(
        [cube], out=tmp_path / "w.safetensors", **options, hardware=ONE, progress=lambda *what: told.append(what)
    )
    assert [item.fold for item in result.folds] == [0, 1]
    assert told[-1][0] == told[-1][1]
    summary = json.loads(result.summary.read_text())
    assert [item["fold"] for item in summary["networks"]] == [0, 1]
    for item in result.folds:
        made = load_weights(item.out)
        assert made.sha256 == item.sha256 != load_weights(init).sha256
        assert item.tiles["train"]
        assert item.tiles["validation"]
        assert made.description["transferred_from"]["name"] == "random"
        assert {"loss", "f1", "pr_auc"} <= set(item.scores)
    again = transfer([cube], out=tmp_path / "w.safetensors", **options, hardware=ONE)
    assert all(item.done_before for item in again.folds)
    one = transfer([cube], out=tmp_path / "one.safetensors", fold=[1], **options, hardware=ONE)
    assert [item.fold for item in one.folds] == [1]
    assert one.folds[0].sha256 == result.folds[1].sha256
    with pytest.raises(TrainingError, match="differs in"):
        transfer([cube], out=tmp_path / "w.safetensors", **options | {"settings": TransferSettings()}, hardware=ONE)


def test_a_frozen_encoder_stays(cube, truth, init, tmp_path):
    settings = TransferSettings(windows=1, epochs=1, batch=4, freeze="encoder", input_scale="none", augment="none")
    out = tmp_path / "w.safetensors"
    result = transfer([cube], labels=truth, out=out, init=init, tile=16, settings=settings, hardware=ONE)
    assert result.summary is None
    assert result.folds[0].scores == {}
    before, after = load_weights(init).parameters, load_weights(out).parameters
    for name, array in before.items():
        frozen = name.startswith("sar.block")
        assert np.array_equal(array, after[name]) == frozen, name


def test_a_stopped_transfer_ends_with_the_same_weights(cube, truth, init, tmp_path):
    settings = TransferSettings(windows=2, epochs=2, batch=2, dropout=0.2)
    options = {"labels": truth, "init": init, "tile": 16, "settings": settings, "hardware": ONE, "checkpoint_every": 2}
    calm = transfer([cube], out=tmp_path / "calm.safetensors", **options)
    out = tmp_path / "w.safetensors"

    class Stop(Exception):
        pass

    def stop(done, _total, _message):
        if done == 5:
            raise Stop

    with pytest.raises(Stop):
        transfer([cube], out=out, **options, progress=stop)
    result = transfer([cube], out=out, **options)
    assert result.folds[0].resumed_at in (4, 5)
    assert result.folds[0].sha256 == calm.folds[0].sha256


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"init": "nowhere.safetensors"}, WeightsError, "no such weights"),
        ({"init": "ers12ls5_simulated"}, ContractError, "era"),
        ({"labels": "nowhere.tif"}, TruthError, "no such file"),
        ({"truth": TruthOptions(changed_values=("7",))}, TruthError, "7"),
        ({"settings": TransferSettings(windows=0)}, TrainingError, "windows 0"),
        ({"settings": TransferSettings(augment="mixup")}, TrainingError, "choose one of published"),
        ({"settings": TransferSettings(freeze="head")}, TrainingError, "freeze"),
        ({"settings": TransferSettings(increment=(0, 4))}, TrainingError, "increment"),
        ({"folds": 2, "fold": [2]}, TrainingError, "fold 2"),
        ({"fold": [0]}, TrainingError, "number of folds"),
        ({"folds": 1}, TrainingError, "at least 2"),
        ({"end": np.datetime64("2018-02-01")}, TooFewObservations, "no window"),
        ({"tile": 40}, TrainingError, "nothing is known"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(cube, truth, init, tmp_path, change, error, message):
    options = {"labels": truth, "init": init, "tile": 16, "settings": SETTINGS} | change
    with pytest.raises(error, match=message):
        transfer([cube], out=tmp_path / "w.safetensors", **options)


def test_labels_without_change_are_refused(cube, init, tmp_path):
    path = write_truth(tmp_path / "none.tif", cube, np.zeros(cube.grid.shape, np.uint8))
    with pytest.raises(TrainingError, match="nothing changed in any of 8 tiles"):
        transfer([cube], labels=path, out=tmp_path / "w.safetensors", init=init, tile=16)
