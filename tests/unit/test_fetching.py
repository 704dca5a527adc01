"""Storing offers: order, memory, failures, what is remembered. Sources are stand-ins; servers come in tests/e2e."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from urbandelta.errors import ConfigError, FetchError, SourceError
from urbandelta.fetching import store_offers
from urbandelta.grid import Grid
from urbandelta.ledger import Ledger
from urbandelta.offers import Held, Offer, StreamOffers, Unusable, next_action
from urbandelta.sources.reading import OffsetContradiction
from urbandelta.store import open_cube
from urbandelta.types import Acquisition

GRID = Grid("EPSG:32631", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), 4, 4)
INSIDE = np.ones((4, 4), np.bool_)


class Source:
    """Offers whose reads can fail, and that count how many are held at once."""

    def __init__(self, count: int, *, failing=None, stream: str = "s1_asc") -> None:
        self.failing = failing or {}
        self.stream = stream
        self.lock = threading.Lock()
        self.reads: list[str] = []
        self.offers = tuple(self.offer(number) for number in range(count))

    def offer(self, number: int) -> Offer:
        def read(workspace):
            with self.lock:
                self.reads.append(f"item{number}")
            if number in self.failing:
                raise self.failing[number]
            return self.acquisition(number)

        return Offer(
            stream=self.stream,
            time=np.datetime64("2020-01-01", "ns") + np.timedelta64(number, "D"),
            item_id=f"item{number}",
            read=read,
            platform="S1A",
            relative_orbit=88,
            bands=2,
        )

    def acquisition(self, number: int) -> Acquisition:
        return Acquisition(
            time=np.datetime64("2020-01-01", "ns") + np.timedelta64(number, "D"),
            values=np.full((4, 4, 2), number + 1, np.float32),
            mask=np.full((4, 4), number % 5 == 4, np.uint8),
            bands=("VV", "VH"),
            item_id=f"item{number}",
            platform="S1A",
            relative_orbit=88,
            orbit_state="ascending",
        )

    def found(self, **more) -> list[StreamOffers]:
        return [StreamOffers(stream=self.stream, offers=self.offers, **more)]


def store(tmp_path, found, **options):
    return store_offers(
        found,
        cube_url=str(tmp_path / "cube"),
        era="s12",
        grid=GRID,
        inside=INSIDE,
        ledger=Ledger(tmp_path / "ledger.jsonl"),
        **options,
    )


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_stores_in_order_whatever_the_workers(tmp_path, workers):
    source = Source(12)
    seen = []
    report = store(tmp_path, source.found(), workers=workers, progress=lambda *words: seen.append(words[:2]))
    cube = open_cube(str(tmp_path / "cube"))
    # Every fifth has no valid pixel.
    assert list(cube.acquisitions("s1_asc")["item_id"].values) == [f"item{n}" for n in range(12) if n % 5 != 4]
    assert (report.added, report.empty, report.missing) == ({"s1_asc": 10}, 2, ())
    assert report.snapshot == cube.snapshot
    assert seen == [(n, 12) for n in range(1, 13)]
    assert [entry.verdict for entry in Ledger(tmp_path / "ledger.jsonl").entries()] == ["empty", "empty"]


def test_a_second_fetch_reads_nothing(tmp_path):
    store(tmp_path, Source(6).found())
    again = Source(6)
    report = store(tmp_path, again.found())
    assert again.reads == []
    assert (report.added, report.skipped) == ({"s1_asc": 0}, 6)


def test_what_fails_is_listed_and_everything_else_stored(tmp_path):
    failing = {1: FetchError("https://host/a.tif: ends early"), 3: SourceError("https://host/b.tif: damaged")}
    report = store(tmp_path, Source(6, failing=failing).found(), workers=2)
    assert [(item.item_id, item.reason) for item in report.missing] == [
        ("item1", "https://host/a.tif: ends early"),
        ("item3", "https://host/b.tif: damaged"),
    ]
    assert not report.complete
    repaired = store(tmp_path, Source(6).found())
    assert repaired.added == {"s1_asc": 2}
    assert repaired.complete
    assert open_cube(str(tmp_path / "cube")).acquisitions("s1_asc").sizes["time"] == 5


def test_an_archive_that_is_down_is_not_asked_a_thousand_times(tmp_path):
    source = Source(60, failing={number: FetchError("down") for number in range(60)})
    report = store(tmp_path, source.found(), workers=2)
    assert len(report.missing) == 60
    assert len(source.reads) <= 8 + 2
    assert "not tried" in report.missing[-1].reason
    assert not (tmp_path / "cube").exists()


def test_a_source_that_cannot_be_searched_is_missing_as_a_whole(tmp_path):
    unasked = StreamOffers(stream="optical", failure="https://host: no answer", where="sentinel-2-l1c of archive")
    report = store(tmp_path, [*Source(2).found(), unasked])
    assert report.added == {"s1_asc": 2, "optical": 0}
    assert [item.stream for item in report.missing] == ["optical"]
    assert "search" in report.missing[0].item_id


def test_contradictions_are_refused_and_remembered(tmp_path):
    source = Source(3, failing={1: OffsetContradiction("item1: below 0")})
    assert store(tmp_path, source.found()).refused == 1
    again = Source(3, failing=source.failing)
    assert store(tmp_path, again.found()).skipped == 3
    assert again.reads == []


def test_unusable_items_are_told_once(tmp_path):
    unusable = (Unusable(item_id="half", time=np.datetime64("2020-01-01", "ns"), reason="has no asset for VH"),)
    assert store(tmp_path, Source(1).found(unusable=unusable)).refused == 1
    assert store(tmp_path, Source(1).found(unusable=unusable)).refused == 0


def test_bugs_are_no_missing_items(tmp_path):
    with pytest.raises(ZeroDivisionError):
        store(tmp_path, Source(3, failing={1: ZeroDivisionError()}).found())


def test_a_late_granule_changes_nothing_stored(tmp_path):
    store(tmp_path, Source(1).found())
    offer = dataclasses.replace(
        Source(1).offers[0], item_id="item0 + neighbour", time=np.datetime64("2019-12-31T23:59:35", "ns")
    )
    report = store(tmp_path, [StreamOffers(stream="s1_asc", offers=(offer,))])
    assert (report.added, report.late) == ({"s1_asc": 0}, 1)
    assert Ledger(tmp_path / "ledger.jsonl").entries()[0].reason == "its pass is stored from item0"


def test_decisions(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    offer = Source(1).offers[0]
    held = Held(
        times=np.array(["2020-01-01T00:00:40"], "datetime64[ns]"),
        item_ids=("other",),
        platforms=("S1A",),
        relative_orbits=(88,),
    )
    assert next_action(offer, Held(), ledger)[0] == "fetch"
    assert next_action(offer, held, ledger)[0] == "late"
    for difference in ({"platforms": ("S1B",)}, {"relative_orbits": (15,)}):
        assert next_action(offer, dataclasses.replace(held, **difference), ledger)[0] == "fetch"
    assert next_action(offer, dataclasses.replace(held, platforms=("",), relative_orbits=(-1,)), ledger)[0] == "late"


def test_workers_must_be_some(tmp_path):
    with pytest.raises(ConfigError, match="workers"):
        store(tmp_path, Source(1).found(), workers=0)
