"""The page of `urbandelta serve` in a real browser: load, slide, play, swipe, history, events, phone, keys, dark."""

from __future__ import annotations

import io
import json
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import rasterio
from headless_chromium import CHROMIUM
from PIL import Image
from report_scene import make_scene

from urbandelta.events import find_events
from urbandelta.rasters import STATUS_COLOURS, STATUS_MEANINGS, write_rasters
from urbandelta.scores import open_scores

playwright = pytest.importorskip("playwright.sync_api")
from serve_page import View, browser, served  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harbour") / "harbour"
    folder.mkdir()
    make_scene(folder, shape=(48, 64))
    with served(folder) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture
def look(chromium, url):
    views = []

    def open_view(hash_: str = "", **options) -> View:
        views.append(View(chromium, url, hash_, **options))
        return views[-1]

    yield open_view
    for view in views:
        view.close()
        # A refusal that a test provokes is logged by the browser itself.
        assert [text for text in view.complaints if "status of 404" not in text] == []
        assert [asked for asked in view.requests if not asked.startswith((url, "data:", "blob:"))] == []


def api(url: str, path: str):
    with urllib.request.urlopen(url + path) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def events(url):
    return api(url, "api/events?sort=area_m2")["events"]


def middle(event) -> tuple[float, float]:
    west, south, east, north = event["bounds"]
    return (west + east) / 2, (south + north) / 2


def colours(view: View, box: dict[str, float] | None = None) -> np.ndarray:
    shot = view.page.screenshot(clip=box)
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.05)


def test_load_and_slide(look, url):
    view = look()
    page = view.page
    assert page.title() == "harbour: urban change"
    assert page.inner_text("#summary").startswith("April 2021 to February 2022")
    area = page.locator("#map-left canvas").bounding_box()
    shown = colours(view, area)
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 200  # a scene, not an empty map
    assert page.inner_text("#month-name") == "February 2022"
    page.focus("#month")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#month-name") == "January 2022"
    view.settle()
    assert any("/tiles/month/2022-01/" in asked for asked in view.requests)
    assert "month=2022-01" in page.url
    assert page.get_attribute("#month", "aria-valuetext") == "January 2022"
    page.keyboard.press("Home")
    view.settle()
    assert view.values()["month"] == "2021-04"
    page.select_option("#image-left", "none")
    page.select_option("#colours", "cividis")
    view.settle()
    assert any("colours=cividis&fade=no" in asked for asked in view.requests)
    assert "Score, April 2021" in page.inner_text("#legend")


def test_status_and_its_legend(chromium, tmp_path):
    folder = tmp_path / "harbour"
    folder.mkdir()
    make_scene(folder, shape=(48, 64))
    scores = open_scores(str(folder / "scores"))
    write_rasters(scores, folder / "products" / "rasters", months=False)
    shown = {int(event.status) for event in find_events(scores)}
    with served(folder) as address:
        for options in ({}, PHONE):
            view = View(chromium, address, "#layer=status&image=none&outlines=no", **options)
            view.settle()
            legend = view.page.locator("#legend li")
            assert legend.count() == 8
            assert all(legend.nth(k).is_visible() for k in range(8))
            drawn = colours(view, view.page.locator("#map-left canvas").bounding_box()).reshape(-1, 3)
            for status in shown:
                title = STATUS_MEANINGS[status].replace("_", ", ")
                named = view.page.locator("#legend li", has_text=title).locator("i")
                swatch = named.evaluate("(one) => getComputedStyle(one).backgroundColor")
                assert swatch == "rgb({}, {}, {})".format(*STATUS_COLOURS[status][:3])
                assert (drawn == STATUS_COLOURS[status][:3]).all(axis=1).sum() > 100
            assert view.complaints == []
            view.close()


def test_play(look):
    view = look("#month=2021-04")
    view.page.click("#play")
    assert view.page.inner_text("#play") == "Pause"
    seen = set()
    until(lambda: seen.add(view.values()["month"]) or len(seen) >= 3)
    view.page.click("#play")
    assert view.page.get_attribute("#play", "aria-pressed") == "false"
    view.settle()
    stopped = view.values()["month"]
    view.page.wait_for_timeout(1200)
    assert view.values()["month"] == stopped


