"""What is read at the same time, and in which order it is handed over. Sources are stand-ins."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urbandelta import read_ahead
from urbandelta.errors import FetchError, SourceError
from urbandelta.grid import Grid
from urbandelta.offers import Offer
from urbandelta.read_ahead import read_in_order

GRID = Grid("EPSG:32631", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), 4, 4)


class Reader:
    """Offers whose reads return their own names, and note when they begin."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.changed = threading.Condition()

    def offers(self, stream: str, count: int, *, bands: int = 2, failing=None) -> list[Offer]:
        return [self.offer(stream, number, bands, (failing or {}).get(number)) for number in range(count)]

    def offer(self, stream: str, number: int, bands: int, failure: Exception | None) -> Offer:
        name = f"{stream}{number}"

        def read(workspace):
            with self.changed:
                self.begun.append(name)
                self.changed.notify_all()
            if failure is not None:
                raise failure
            return name

        time = np.datetime64("2020-01-01", "ns") + np.timedelta64(number, "D")
        return Offer(stream=stream, time=time, item_id=name, read=read, bands=bands)


def begun_when_first_arrives(reader, offers, count, grid=GRID, **options):
    """Names of what is being read, or was, when the first acquisition is handed over: `count` of them, it is hoped."""
    arriving = read_in_order(offers, grid, **options)
    next(arriving)
    with reader.changed:
        reader.changed.wait_for(lambda: len(reader.begun) >= count, timeout=20)
    arriving.close()  # waits for the threads
    return reader.begun


@pytest.mark.parametrize(
    ("rows", "columns", "bands", "ahead"), [(4, 4, 2, 16), (2000, 2500, 2, 6), (2000, 2500, 13, 1)]
)
def test_memory_decides_how_many_are_read_ahead(rows, columns, bands, ahead):
    reader = Reader()
    grid = Grid("EPSG:32631", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), rows, columns)
    # The first is handed over, so it counts no longer.
    begun = begun_when_first_arrives(reader, reader.offers("a", 40, bands=bands), 1 + ahead, grid)
    assert len(begun) == 1 + ahead


@pytest.mark.parametrize(("workers", "expected"), [(None, ["a0", "a1", "b0", "b1"]), (2, ["a0", "a1", "b0"])])
def test_the_next_stream_is_read_while_one_is_stored(workers, expected):
    reader = Reader()
    offers = [*reader.offers("a", 2), *reader.offers("b", 2)]
    assert sorted(begun_when_first_arrives(reader, offers, len(expected), workers=workers)) == expected


def test_a_stream_that_is_down_does_not_keep_another_from_being_read():
    reader = Reader()
    down = {number: FetchError("down") for number in range(40)}
    offers = [*reader.offers("a", 40, failing=down), *reader.offers("b", 3)]
    outcomes = dict(zip([offer.item_id for offer in offers], read_in_order(offers, GRID, workers=2), strict=True))
    assert [outcomes[f"b{number}"][1] for number in range(3)] == ["b0", "b1", "b2"]
    assert str(outcomes["a7"][1]) == "down"
    assert "not tried" in str(outcomes["a8"][1])
    assert len([name for name in reader.begun if name.startswith("a")]) <= 8 + 2


def test_bugs_end_it():
    reader = Reader()
    with pytest.raises(ZeroDivisionError):
        list(read_in_order(reader.offers("a", 3, failing={1: ZeroDivisionError()}), GRID))


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["good", "source", "fetch"]), max_size=30),
    workers=st.none() | st.integers(1, 5),
)
def test_order_and_outcomes_do_not_depend_on_workers(kinds, workers):
    errors = {"source": SourceError("damaged"), "fetch": FetchError("down")}
    failing = {number: errors[kind] for number, kind in enumerate(kinds) if kind != "good"}
    offers = Reader().offers("a", len(kinds), failing=failing)
    expected, failures = [], 0
    for kind, offer in zip(kinds, offers, strict=True):
        if failures >= read_ahead._GIVE_UP:
            expected.append("not tried")
            continue
        failures = failures + 1 if kind == "fetch" else 0 if kind == "good" else failures
        expected.append(offer.item_id if kind == "good" else str(errors[kind]))
    seen = [(offer.item_id, str(outcome)) for offer, outcome in read_in_order(offers, GRID, workers=workers)]
    assert [name for name, _ in seen] == [offer.item_id for offer in offers]
    assert [outcome[: len(words)] for (_, outcome), words in zip(seen, expected, strict=True)] == expected
