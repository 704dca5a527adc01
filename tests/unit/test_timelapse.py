from __future__ import annotations

import importlib

import numpy as np
import pytest
from event_scene import GRID, scores_of
from PIL import Image
from report_scene import make_scene, small_grid

from urbandelta import timelapse
from urbandelta.canvas import hatch, panel_size, red_over, score_colours
from urbandelta.cartography import MapFrame
from urbandelta.errors import ConfigError, GridError, ProductError
from urbandelta.figures import palette
from urbandelta.scores import open_scores
from urbandelta.store import create_cube, open_cube
from urbandelta.timelapse import HEADER, MARGIN, write_timelapse


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    scores, cube = make_scene(folder, windows=8)
    return open_scores(scores), open_cube(cube)


def frames_of(path):
    with Image.open(path) as picture:
        for k in range(picture.n_frames):
            picture.seek(k)
            yield np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_a_frame_for_each_month_with_both_maps(scene, tmp_path, ending):
    scores, cube = scene
    done = write_timelapse(scores, tmp_path / f"t{ending}", cube=cube, size=96)
    months = scores["time"].values.astype("datetime64[M]")
    frames = list(frames_of(done.path))
    assert done.frames == len(frames) == int(months.max() - months.min()) + 1
    width, height = panel_size(MapFrame(small_grid()), 96)
    # The months around the change of September differ where it happened, in the score and nowhere in the header's rim.
    score = np.stack(frames)[:, HEADER : HEADER + height, 2 * MARGIN + width : 2 * MARGIN + 2 * width].astype(int)
    brightness = score[:, round(0.2 * height) : round(0.4 * height), round(0.65 * width) : round(0.85 * width)]
    assert np.ptp(brightness.mean(axis=(1, 2, 3))) > 40
    assert done.bytes == done.path.stat().st_size
    if ending == ".gif":
        assert all((frame[2, 2] == 255).all() for frame in frames)  # paper stays white in a palette


def test_the_same_scores_give_the_same_file(scene, tmp_path):
    scores, cube = scene
    for name in ("a.gif", "b.gif"):
        write_timelapse(scores, tmp_path / name, cube=cube, every="window", size=64)
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()


def test_a_frame_for_each_window_without_a_cube_shows_the_score_alone(tmp_path):
    scores = scores_of([(slice(2, 8), slice(2, 8), 200)], windows=5, provisional=1)
    done = write_timelapse(scores, tmp_path / "t.gif", every="window", size=100)
    assert done.frames == 5
    assert done.width == 400  # room for the words


def test_a_video_holds_every_frame_and_a_rest_at_the_end(scene, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    scores, cube = scene
    done = write_timelapse(scores, tmp_path / "t.mp4", cube=cube, size=64, fps=2)
    count, _ = ffmpeg.count_frames_and_secs(str(done.path))
    assert count == done.frames + 4
    assert done.width % 2 == done.height % 2 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["t.mp4"]


def test_without_the_video_package_the_error_says_what_to_install(scene, tmp_path, monkeypatch):
    real = importlib.import_module

    def missing(name):
        if name == "imageio_ffmpeg":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(timelapse.importlib, "import_module", missing)
    with pytest.raises(ProductError, match=r"urbandelta\[video\]"):
        write_timelapse(scene[0], tmp_path / "t.mp4")


@pytest.mark.parametrize("options", [{"size": 3}, {"fps": 0}, {"fps": float("nan")}, {"every": "day"}])
def test_options_out_of_range_are_refused(scene, tmp_path, options):
    with pytest.raises(ConfigError):
        write_timelapse(scene[0], tmp_path / "t.gif", **options)


def test_other_endings_and_other_grids_are_refused(scene, tmp_path):
    with pytest.raises(ConfigError, match=r"\.gif"):
        write_timelapse(scene[0], tmp_path / "t.avi")
    other = create_cube(str(tmp_path / "c"), era="s12", grid=GRID)
    with pytest.raises(GridError):
        write_timelapse(scene[0], tmp_path / "t.gif", cube=other)


def test_colours_of_scores_and_of_what_is_unknown():
    colours = score_colours(np.array([[0, 1, np.nan]], np.float32))
    np.testing.assert_array_equal(colours[0, :2, :3], palette()[[0, -1]])
    assert colours[0, :, 3].tolist() == [255, 255, 0]
    assert hatch(8, 8).shape == (8, 8, 3)
    grey = np.full((1, 2, 4), 100, np.uint8)
    mixed = red_over(grey, np.array([[0, 1]], np.float32))
    assert mixed[0, 0].tolist() == [100] * 4
    assert mixed[0, 1].tolist() == [255, 42, 31, 100]
