"""Whole chains through the command line: the demo, and published weights imported as an own file."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy.testing as npt
import pytest
from command import Run, runner

from urbandelta.scores import open_scores

RESOURCE = re.compile(
    r"""(?:\bsrc|\bhref|\bposter|\bdata)\s*=\s*["']?\s*(?:https?:)?//|url\(\s*["']?(?:https?:)?//|@import"""
)


@pytest.fixture
def run(capfd) -> Run:
    return runner(capfd)


def stored(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_demo_from_nothing_to_a_report_and_again(run, tmp_path):
    out = tmp_path / "demo"
    words = ("demo", "--out", out, "--size", 48, "--months", 14)
    made = run(*words, "--json").document()
    assert made.pop("serve").split() == ["urbandelta", "serve", made["scores"], "--cube", made["cube"]]
    assert {name: Path(path).exists() for name, path in made.items()} == dict.fromkeys(made, True)
    scores = open_scores(made["scores"])
    assert scores.attrs["complete"]
    assert scores.sizes["window"] > 0
    assert scores["score"].notnull().any()

    page = Path(made["report"]).read_text(encoding="utf-8")
    assert Path(made["report"]) == out / "report.html"
    assert "data:image/" in page
    assert not RESOURCE.search(page)
    assert "<script src" not in page

    before = stored(out / "scores"), stored(out / "cube")
    again = run(*words)
    assert again.code == 0, again.err
    assert (stored(out / "scores"), stored(out / "cube")) == before


def test_the_pattern_for_loaded_resources_finds_them():
    for text in ('<img src="https://x/y.png">', "<link href=//x>", "url('http://x')", '@import "x.css"'):
        assert RESOURCE.search(text)
    assert not RESOURCE.search('<a name="x">https://example.org</a><img src="data:image/png;base64,AA">')


@pytest.mark.parametrize("era", ["s12", "ers12ls5"])
def test_published_weights_as_an_own_file_give_the_same_scores(run, reference, make_cube, tmp_path, era):
    published = published_weights(reference, era)
    own = tmp_path / "own.safetensors"
    imported = run("weights", "import", published, "--out", own, "--json").document()
    verified = run("weights", "verify", own, "--json").document()
    assert verified["ok"]
    assert verified["sha256"] == imported["sha256"] == run("weights", "show", published, "--json").document()["sha256"]

    cube = make_cube(era=era).url
    found = []
    for number, weights in enumerate((published, own)):
        scores = tmp_path / f"scores{number}"
        done = run("predict", cube, "--weights", weights, "--out", scores, "--tile", 12, "--halo", 2)
        assert done.code == 0, done.err
        found.append(open_scores(str(scores))["score"].to_numpy())
    npt.assert_array_equal(*found)
    # The same network is the same run, so the other file resumes it, and has nothing left to do.
    before = stored(tmp_path / "scores0")
    words = ("predict", cube, "--weights", own, "--out", tmp_path / "scores0", "--tile", 12, "--halo", 2)
    assert run(*words).code == 0
    assert stored(tmp_path / "scores0") == before


def published_weights(reference: Path, era: str) -> Path:
    """The first published Keras file of an era."""
    found = [path for path in sorted(reference.rglob("*.hdf5")) if ("ers" in path.name.lower()) == (era == "ers12ls5")]
    if not found:
        pytest.skip(f"no published weights of {era}")
    return found[0]


def test_half_imported_weights_are_not_left_behind(run, reference, tmp_path):
    published = published_weights(reference, "s12")
    target = tmp_path / "full"
    target.mkdir()
    shutil.copy(published, target / "own.safetensors")
    before = stored(target)
    assert run("weights", "import", published, "--out", target / "own.safetensors").code == 1
    assert run("weights", "import", published, "--out", target / "absent" / "own.safetensors").code == 1
    assert stored(target) == before
