from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from report_scene import make_scene, small_grid, true_dates

from urbandelta.composites import before_and_after, nan_median, shrink, stretch
from urbandelta.errors import GridError, ProductError, SourceError, StoreError
from urbandelta.narrative import weights_used
from urbandelta.picture import write_picture
from urbandelta.report import read_truth, write_report
from urbandelta.store import create_cube, open_cube

SCENES = {
    "plain": {},
    "tall": {"shape": (100, 64)},
    "no_optical": {"optical": False, "truth": False},
    "single_window": {"windows": 1, "border": 3},
    "degrees": {"geographic": True},
    "no_change": {"change": False},
}
SLOW = {"tall", "degrees", "no_change"}


class Reader(HTMLParser):
    """Collects what a page refers to, and its visible words."""

    VOID = frozenset({"meta", "img", "input", "br", "path", "use", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "img":
            self.pictures.append(values)
        self.links += [v for k, v in values.items() if k in ("href", "src", "xlink:href") and v]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    made: dict[str, tuple[Path, Reader, object]] = {}

    def page(name: str):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            scores, _ = make_scene(folder, **SCENES[name])
            summary = write_report(scores, folder / "report.html", title=f"Scene {name}")
            made[name] = (folder, Reader((folder / "report.html").read_text()), summary)
        return made[name]

    return page


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in SCENES]
)
def test_a_page_is_whole_well_formed_and_asks_for_nothing(pages, name):
    folder, page, summary = pages(name)
    text = (folder / "report.html").read_text()
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
    assert all(picture.get("alt") is not None for picture in page.pictures)
    assert summary.bytes == len(text.encode()) < 3_000_000
    assert "nan" not in re.findall(r"[a-z]+", page.text.lower())
    assert not re.search(r"#(0[1-9a])\1\1\b", text), "a stand-in colour was left in a chart"


def test_the_page_says_what_changed_where_and_with_which_weights(pages):
    _, page, summary = pages("plain")
    assert summary.patches == 2
    assert summary.changed_ha == pytest.approx(0.6, rel=0.02)  # 48 + 12 pixels of 0.01 ha
    assert "0.60 ha of 6.4 ha changed (9.4 %), in 2 places." in page.text
    assert "in the north-east of the scene" in page.text
    assert "trained on simulated scenes" in page.text
    assert "not a measurement of a real city" in page.text
    assert (summary.roc_auc, summary.f1) == (1.0, 1.0)
    assert "Against known truth" in page.text
    assert "Oct 2021" in page.text
    assert "nothing between" in page.text  # radar every 48 days is pointed out
    assert "cd" * 32 in page.text
    assert "stride: 5" in page.text


def test_without_optical_data_the_radar_is_shown_and_without_truth_nothing_is_measured(pages):
    _, page, summary = pages("no_optical")
    assert "Backscatter in decibels" in page.text
    assert "Against known truth" not in page.text
    assert summary.roc_auc is None


def test_a_single_window_and_missing_borders_are_said(pages):
    _, page, _ = pages("single_window")
    assert "1 window, 182 days long" in page.text
    assert "of the pixels have no score at all" in page.text
    assert page.text.count("Apr 2021") >= 1


@pytest.mark.slow
def test_no_change_is_said_plainly(pages):
    _, page, summary = pages("no_change")
    assert "No change stands out in the 6.4 ha looked at." in page.text
    assert (summary.patches, summary.changed_ha) == (0, 0.0)
    assert "pixel with the highest score" in page.text.lower()


def test_the_same_scores_give_the_same_page(pages, tmp_path):
    folder, _, _ = pages("plain")
    write_report(str(folder / "scores"), tmp_path / "again.html", title="Scene plain")
    assert (tmp_path / "again.html").read_bytes() == (folder / "report.html").read_bytes()


def test_names_from_outside_cannot_become_markup(pages, tmp_path):
    folder, *_ = pages("plain")
    write_report(
        str(folder / "scores"), tmp_path / "r.html", title="<script>alert(1)</script>", command="a </script> b"
    )
    text = (tmp_path / "r.html").read_text()
    assert "<script>alert" not in text
    assert text.count("</script>") == 2


def test_scores_without_their_cube_still_make_a_page(tmp_path):
    scores, cube = make_scene(tmp_path, windows=3)
    (tmp_path / "cube").rename(tmp_path / "moved")
    write_report(scores, tmp_path / "r.html")
    page = Reader((tmp_path / "r.html").read_text())
    assert "The cube was not at hand" in page.text
    assert "What the satellites saw" not in page.text
    with pytest.raises(StoreError):
        write_report(scores, tmp_path / "r.html", cube_url=cube)