def test_swipe(look):
    view = look("#layer=score&image=none")
    page = view.page
    page.check("#swipe")
    page.select_option("#layer-right", "none")
    page.select_option("#image-right", "none")
    view.settle()
    page.evaluate("urbandelta.swipe.right.ready")
    page.wait_for_timeout(300)
    box = page.locator("#stage").bounding_box()
    strip = {"x": box["x"], "y": box["y"] + box["height"] * 0.3, "width": box["width"], "height": box["height"] * 0.1}
    shown = colours(view, strip)
    quarter = shown.shape[1] // 4
    left, right = shown[:, quarter : quarter + 80], shown[:, -quarter - 80 : -quarter]
    assert left.std() > right.std() + 5  # scores on the left, bare ground on the right
    handle = box["x"] + box["width"] / 2
    height = box["y"] + box["height"] / 2
    page.mouse.move(handle, height)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, height, steps=4)
    page.mouse.up()
    assert view.values()["cut"] == pytest.approx(25, abs=1)
    page.focus("#cut")
    page.keyboard.press("ArrowRight")
    assert view.values()["cut"] == pytest.approx(26, abs=1)
    assert page.inner_text("#tag-left") == "Highest score"
    page.select_option("#layer-right", "month")
    page.select_option("#month-right", "2021-09")
    view.settle()
    assert page.inner_text("#tag-right") == "Score, September 2021"
    before = page.evaluate("urbandelta.swipe.right.map.getZoom()")
    page.evaluate("urbandelta.map.jumpTo({zoom: urbandelta.map.getZoom() + 1})")
    assert page.evaluate("urbandelta.swipe.right.map.getZoom()") == pytest.approx(before + 1)
    page.uncheck("#swipe")
    assert not page.is_visible("#divider")


def test_history_of_a_pixel(look, events, url):
    view = look("#month=2021-09")
    page = view.page
    where = view.point(*middle(events[0]))
    page.click("#map-left canvas", position=where)
    page.wait_for_selector("svg.chart")
    assert page.get_attribute("#tab-pixel", "aria-selected") == "true"
    titles = page.locator("svg.chart .panel-title").all_text_contents()
    assert [title.split(",")[0] for title in titles] == [
        "Score of each window", "Backscatter VV", "Backscatter VH", "Vegetation index (NDVI)",
        "Acquisitions (faint: masked here)",
    ]  # fmt: skip
    assert "Highest score 0.9" in page.get_attribute("svg.chart", "aria-label")
    assert page.locator("svg.chart .span").count() == 12
    assert "optical: 6 of 12" in page.inner_text("#pixel-status").lower()
    assert events[0]["id"] in page.inner_text("#pixel")
    before = page.inner_text(".reading")
    page.focus(".reader")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".reading") != before
    assert "window" in page.get_attribute(".reader", "aria-valuetext")
    page.click("text=As a table")
    page.wait_for_selector("#pixel caption")
    captions = page.locator("#pixel caption").all_inner_texts()
    assert captions[0] == "Scores"
    assert "Optical, reflectance" in captions
    assert page.locator("#pixel table").first.locator("tbody tr").count() == 12
    assert "cloud" in page.locator("#pixel table").last.inner_text()
    page.fill("#place [name=latitude]", "10")
    page.press("#place [name=latitude]", "Enter")
    until(lambda: "outside the area" in page.inner_text("#pixel-status"))
    assert page.locator("svg.chart").count() == 0


def test_events_filter_and_deep_link(look, events, url):
    view = look("#tab=events")
    page = view.page
    page.wait_for_selector("#event-list a")
    assert page.inner_text("#event-count") == "2 of 2 events"
    assert page.locator("#event-list a").count() == 2
    page.fill("#filter [name=min_area_m2]", "3000")
    until(lambda: page.inner_text("#event-count") == "1 of 2 events")
    assert page.get_attribute("#event-list a", "data-event") == events[0]["id"]
    page.fill("#filter [name=until]", "2020-01-01")
    until(lambda: page.inner_text("#event-count") == "0 of 2 events")
    page.fill("#filter [name=until]", "")
    page.wait_for_selector("#event-list a")
    link = page.get_attribute("#event-list a", "href")
    page.click("#event-list a")
    page.wait_for_selector("#event-detail dl")
    assert page.get_attribute("#event-list a", "aria-current") == "true"

    linked = look(link)
    linked.page.wait_for_selector("#event-detail dl")
    assert events[0]["id"] in linked.page.inner_text("#event-detail h2")
    assert linked.page.input_value("#filter [name=min_area_m2]") == "3000"
    bare = look(f"#event={events[1]['id']}")
    bare.page.wait_for_selector("#event-detail dl")
    assert bare.page.get_attribute("#tab-events", "aria-selected") == "true"
    until(lambda: not bare.page.evaluate("urbandelta.map.isMoving()"))
    centre = bare.page.evaluate("urbandelta.map.getCenter().toArray()")
    assert centre == pytest.approx(middle(events[1]), abs=1e-3)
    # Another link in the same page, as when an address is pasted over this one.
    bare.page.evaluate("location.hash = '#event=unknown'")
    bare.page.wait_for_selector("#event-detail .problem")
    assert "no event unknown" in bare.page.inner_text("#event-detail")
    assert bare.values()["month"] == "2022-02"


