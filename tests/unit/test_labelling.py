"""Labels of a cube: what they hold, that they live beside the cube, and that blocks and threads change nothing."""

import numpy as np
import numpy.testing as npt
import pytest
from label_scene import BUILT_DAY, CORNER, START, acquisitions, make_scene, write_dates

from urbandelta import label_plan, labelling
from urbandelta.eras import ERAS
from urbandelta.errors import ConfigError, LabelError, TooFewObservations
from urbandelta.indices import endisi_beta
from urbandelta.label_plan import cube_looks, plan_labels
from urbandelta.label_store import label_names, open_labels, summarise
from urbandelta.labelling import label_cube
from urbandelta.labels import date_label, synthetic_label
from urbandelta.store import open_cube

ALL = slice(None)
STRIDE = 3


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("labels") / "cube")


@pytest.fixture(scope="module")
def labels(cube):
    return label_cube(cube, stride=STRIDE, workers=2)


def stacks(cube, steps):
    """What each stream shows at the steps, NaN until it is seen, and which pixels are new."""
    shown = {}
    for name in cube.streams:
        values, mask = cube.read(name, ALL, ALL, ALL)
        times, frame = cube.times(name), np.full(values.shape[1:], np.nan, np.float32)
        at, out, new = 0, [], []
        for step in steps:
            fresh = np.zeros(frame.shape[:2], bool)
            while at < len(times) and times[at] <= step:
                frame[mask[at] == 0] = values[at][mask[at] == 0]
                fresh |= mask[at] == 0
                at += 1
            out.append(frame.copy())
            new.append(fresh)
        shown[name] = np.array(out), np.array(new)
    return shown


def test_labels_are_those_of_the_arrays(cube, labels):
    shown = stacks(cube, labels.steps)
    assert len(labels.windows) >= 2
    for number, window in enumerate(labels.windows):
        spans = [slice(part.first, part.last + 1) for part in (window.previous, window, window.following)]
        before, after = (shown["optical"][0][span] for span in (spans[0], spans[2]))
        for side, optical in enumerate((before, after)):
            beta = endisi_beta(np.nanmean(optical[:, np.arange(70) != 60], axis=0), era="s12", mode="corrected").beta
            assert labels.betas[number, side] == pytest.approx(beta, rel=1e-5)
        sar = []
        for name in ("s1_asc", "s1_dsc"):
            values, new = (array[spans[1]] for array in shown[name])
            sar.append(np.where(new[..., None], values, np.nan))
        expected = synthetic_label(*sar, before, after, era="s12", betas=labels.betas[number], shift=0.25)
        npt.assert_allclose(labels.read(number, ALL, ALL)[0], expected, atol=1e-6)
        assert np.isnan(expected[60]).all()
        assert np.isfinite(np.delete(expected, 60, axis=0)).all()


def test_the_built_corner_stands_out(labels):
    read = labels.read(ALL, ALL, ALL)
    built = START + np.timedelta64(BUILT_DAY, "D")
    inside = [n for n, w in enumerate(labels.windows) if w.start < built < w.end]
    assert inside
    corner = read[inside][:, CORNER, CORNER]
    rest = read[:, 20:60]
    assert np.nanmean(corner) > 20 * np.nanmean(rest)


def test_windows_come_back_as_they_were(cube, labels):
    plan = plan_labels(cube, stride=STRIDE)
    assert labels.windows == plan.windows
    npt.assert_array_equal(labels.steps, plan.steps)
    assert labels.complete
    assert labels.name == "synthetic"
    assert labels.attributes["identity"] == plan.identity
    whole = labels.read(ALL, ALL, ALL)
    npt.assert_array_equal(labels.read(1, slice(3, 9), slice(60, 70)), whole[1:2, 3:9, 60:70])
    npt.assert_array_equal(labels.read(-1, ALL, ALL), whole[-1:])
    with pytest.raises(LabelError, match="no window 99"):
        labels.read(99, ALL, ALL)


def test_summary(labels):
    read, summary = labels.read(ALL, ALL, ALL), summarise(labels)
    assert summary.windows == len(read)
    assert summary.pixels == np.isfinite(read).sum()
    assert summary.counted == pytest.approx(np.isfinite(read).mean())
    assert summary.mean == pytest.approx(np.nanmean(read), rel=1e-5)
    assert summary.above == pytest.approx((read > 0.5).sum() / np.isfinite(read).sum())


def test_blocks_and_threads_change_nothing(cube, labels, monkeypatch):
    monkeypatch.setattr(label_plan, "BLOCK_SIZES", {32: 1})
    other = label_cube(cube, name="blocks", stride=STRIDE, workers=1)
    npt.assert_allclose(other.betas, labels.betas, rtol=1e-12)
    npt.assert_allclose(other.read(ALL, ALL, ALL), labels.read(ALL, ALL, ALL), atol=1e-6)


def test_doing_it_again_changes_nothing(cube, labels, monkeypatch):
    monkeypatch.setattr(labelling, "block_labels", None)
    assert label_cube(cube, stride=STRIDE).snapshot == labels.snapshot