def test_wrong_input_ends_in_one_clear_error(pages, tmp_path):
    folder, *_ = pages("plain")
    scores = str(folder / "scores")
    with pytest.raises(StoreError):
        write_report(str(tmp_path / "nothing"), tmp_path / "r.html")
    with pytest.raises(ProductError, match="threshold"):
        write_report(scores, tmp_path / "r.html", threshold=2)
    with pytest.raises(ProductError, match="cannot write"):
        write_report(scores, tmp_path / "no" / "r.html")
    (tmp_path / "bad.tif").write_bytes(b"II*\0")
    with pytest.raises(SourceError, match=r"bad\.tif"):
        write_report(scores, tmp_path / "r.html", truth=tmp_path / "bad.tif")
    other = create_cube(str(tmp_path / "other"), era="s12", grid=small_grid(8, 8))
    with pytest.raises(GridError, match="cube"):
        write_report(scores, tmp_path / "r.html", cube_url=other.url)
    assert not (tmp_path / "r.html").exists()


def test_truth_must_lie_on_the_same_grid(pages):
    folder, *_ = pages("plain")
    np.testing.assert_array_equal(read_truth(folder / "cube.truth.tif", small_grid()), true_dates(20, 32))
    with pytest.raises(GridError, match="truth lies on"):
        read_truth(folder / "cube.truth.tif", small_grid(20, 33))


@pytest.mark.parametrize(
    ("attributes", "simulated", "said"),
    [
        ({"weights_description": '{"data": "simulated scenes"}'}, True, "trained on simulated scenes"),
        ({"weights_description": {"training": {"scenes": "simulated"}}}, True, "simulated"),
        ({"weights_description": {"data": "Rotterdam"}}, False, "data: Rotterdam"),
        ({"weights_name": "x"}, False, "do not say what they were trained on"),
    ],
)
def test_the_weights_are_named_for_what_they_are(attributes, simulated, said):
    used = weights_used(attributes)
    assert used.simulated is simulated
    assert said in used.statement


def test_composites_ignore_what_is_masked(pages):
    folder, *_ = pages("plain")
    cube = open_cube(str(folder / "cube"))
    times = cube.times("optical")
    pair = before_and_after(cube, times[0], times[-1])
    assert pair is not None
    assert pair.kind == "true colour"
    run = [k for k in range(len(times)) if times[k] <= pair.before.end]
    values, mask = cube.read("optical", slice(0, len(run)), slice(0, 20), slice(0, 32))
    index = [cube.bands("optical").index(band) for band in ("B04", "B03", "B02")]
    clear = np.ma.array(values[..., index], mask=np.repeat((mask != 0)[..., None], 3, axis=-1))
    np.testing.assert_allclose(pair.before.values, np.ma.median(clear, axis=0).filled(np.nan), rtol=1e-6)
    before, after = stretch(pair)
    assert before.shape == after.shape == (20, 32, 4)


def test_medians_and_shrinking_ignore_nan():
    values = np.array([[1, np.nan], [3, np.nan], [8, np.nan]], np.float32)
    np.testing.assert_array_equal(nan_median(values), [3, np.nan])
    np.testing.assert_array_equal(nan_median(values[:2]), [2, np.nan])
    image = np.array([[1, 3, 5], [np.nan, 2, 7]], np.float32)
    np.testing.assert_array_equal(shrink(image, 2), [[2, 6]])
    np.testing.assert_array_equal(shrink(image, 2, how="max"), [[3, 7]])


def test_the_picture_is_as_wide_as_promised_and_light(pages, tmp_path):
    folder, *_ = pages("plain")
    size = write_picture(str(folder / "scores"), str(folder / "cube"), tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width == 1200
        assert 200 < picture.height < 600
    assert size == (tmp_path / "p.png").stat().st_size < 300_000


def test_truth_with_another_nodata_reads_as_none(tmp_path):
    grid = small_grid(2, 2)
    profile = {"driver": "GTiff", "height": 2, "width": 2, "count": 1, "dtype": "int32", "nodata": 99_999}
    with rasterio.open(
        tmp_path / "t.tif", "w", crs=grid.crs, transform=rasterio.Affine(*grid.transform), **profile
    ) as target:
        target.write(np.array([[99_999, 5], [-1, 7]], np.int32), 1)
    np.testing.assert_array_equal(read_truth(tmp_path / "t.tif", grid), [[-1, 5], [-1, 7]])
