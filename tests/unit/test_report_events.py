from __future__ import annotations

import numpy as np
import pytest
import shapely
from event_scene import GRID, scores_of
from report_scene import make_scene

from urbandelta.cartography import MapFrame
from urbandelta.events import find_events
from urbandelta.grid import Grid
from urbandelta.report import write_report
from urbandelta.report_events import event_sentence, event_view, interval_text, svg_path
from urbandelta.report_quality import masked_shares, percent, quality_view
from urbandelta.store import create_cube, open_cube
from urbandelta.types import Acquisition

SPAN = (np.datetime64("2020-01-01"), np.datetime64("2021-08-01"))
CHARTS = (("wide", 1040), ("narrow", 350))
TWO = [(slice(2, 8), slice(2, 8), 200), (slice(14, 20), slice(12, 20), 300)]


@pytest.fixture(scope="module")
def events():
    return find_events(scores_of(TWO))


def test_events_are_listed_by_date_with_outlines_in_pixels_and_a_timeline(events):
    view = event_view(events, MapFrame(GRID), charts=CHARTS, span=SPAN)
    assert view["count"] == len(events) == 2
    assert [row["number"] for row in view["rows"]] == [1, 2]
    assert view["rows"][0]["id"] == min(events, key=lambda event: event.first_date).id
    assert [shape["id"] for shape in view["shapes"]] == [row["id"] for row in view["rows"]]
    assert view["shapes"][0]["path"] == "M2 8L2 2L8 2L8 8Z"
    assert 100 * 2 / 24 < view["shapes"][0]["x"] < 100 * 8 / 24
    assert sum(row["count"] for row in view["stages"]) == 2
    assert all("<svg" in chart for chart in view["charts"].values())
    assert event_sentence(events).startswith("2 events are followed (")


def test_without_events_there_is_no_chart_and_a_plain_sentence():
    view = event_view([], MapFrame(GRID), charts=CHARTS, span=SPAN)
    assert (view["count"], view["charts"], view["rows"]) == (0, None, [])
    assert "No group of pixels" in event_sentence([])


def test_outlines_keep_their_holes():
    ring = shapely.box(600_000, 5_599_960, 600_040, 5_600_000) - shapely.box(600_010, 5_599_970, 600_030, 5_599_990)
    assert svg_path(ring, GRID).count("M") == 2


def test_intervals_name_the_year_once_where_it_is_the_same():
    low, high = np.datetime64("2019-04-08"), np.datetime64("2019-07-07")
    assert interval_text(low, high) == "8 Apr to 7 Jul 2019"
    assert interval_text(low, np.datetime64("2020-01-02")) == "8 Apr 2019 to 2 Jan 2020"


def test_shares_of_masks_count_each_reason(tmp_path):
    cube = create_cube(str(tmp_path / "c"), era="s12", grid=Grid(GRID.crs, GRID.transform, 4, 5))
    mask = np.zeros((4, 5), np.uint8)
    mask[0], mask[1] = 2, 6  # cloud; cloud and its shadow
    values = np.ones((4, 5, 1), np.uint16)
    cube.append(
        "optical",
        [
            Acquisition(time=SPAN[0] + k, values=values, scale=1e-4, mask=m, bands=("B02",), platform="a")
            for k, m in enumerate((mask, mask * 0))
        ],
    )
    assert masked_shares(cube, "optical") == {"cloud": 0.25, "cloud shadow": 0.125}
    assert [percent(share) for share in (0.0, 0.001, 0.25)] == ["0 %", "< 1 %", "25 %"]
    assert quality_view(open_cube(cube.url), [], charts=CHARTS) is None


def test_events_that_are_passed_in_are_those_on_the_page(tmp_path, events):
    scores, _ = make_scene(tmp_path, shape=(24, 24), optical=False, truth=False, windows=3)
    summary = write_report(scores, tmp_path / "r.html", events=events)
    text = (tmp_path / "r.html").read_text()
    assert summary.events == 2
    for event in events:
        assert text.count(f'id="event-{event.id}"') == 1
        assert text.count(f'href="#event-{event.id}"') == 2
    assert "Observations a month" in text
