from __future__ import annotations

import numpy as np

from urbandelta.fetch_plan import FetchPlan, gaps_of, months_of, plan_stream
from urbandelta.grid import Grid
from urbandelta.offers import Offer, StreamOffers

GRID = Grid("EPSG:32631", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), 100, 50)
START, END = np.datetime64("2021-09-01", "ns"), np.datetime64("2022-04-01", "ns")


def offer(day: str, platform: str, *, size: int | None = 1000) -> Offer:
    return Offer(
        stream="s1_asc",
        time=np.datetime64(day, "ns"),
        item_id=day,
        read=lambda workspace: None,
        platform=platform,
        relative_orbit=88,
        bands=2,
        bytes=size,
    )


OFFERS = tuple(
    [offer(f"2021-{month}-{day}", "S1A") for month in ("09", "10", "11", "12") for day in ("02", "14")]
    + [offer(f"2021-{month}-08", "S1B") for month in ("09", "10", "11", "12")]
    + [offer("2022-03-02", "S1A")]
)


def plan(offers=OFFERS, actions=None):
    found = StreamOffers(stream="s1_asc", where="rtc of archive", offers=offers)
    return plan_stream(found, actions or ["fetch"] * len(offers), grid=GRID, kind="sar", start=START, end=END)


def test_counts_months_with_the_empty_ones():
    made = plan()
    assert list(made.months) == ["2021-09", "2021-10", "2021-11", "2021-12", "2022-01", "2022-02", "2022-03"]
    assert list(made.months.values()) == [3, 3, 3, 3, 0, 0, 1]
    assert made.total == 13
    assert made.gaps == ("2022-01..2022-02",)
    assert months_of([], START, np.datetime64("2021-10-01", "ns")) == {"2021-09": 0}


def test_tells_when_a_satellite_was_lost():
    assert plan().notes == ("S1B until 2021-12-08",)
    assert [(span.platform, span.count) for span in plan().platforms] == [("S1A", 9), ("S1B", 4)]


def test_counts_bytes_of_what_is_new_only():
    actions = ["stored"] * 10 + ["fetch", "noted", "late"]
    made = plan(actions=actions)
    assert (made.new, made.stored, made.noted, made.late) == (1, 10, 1, 1)
    assert made.transfer_bytes == 1000
    assert made.stored_bytes == round(100 * 50 * (2 * 3.4 + 0.05))
    unknown = plan((*OFFERS, offer("2022-03-14", "S1A", size=None)))
    assert unknown.transfer_bytes is None
    whole = FetchPlan(start="2021-09-01", end="2022-04-01", shape=GRID.shape, streams=(made, unknown))
    assert (whole.new, whole.transfer_bytes) == (15, None)


def test_gaps_are_runs():
    assert gaps_of({"a": 0, "b": 1, "c": 0, "d": 0, "e": 0, "f": 2}) == ("a", "c..e")
    assert gaps_of({"a": 1}) == ()