def test_files(look, tmp_path):
    view = look("#tab=files&month=2021-09")
    page = view.page
    for name, check in {
        "Score, September 2021: GeoTIFF of all": _is_raster,
        "Score, September 2021: GeoTIFF of the view": _is_raster,
        "Events that the filter keeps: GeoJSON": lambda path: json.loads(path.read_text())["features"],
        "Events that the filter keeps: CSV": lambda path: path.read_text().startswith("id,"),
        "The map as a picture: PNG": _is_picture,
    }.items():
        with page.expect_download() as download:
            page.click(f'[aria-label="{name}"]')
        target = tmp_path / download.value.suggested_filename
        download.value.save_as(target)
        assert check(target), name
    assert page.inner_text("#file-status").endswith("saved.")


def _is_raster(path: Path) -> bool:
    with rasterio.open(path) as raster:
        return bool(raster.read(1).max() > 0.5)


def _is_picture(path: Path) -> bool:
    return len(np.unique(np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3), axis=0)) > 200


def test_phone(look, events):
    view = look(**PHONE)
    page = view.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for name in ("#play", "#month", "#tab-events", "#theme", "#map-left canvas"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert box["height"] >= 28
    where = view.point(*middle(events[1]))
    page.tap("#map-left canvas", position=where)
    page.wait_for_selector("svg.chart")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for tab in ("view", "events", "files", "about"):
        page.tap(f"#tab-{tab}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_keyboard_only(look, events):
    view = look()
    page = view.page
    page.keyboard.press("Tab")
    assert "skip" in view.focused()
    assert page.locator(".skip").bounding_box()["x"] > 0
    order = []
    for _ in range(14):
        page.keyboard.press("Tab")
        order.append(view.focused())
    for name in ("theme", "play", "month", "tab-view", "pane-view", "layer-left"):
        assert name in order, order
    canvas = next(name for name in order if "maplibregl-canvas" in name)
    assert order.index("theme") < order.index(canvas) < order.index("play") < order.index("tab-view")
    assert "tab-events" not in order  # one stop for all tabs; arrows go on
    page.focus("#tab-view")
    page.keyboard.press("ArrowRight")
    assert view.focused() == "tab-events"
    assert page.is_visible("#pane-events")
    page.wait_for_selector("#event-list a")
    page.focus("#event-list a")
    page.keyboard.press("Enter")
    page.wait_for_selector("#event-detail dl")
    until(lambda: not page.evaluate("urbandelta.map.isMoving()"))
    page.focus("#map-left canvas")
    before = page.evaluate("urbandelta.map.getCenter().lng")
    page.keyboard.press("ArrowRight")
    until(lambda: page.evaluate("urbandelta.map.getCenter().lng") > before)
    until(lambda: not page.evaluate("urbandelta.map.isMoving()"))
    page.keyboard.press("Enter")
    page.wait_for_selector("svg.chart")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_dark(look):
    light, dark = look(), look(color_scheme="dark")
    ground = [view.page.evaluate("getComputedStyle(document.body).backgroundColor") for view in (light, dark)]
    bright = [sum(int(part) for part in colour[4:-1].split(",")) for colour in ground]
    assert bright[0] > 600
    assert bright[1] < 120
    assert dark.page.get_attribute("#theme", "aria-pressed") == "true"
    light.page.click("#theme")
    assert light.page.evaluate("document.documentElement.dataset.theme") == "dark"
    light.page.reload()
    light.page.wait_for_selector("html[data-ready=yes]", state="attached")
    assert light.page.evaluate("getComputedStyle(document.body).backgroundColor") == ground[1]


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"])
def test_an_accessibility_checker_finds_nothing_serious(look, events, options):
    found = find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("needs axe-playwright-python, which carries axe-core")
    script = (Path(found.origin).parent / "axe.min.js").read_text("utf-8")
    longitude, latitude = middle(events[0])
    view = look(f"#event={events[0]['id']}&pixel={longitude},{latitude}&swipe=true", **options)
    page = view.page
    page.evaluate(script)
    for tab in ("view", "events", "pixel", "files", "about"):
        page.click(f"#tab-{tab}")
        if tab == "pixel":
            page.wait_for_selector("svg.chart")
            page.click("text=As a table")
        problems = page.evaluate("axe.run().then(({violations}) => violations)")
        serious = [
            (one["id"], one["help"], [node["html"] for node in one["nodes"]])
            for one in problems
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], tab
