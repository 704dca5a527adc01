from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from event_scene import GRID, scores_of

from urbandelta.errors import EventError
from urbandelta.event_feed import read_feed, update_feed
from urbandelta.events import AlertStatus, find_events

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SITES = [(slice(2, 7), slice(2, 7), 200), (slice(15, 20), slice(3, 9), 320)]


@pytest.fixture(scope="module")
def scores():
    return scores_of(SITES, windows=60)


def kinds(lines):
    return [line.kind for line in lines]


def test_every_state_is_told_once(scores, tmp_path):
    path = tmp_path / "feed" / "events-feed.jsonl"
    seen = []
    for count in range(5, 60, 3):
        events = find_events(scores.isel(window=slice(0, count)))
        added = update_feed(path, events, grid=GRID, moment=MOMENT)
        assert update_feed(path, events, grid=GRID, moment=MOMENT) == []
        seen += added
    assert read_feed(path) == seen
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == kinds(seen)
    states = [(line.id, line.digest) for line in seen if line.kind != "withdrawn"]
    assert len(set(states)) == len(states)
    for event in find_events(scores):
        told = [line for line in seen if line.id == event.id]
        assert told[0].kind == "new"
        assert told[-1].kind == "finished"
        assert [line.kind for line in told].count("confirmed") <= 1
        assert told[-1].event["properties"]["stage"] == "finished"
        assert told[-1].time == "2026-01-02T03:04:05Z"


def test_what_disappears_is_withdrawn_once_and_may_come_back(scores, tmp_path):
    path = tmp_path / "feed.jsonl"
    events = find_events(scores)
    assert kinds(update_feed(path, events, grid=GRID)) == ["new", "new"]
    (line,) = update_feed(path, events[1:], grid=GRID)
    assert (line.kind, line.id, line.replaced_by) == ("withdrawn", events[0].id, None)
    assert update_feed(path, events[1:], grid=GRID) == []
    assert kinds(update_feed(path, events, grid=GRID)) == ["new"]


def test_an_event_that_got_another_name_says_which(scores, tmp_path):
    path = tmp_path / "feed.jsonl"
    events = find_events(scores)
    update_feed(path, events, grid=GRID)
    renamed = [replace(events[0], id="f" * 16), events[1]]
    new, gone = update_feed(path, renamed, grid=GRID)
    assert (new.kind, gone.kind, gone.replaced_by) == ("new", "withdrawn", "f" * 16)
    years_later = replace(renamed[0], id="e" * 16, first_low=np.datetime64("2030-01-01"))
    later = [years_later, events[1]]
    assert update_feed(path, later, grid=GRID)[-1].replaced_by is None


def test_steps_forward_have_kinds_of_their_own(scores, tmp_path):
    path = tmp_path / "feed.jsonl"
    (event,) = find_events(scores)[:1]
    steps = [
        (AlertStatus.FIRST_LOW, "new"),
        (AlertStatus.PROVISIONAL_LOW, "updated"),
        (AlertStatus.PROVISIONAL_HIGH, "updated"),
        (AlertStatus.CONFIRMED_HIGH, "confirmed"),
        (AlertStatus.FINISHED_HIGH, "finished"),
        (AlertStatus.FINISHED_LOW, "updated"),
        (AlertStatus.CONFIRMED_LOW, "updated"),
    ]
    for status, kind in steps:
        assert kinds(update_feed(path, [replace(event, status=status)], grid=GRID)) == [kind]


def test_half_a_line_of_a_killed_run_is_written_again(scores, tmp_path):
    path = tmp_path / "feed.jsonl"
    events = find_events(scores)
    update_feed(path, events, grid=GRID, moment=MOMENT)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert len(read_feed(path)) == 1
    assert len(update_feed(path, events, grid=GRID, moment=MOMENT)) == 1
    assert path.read_bytes() == whole


def test_foreign_files_are_refused_and_untouched(scores, tmp_path):
    path = tmp_path / "feed.jsonl"
    path.write_text("hello\n")
    with pytest.raises(EventError, match="line 1 is no line of a feed"):
        update_feed(path, find_events(scores), grid=GRID)
    assert path.read_text() == "hello\n"
    with pytest.raises(EventError, match="cannot write this feed"):
        update_feed(path / "below", find_events(scores), grid=GRID)