def test_other_labels_need_another_name_or_leave(tmp_path):
    cube = make_scene(tmp_path / "cube", size=20)
    label_cube(cube, stride=STRIDE)
    snapshot = cube.snapshot
    for change in ({"mode": "reference"}, {"shift": 0.5}, {"looks": 5}, {"stride": STRIDE + 1}):
        with pytest.raises(LabelError, match=r"another run.*--overwrite"):
            label_cube(cube, **{"stride": STRIDE, **change})
    changed = label_cube(cube, stride=STRIDE, shift=0.5, overwrite=True)
    assert changed.attributes["identity"]["shift"] == 0.5
    again = label_cube(cube, stride=STRIDE, name="other")
    assert label_names(open_cube(cube.url)) == ("other", "synthetic")
    assert again.attributes["identity"]["shift"] == 0.25
    assert open_cube(cube.url).snapshot == snapshot


def test_labels_outlive_appends_and_compaction(tmp_path):
    cube = make_scene(tmp_path / "cube", size=20)
    made = label_cube(cube, stride=STRIDE)
    expected = made.read(ALL, ALL, ALL)
    stream = ERAS["s12"].streams[0]
    cube.append(stream.name, acquisitions(stream, range(601, 601 + 12 * 20), 20))  # enough to compact
    cube.compact()
    opened = open_labels(cube.url)
    npt.assert_array_equal(opened.read(ALL, ALL, ALL), expected)
    npt.assert_array_equal(open_labels(open_cube(cube.url)).betas, made.betas)
    assert len(cube.history()) > 1
    # The cube has grown: its labels are of another snapshot now.
    with pytest.raises(LabelError, match="cube_snapshot"):
        label_cube(open_cube(cube.url), stride=STRIDE)


def test_only_the_published_label_needs_both_orbits(tmp_path):
    cube = make_scene(tmp_path / "cube", size=20, streams=("s1_asc", "optical"))
    with pytest.raises(LabelError, match="VV, VH of stream s1_dsc"):
        label_cube(cube, mode="reference", stride=STRIDE)
    # 12-day passes of two streams alone are too few steps for the era's windows.
    with pytest.raises(TooFewObservations, match="no window with one before and one after"):
        label_cube(cube, stride=STRIDE)


def test_what_is_missing_is_named(tmp_path):
    cube = make_scene(tmp_path / "cube", size=20, streams=("s1_asc", "s1_dsc"))
    with pytest.raises(LabelError, match="B02, B03, B11, B12"):
        label_cube(cube)
    cube = make_scene(tmp_path / "other", size=20, streams=("optical",))
    with pytest.raises(LabelError, match="no radar"):
        label_cube(cube)
    with pytest.raises(LabelError, match="no labels named synthetic"):
        open_labels(cube)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "x"}, ConfigError, "unknown mode"),
        ({"shift": 7}, ConfigError, "shift"),
        ({"looks": 0}, ConfigError, "looks"),
        ({"workers": 0}, ConfigError, "workers"),
        ({"stride": 0}, ConfigError, "stride"),
        ({"name": "A b"}, LabelError, "cannot name labels"),
        ({"start": "2019-06-01"}, TooFewObservations, "--from-dates"),
    ],
)
def test_wrong_options(cube, options, error, message):
    with pytest.raises(error, match=message):
        label_cube(cube, **options)


def test_looks_of_a_cube(cube):
    assert cube_looks(cube) == pytest.approx(4, rel=0.05)
    assert plan_labels(cube, looks="auto").looks == cube_looks(cube)


def test_labels_from_dates(cube, tmp_path):
    path = write_dates(tmp_path / "dates.tif")
    made = label_cube(cube, name="dated", dates=path, stride=5)
    assert all(window.previous is None and window.following is None for window in made.windows)
    assert len(made.windows) > len(plan_labels(cube, stride=5).windows)
    days = np.full((70, 70), -1)
    days[CORNER, CORNER] = int((START + np.timedelta64(BUILT_DAY, "D")).astype("datetime64[D]").astype(int))
    npt.assert_array_equal(made.read(ALL, ALL, ALL), [date_label(days, window) for window in made.windows])
    assert np.isnan(made.betas).all()
    assert label_cube(cube, name="dated", dates=path, stride=5).snapshot == made.snapshot


def test_dates_must_lie_on_the_cubes_grid(cube, tmp_path):
    with pytest.raises(LabelError, match="another grid"):
        label_cube(cube, name="dated2", dates=write_dates(tmp_path / "a.tif", shift_m=10))
    with pytest.raises(LabelError, match="another grid"):
        label_cube(cube, name="dated2", dates=write_dates(tmp_path / "b.tif", size=60))
    with pytest.raises(LabelError, match="whole numbers"):
        label_cube(cube, name="dated2", dates=write_dates(tmp_path / "c.tif", dtype="float32"))
    with pytest.raises(LabelError, match="not a readable raster"):
        label_cube(cube, name="dated2", dates=tmp_path / "none.tif")
