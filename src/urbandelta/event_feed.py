"""The feed of events: one JSON line for each event that is new or has changed since the last run.

The feed is its own memory: the last line of an event tells its state, so a run that finds nothing new adds nothing,
and no state is told twice. Lines are only ever appended; those of one run are written at once, and what a killed run
left of a line is removed by the next.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from urbandelta.errors import EventError
from urbandelta.event_files import feature
from urbandelta.events import Event
from urbandelta.grid import Grid

__all__ = ["FEED_NAME", "FeedKind", "FeedLine", "changes_since", "read_feed", "update_feed"]

FEED_NAME = "events-feed.jsonl"
FeedKind: TypeAlias = Literal["new", "updated", "confirmed", "finished", "withdrawn"]
_STAGES = ("first", "provisional", "confirmed", "finished")


@dataclass(frozen=True, kw_only=True)
class FeedLine:
    """What happened to one event in one run."""

    kind: FeedKind
    time: str
    """When the run took place, ISO 8601 in UTC."""
    id: str
    digest: str
    """Of the event's properties and outline: two lines of one event with the same digest tell the same state."""
    event: Mapping[str, Any]
    """GeoJSON feature, in degrees; of a withdrawn event, its last state."""
    replaced_by: str | None = None
    """The event that a withdrawn one has grown into, if there is one where and when it was."""

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values, `replaced_by` only where there is one."""
        line = {"kind": self.kind, "time": self.time, "id": self.id, "digest": self.digest}
        return {**line, **({"replaced_by": self.replaced_by} if self.replaced_by else {}), "event": self.event}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FeedLine:
        """The inverse of `to_json`."""
        return cls(
            kind=values["kind"],
            time=values["time"],
            id=values["id"],
            digest=values["digest"],
            event=values["event"],
            replaced_by=values.get("replaced_by"),
        )


def read_feed(path: str | Path) -> list[FeedLine]:
    """All whole lines of a feed, oldest first; none if there is no file.

    Raises
    ------
    EventError
        If a line is not one of a feed.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break  # a run was killed while it wrote
            try:
                lines.append(FeedLine.from_json(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise EventError(
                    f"{path}: line {number} is no line of a feed of events; move the file away to begin a new one"
                ) from error
    return lines


def changes_since(
    known: Sequence[FeedLine], events: Sequence[Event], *, grid: Grid, moment: datetime | None = None
) -> list[FeedLine]:
    """Lines that the events of a run add to a feed: first those of the events in their order, then the withdrawn.

    Parameters
    ----------
    known : sequence of FeedLine
        The feed so far.
    events : sequence of Event
        All events of the run.
    grid : Grid
        Whose CRS the outlines are in.
    moment : datetime, optional
        Time of the run; by default now.
    """
    time = (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {line.id: line for line in known}
    lines, features = [], {}
    for event in events:
        features[event.id] = shown = feature(event, grid.crs)
        digest = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]
        before = state.get(event.id)
        if before is None or before.kind == "withdrawn":
            lines.append(FeedLine(kind="new", time=time, id=event.id, digest=digest, event=shown))
        elif before.digest != digest:
            kind = _kind(before.event["properties"]["stage"], event.stage)
            lines.append(FeedLine(kind=kind, time=time, id=event.id, digest=digest, event=shown))
    gone = [line for line in state.values() if line.kind != "withdrawn" and line.id not in features]
    heirs = _heirs([line.event for line in gone], list(features.values()))
    for line, heir in zip(gone, heirs, strict=True):
        lines.append(
            FeedLine(kind="withdrawn", time=time, id=line.id, digest=line.digest, event=line.event, replaced_by=heir)
        )
    return lines


def update_feed(
    path: str | Path, events: Sequence[Event], *, grid: Grid, moment: datetime | None = None
) -> list[FeedLine]:
    """Append to a feed what is new or changed, and return it; a second call with the same events adds nothing.

    Parameters are those of `changes_since`. Callers see to it that one process at a time writes.

    Raises
    ------
    EventError
        If the file holds something else or cannot be written.
    """
    path = Path(path)
    lines = changes_since(read_feed(path), events, grid=grid, moment=moment)
    if lines:
        _append(path, b"".join(json.dumps(line.to_json(), separators=(",", ":")).encode() + b"\n" for line in lines))
    return lines


def _append(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            whole = file.read()
            file.truncate(whole.rfind(b"\n") + 1)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise EventError(f"{path}: cannot write this feed ({error}); check its folder and the free space") from error


def _kind(before: str, now: str) -> FeedKind:
    """What a changed event is told as: a step forward by its stage, all else as an update."""
    if _STAGES.index(now) > _STAGES.index(before) and now in ("confirmed", "finished"):
        return "confirmed" if now == "confirmed" else "finished"
    return "updated"


def _heirs(gone: Sequence[Mapping[str, Any]], present: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """For each event that is gone, the present one that covers most of it in time and place."""
    if not gone or not present:
        return [None] * len(gone)
    tree = shapely.STRtree([_shape(each) for each in present])
    found: list[str | None] = []
    for each in gone:
        outline = _shape(each)
        shares = [
            (float(outline.intersection(tree.geometries[at]).area), str(present[at]["id"]))
            for at in tree.query(outline, predicate="intersects")
            if _overlap(each["properties"], present[at]["properties"])
        ]
        # Events may touch by a corner, which makes none the heir of the other.
        found.append(max(shares)[1] if shares and max(shares)[0] > 0 else None)
    return found


def _shape(shown: Mapping[str, Any]) -> BaseGeometry:
    return shapely.geometry.shape(shown["geometry"])


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    low, high = (np.datetime64(one[name]) for name in ("first_low", "last_high"))
    return bool(low <= np.datetime64(other["last_high"]) and np.datetime64(other["first_low"]) <= high)
