"""What a fetch would bring, before it does: acquisitions by stream and month, gaps, satellites, bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from urbandelta.eras import era_named
from urbandelta.grid import Grid
from urbandelta.ledger import FILE_NAME, Ledger
from urbandelta.offers import Offer, StreamOffers, next_action, total_bytes

if TYPE_CHECKING:
    from urbandelta.monitor import Monitor

# Bytes a value in a cube: speckle does not compress (3.34 on simulated radar); optical is a cautious guess above
# the 0.55 of simulated scenes, which are smoother than the ground.
_STORED_BYTES = {"sar": 3.4, "optical": 1.3}
_MASK_BYTES = 0.05


@dataclass(frozen=True, kw_only=True)
class PlatformSpan:
    """From when to when a satellite appears in a stream, and how often."""

    platform: str
    count: int
    first: str
    last: str


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """What there is for one stream.

    `months` counts all acquisitions that the source has by month, with 0 where it has none; `new` are those that the
    cube lacks. Bytes are estimates: `transfer_bytes` from declared file sizes or typical ones, None if unknown.
    """

    stream: str
    where: str
    months: Mapping[str, int]
    new: int
    stored: int
    noted: int
    late: int
    unusable: int
    superseded: int
    relative_orbits: Mapping[str, int]
    platforms: tuple[PlatformSpan, ...]
    gaps: tuple[str, ...]
    notes: tuple[str, ...]
    transfer_bytes: int | None
    stored_bytes: int
    failure: str = ""

    @property
    def total(self) -> int:
        """Acquisitions that the source has."""
        return sum(self.months.values())


@dataclass(frozen=True, kw_only=True)
class FetchPlan:
    """What a fetch of a monitor would do."""

    start: str
    end: str
    shape: tuple[int, int]
    streams: tuple[StreamPlan, ...]

    @property
    def new(self) -> int:
        """Acquisitions to fetch."""
        return sum(stream.new for stream in self.streams)

    @property
    def transfer_bytes(self) -> int | None:
        """Bytes to transfer, about; None if any stream's are unknown."""
        sizes = [stream.transfer_bytes for stream in self.streams if stream.new]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def stored_bytes(self) -> int:
        """Bytes that the cube grows by, about."""
        return sum(stream.stored_bytes for stream in self.streams)

    @property
    def failures(self) -> tuple[str, ...]:
        """Streams whose source did not answer."""
        return tuple(f"{stream.stream}: {stream.failure}" for stream in self.streams if stream.failure)


def plan_fetch(
    monitor: Monitor, *, until: np.datetime64 | str | None = None, streams: Sequence[str] | None = None
) -> FetchPlan:
    """Plan a fetch; asks the source what it has and reads no pixel.

    Raises
    ------
    ConfigError
        If the source or its options make no sense.
    """
    from urbandelta.fetching import cube_of, held_by
    from urbandelta.offering import find_offers, period_of

    cube, grid = cube_of(monitor), monitor.make_grid()
    period = period_of(monitor, until=until)
    ledger = Ledger(monitor.folder / FILE_NAME)
    plans = []
    for found in find_offers(monitor, cube, until=until, streams=streams):
        held = held_by(cube, found.stream)
        actions = [next_action(offer, held, ledger)[0] for offer in found.offers]
        kind = era_named(monitor.era).stream(found.stream).kind
        plans.append(plan_stream(found, actions, grid=grid, kind=kind, start=period.start, end=period.end))
    return FetchPlan(
        start=str(period.start.astype("datetime64[D]")),
        end=str(period.end.astype("datetime64[D]")),
        shape=grid.shape,
        streams=tuple(plans),
    )


def plan_stream(
    found: StreamOffers,
    actions: Sequence[str],
    *,
    grid: Grid,
    kind: str,
    start: np.datetime64,
    end: np.datetime64,
) -> StreamPlan:
    """Sum up the offers of one stream; `actions` says what is to be done with each. Pure."""
    new = [offer for offer, action in zip(found.offers, actions, strict=True) if action == "fetch"]
    done = Counter(actions)
    months = months_of(found.offers, start, end)
    platforms = _platforms(found.offers)
    pixels = grid.height * grid.width
    return StreamPlan(
        stream=found.stream,
        where=found.where,
        months=months,
        new=len(new),
        stored=done["stored"],
        noted=done["noted"],
        late=done["late"],
        unusable=len(found.unusable),
        superseded=found.superseded,
        relative_orbits={
            str(orbit): count
            for orbit, count in sorted(Counter(offer.relative_orbit for offer in found.offers).items())
        },
        platforms=platforms,
        gaps=gaps_of(months),
        notes=notes_on(platforms, months),
        transfer_bytes=total_bytes(new),
        stored_bytes=round(sum(pixels * (offer.bands * _STORED_BYTES[kind] + _MASK_BYTES) for offer in new)),
        failure=found.failure,
    )


def months_of(offers: Sequence[Offer], start: np.datetime64, end: np.datetime64) -> dict[str, int]:
    """Acquisitions in each month of a half-open period, months without any included."""
    first = start.astype("datetime64[M]")
    last = (end - np.timedelta64(1, "ns")).astype("datetime64[M]")
    counts = Counter(str(offer.time.astype("datetime64[M]")) for offer in offers)
    return {str(month): counts[str(month)] for month in np.arange(first, last + 1)}


def gaps_of(months: Mapping[str, int]) -> tuple[str, ...]:
    """Runs of months without acquisitions, as `2021-03` or `2021-03..2021-06`."""
    runs: list[list[str]] = []
    previous = 1
    for month, count in months.items():
        if count == 0:
            if previous == 0:
                runs[-1].append(month)
            else:
                runs.append([month])
        previous = count
    return tuple(run[0] if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)


def notes_on(platforms: Sequence[PlatformSpan], months: Mapping[str, int]) -> tuple[str, ...]:
    """Satellites that come or go within the period: fewer acquisitions may hide changes, and are not less change."""
    if not months:
        return ()
    first, last = min(months), max(months)
    notes = []
    for span in platforms:
        if span.platform and span.first[:7] > _after(first, 1):
            notes.append(f"{span.platform} from {span.first}")
        if span.platform and span.last[:7] < _after(last, -1):
            notes.append(f"{span.platform} until {span.last}")
    return tuple(notes)


def _platforms(offers: Sequence[Offer]) -> tuple[PlatformSpan, ...]:
    days: dict[str, list[np.datetime64]] = {}
    for offer in offers:
        days.setdefault(offer.platform, []).append(offer.time.astype("datetime64[D]"))
    return tuple(
        PlatformSpan(platform=name, count=len(times), first=str(min(times)), last=str(max(times)))
        for name, times in sorted(days.items())
    )


def _after(month: str, count: int) -> str:
    return str(np.datetime64(month, "M") + count)
