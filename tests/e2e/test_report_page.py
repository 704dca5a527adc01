"""The report as a reader meets it: made by the command line, opened in a browser without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from headless_chromium import CHROMIUM, chromium
from report_scene import make_scene

from urbandelta.scores import open_scores

pytestmark = pytest.mark.slow
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def urbandelta(*words: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "urbandelta", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "error"})
    assert done.returncode == expect, done.stderr
    return done


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    make_scene(folder, shape=(48, 64))
    return folder


@pytest.fixture(scope="module")
def report(scene):
    out = urbandelta("report", scene / "scores", "--out", scene / "report.html", "--title", "Harbour", "--json")
    return scene / "report.html", json.loads(out.stdout)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def test_the_command_prints_the_main_figures(report):
    path, figures = report
    assert figures["path"] == str(path)
    assert figures["bytes"] == path.stat().st_size
    assert figures["patches"] == 2
    assert figures["f1"] == 1.0


def test_export_prints_what_it_wrote_and_then_that_nothing_is_new(scene, tmp_path):
    first = urbandelta("export", scene / "scores", "--to", tmp_path / "maps")
    assert sorted(Path(line).name for line in first.stdout.split()) == sorted(os.listdir(tmp_path / "maps"))
    again = urbandelta("export", scene / "scores", "--to", tmp_path / "maps")
    assert again.stdout == ""
    assert "6 files hold the same already" in again.stderr
    each = urbandelta("export", scene / "scores", "--to", tmp_path / "w", "--each", "window", "--json")
    assert len(json.loads(each.stdout)["written"]) == 12


@pytest.mark.parametrize(
    "words",
    [
        ("report", "nowhere", "--out", "r.html"),
        ("report", "SCORES", "--out", "no/such/folder/r.html"),
        ("report", "SCORES", "--out", "r.html", "--threshold", "7"),
        ("report", "SCORES", "--out", "r.html", "--truth", "nothing.tif"),
        ("export", "nowhere", "--to", "maps"),
        ("export", "SCORES", "--to", "FILE"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_1(scene, tmp_path, words):
    (tmp_path / "file").write_text("in the way")
    places = {"SCORES": scene / "scores", "FILE": tmp_path / "file"}
    done = urbandelta(*(places.get(word, word) for word in words), expect=1)
    lines = [line for line in done.stderr.splitlines() if "maps" not in line]
    assert "Traceback" not in done.stderr
    assert len([line for line in lines if line.strip()]) == 1


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_the_page_fits_its_window_and_asks_for_nothing_else(page, report, tmp_path, width, dark):
    path, _ = report
    page.open(path, width=width, dark=dark)
    assert page.requests() == [path.as_uri()]
    assert page.complaints() == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    lightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    assert (sum(page.evaluate(lightness)) < 3 * 128) is dark
    shown = "[...document.querySelectorAll('.chart')].map(c => c.getBoundingClientRect().height > 0)"
    assert page.evaluate(shown) == ([True, False] * 4 if width > 760 else [False, True] * 4)
    # Charts are drawn for their column: text that shrinks below 9 px on a phone is not legible.
    small = (
        "Math.min(...[...document.querySelectorAll('.chart text')].map(t => t.getBoundingClientRect().height)"
        ".filter(h => h > 0))"
    )
    assert page.evaluate(small) >= 9


@needs_browser
def test_an_outline_on_the_map_leads_to_the_row_of_its_event(page, report):
    page.open(report[0])
    ids = page.evaluate("[...document.querySelectorAll('#events .over a')].map(a => a.getAttribute('href').slice(1))")
    assert len(ids) == report[1]["events"] == 2
    page.evaluate("document.querySelector('#events .over a').focus()")
    page.press("Enter")
    page.evaluate("document.querySelector('#events .over a').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert page.evaluate("location.hash") == f"#{ids[0]}"
    assert page.evaluate("document.querySelector('tr:target').id") == ids[0]


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_an_accessibility_checker_finds_nothing(page, report, dark):
    found = find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("needs axe-playwright-python, which carries axe-core")
    page.open(report[0], dark=dark)
    page.evaluate((Path(found.origin).parent / "axe.min.js").read_text("utf-8") + "; 0")
    passed, problems = page.evaluate("axe.run().then(r => [r.passes.length, r.violations.map(v => [v.id, v.help])])")
    assert passed > 10
    assert problems == []


@needs_browser
def test_the_divider_moves_by_keyboard(page, report):
    page.open(report[0])
    page.evaluate("document.querySelector('#swipe input').focus()")
    for _ in range(3):
        page.press("ArrowRight")
    assert page.evaluate("document.getElementById('swipe').style.getPropertyValue('--cut')") == "53%"
    clip = "getComputedStyle(document.querySelectorAll('#swipe .stage img')[1]).clipPath"
    assert page.evaluate(clip) == "inset(0px 0px 0px 53%)"


@needs_browser
def test_the_series_plays_and_can_be_stepped_by_keyboard(page, report):
    page.open(report[0])
    page.evaluate("document.getElementById('time').value = 0; document.getElementById('time').focus()")
    page.press("ArrowRight")
    labels = page.evaluate("[...document.querySelectorAll('#multiples li')].map(li => li.dataset.label)")
    assert page.evaluate("document.getElementById('now').textContent") == labels[1]
    assert page.evaluate("document.getElementById('time').getAttribute('aria-valuetext')") == labels[1]
    page.evaluate("document.getElementById('play').focus()")
    page.press("Enter")
    page.evaluate("document.getElementById('play').click()")
    moved = (
        "new Promise(done => { const now = document.getElementById('now'), before = now.textContent;"
        "new MutationObserver(() => done(now.textContent !== before)).observe(now, {childList: true}); })"
    )
    assert page.evaluate(moved) is True


@needs_browser
def test_a_pixel_picked_in_the_map_shows_the_scores_of_the_store(page, report, scene):
    page.open(report[0])
    page.evaluate("Promise.all([...document.images].map(i => i.decode()))")
    text = "document.getElementById('probe-text').textContent"
    scores = open_scores(str(scene / "scores"))["score"].values.max(axis=0)
    page.evaluate("document.getElementById('stage').focus()")
    before, after = page.evaluate(text), page.press("ArrowDown") or page.evaluate(text)
    (column, row), (same, below) = (
        map(int, re.findall(r"Column (\d+), row (\d+)", said)[0]) for said in (before, after)
    )
    assert (same, below) == (column, row + 1)
    shown = float(after.rsplit("highest score ", 1)[1].split()[0])
    assert shown == pytest.approx(float(scores[below - 1, same - 1]), abs=0.008)  # 8 bit, two decimals


@needs_browser
def test_without_script_everything_stays_in_sight(page, report):
    page.open(report[0], script=False)
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    images = "[...document.querySelectorAll('#swipe .stage img')]"
    boxes = page.evaluate(f"{images}.map(i => i.getBoundingClientRect()).map(r => [r.x, r.width])")
    assert boxes[1][0] >= boxes[0][0] + boxes[0][1]
    assert page.evaluate("document.getElementById('play').getBoundingClientRect().width") == 0
    assert page.evaluate("document.querySelector('#multiples img').getBoundingClientRect().width") > 50


@needs_browser
def test_the_page_prints(page, report):
    page.open(report[0])
    assert page.pdf().startswith(b"%PDF")
