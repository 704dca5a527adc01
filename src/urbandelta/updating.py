"""Update a monitor: whatever is new, and nothing else.

    lock ─ look (has anything changed since last time?) ─ fetch ─ score ─ products ─ feed, tell ─ manifest ─ state

Each stage leaves what is right already alone, so an update that was killed is simply run again. `state.json` is written
last: it says what everything looked like when all was done. If it all still looks so, there is nothing to do, and
that is found out without opening cube or scores.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from urbandelta import __version__
from urbandelta.errors import NotifyError, StoreError, TooFewObservations
from urbandelta.monitor import CubeSource, FolderSource, Monitor, NoSource

if TYPE_CHECKING:
    from urbandelta.event_feed import FeedLine
    from urbandelta.events import Event
    from urbandelta.extending import Extension
    from urbandelta.fetching import FetchReport, MissingItem
    from urbandelta.grid import Grid
    from urbandelta.store import Cube
    from urbandelta.types import Progress

STATE, TOLD = "state.json", "told.json"
FEED = "events-feed.jsonl"
_LOCK, _OWNER = "update.lock", "update.owner.json"
_CONTENT = ("chunks", "manifests", "snapshots", "transactions")
"""Folders of an Icechunk store whose files never change; what points to them does."""


Bar: TypeAlias = "Callable[[str], contextlib.AbstractContextManager[Progress | None]]"
"""Opens a progress bar with a title."""


@dataclass(frozen=True, kw_only=True)
class UpdateSummary:
    """What an update did."""

    name: str
    nothing_new: bool = False
    added: Mapping[str, int] = field(default_factory=dict)
    """New acquisitions by stream."""
    empty: int = 0
    refused: int = 0
    missing: tuple[MissingItem, ...] = ()
    windows: int = 0
    scored: int = 0
    provisional: int = 0
    waiting: str = ""
    """Why nothing could be scored yet; empty if it could."""
    events: int = 0
    stages: Mapping[str, int] = field(default_factory=dict)
    """Events by stage."""
    news: Mapping[str, int] = field(default_factory=dict)
    """Lines added to the feed, by kind."""
    written: tuple[str, ...] = ()
    manifest: str = ""
    problems: tuple[str, ...] = ()
    """What failed without stopping the update, such as a webhook; it is tried again next time."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing and nothing failed."""
        return not self.missing and not self.problems


def no_bar(_title: str) -> contextlib.AbstractContextManager[None]:
    """Shows nothing."""
    return contextlib.nullcontext()


def update(
    monitor: Monitor,
    *,
    until: str | None = None,
    fetch: bool = True,
    workers: int | None = None,
    bar: Bar = no_bar,
) -> UpdateSummary:
    """Bring a monitor up to date.

    Parameters
    ----------
    monitor : Monitor
    until : str, optional
        Leave out acquisitions from this moment on. What was scored before stays.
    fetch : bool
        Whether to ask the source; False works with what the cube holds.
    workers : int, optional
        Threads of the scoring, the usable cores by default.
    bar : callable
        `bar(title)` opens a progress bar.

    Returns
    -------
    UpdateSummary
        Scenes that could not be had are in `missing`; everything else was done with what arrived.

    Raises
    ------
    StoreError
        If another update of this monitor is running, or its scores were made in another way.
    UrbandeltaError
        Whatever else stops an update; what was done so far stays, and the next one goes on.
    """
    with _alone(monitor.folder):
        state = _read_json(monitor.folder / STATE)
        if state is not None and state == _look(monitor, until=until, fetch=fetch):
            return UpdateSummary(name=monitor.name, nothing_new=True)
        return _update(monitor, state or {}, until=until, fetch=fetch, workers=workers, bar=bar)


def _update(
    monitor: Monitor, state: Mapping[str, Any], *, until: str | None, fetch: bool, workers: int | None, bar: Bar
) -> UpdateSummary:
    from urbandelta.fetching import cube_of

    fetched = _fetch(monitor, until, bar) if fetch and not isinstance(monitor.source, NoSource) else None
    cube = cube_of(monitor)
    if cube is None or not cube.streams:
        raise StoreError(f"{monitor.cube_url}: holds no acquisition{_nothing_because(monitor, fetched)}")
    facts: dict[str, Any] = {} if fetched is None else _facts(fetched)
    try:
        extension = _score(monitor, cube, workers, bar)
    except TooFewObservations as error:
        _write_state(monitor, until=until, fetch=fetch, missing=facts.get("missing", ()))
        return UpdateSummary(
            name=monitor.name, nothing_new=not any(facts.get("added", {}).values()), waiting=str(error), **facts
        )
    from urbandelta.manifests import write_manifest
    from urbandelta.monitor_products import make_products

    with bar(f"products {monitor.name}") as progress:
        made = make_products(
            monitor, monitor.folder / "products", scores_url=monitor.scores_url, cube=cube, progress=progress
        )
    news, problems = _tell(monitor, made.events, made.grid)
    changed = bool(extension.scored or made.written or any(facts.get("added", {}).values()))
    manifest = ""
    # An update that was killed after its products leaves nothing to do but to say what they were made from.
    if changed or state.get("scores") != _store_stamp(monitor.scores_url):
        manifest = str(
            write_manifest(
                monitor,
                moment=datetime.now(UTC),
                until=until,
                scores_url=monitor.scores_url,
                cube_url=cube.url,
                cube_snapshot=cube.snapshot,
                outputs=[*made.written, *made.kept],
            )
        )
    _write_state(monitor, until=until, fetch=fetch, missing=facts.get("missing", ()), problems=problems)
    return UpdateSummary(
        name=monitor.name,
        nothing_new=not changed and not news,
        windows=extension.windows,
        scored=extension.scored,
        provisional=extension.provisional,
        events=len(made.events),
        stages=_counted(event.stage for event in made.events),
        news=news,
        written=tuple(str(path) for path in made.written),
        manifest=manifest,
        problems=problems,
        **facts,
    )


# ---------------------------------------------------------------- stages


def _fetch(monitor: Monitor, until: str | None, bar: Bar) -> FetchReport:
    from urbandelta.fetching import fetch

    with bar(f"fetch {monitor.name}") as progress:
        return fetch(monitor, until=until, progress=progress)


def _facts(report: FetchReport) -> dict[str, Any]:
    return {
        "added": {name: count for name, count in report.added.items() if count},
        "empty": report.empty,
        "refused": report.refused,
        "missing": report.missing,
    }


def _nothing_because(monitor: Monitor, report: FetchReport | None) -> str:
    if report is not None and report.missing:
        first = report.missing[0]
        count = len(report.missing)
        return f" yet: {count} could not be had, the first ({first.item_id}) since {first.reason}; try again later"
    if isinstance(monitor.source, NoSource):
        return " yet; import some (`urbandelta import`), or name a source in the monitor file"
    return " yet, and its source has none of this area and period; `urbandelta plan` shows what it offers"


def _score(monitor: Monitor, cube: Cube, workers: int | None, bar: Bar) -> Extension:
    from urbandelta.extending import extend_scores

    options = monitor.predict
    with bar(f"predict {monitor.name}") as progress:
        return extend_scores(
            cube,
            monitor.weights_path,
            monitor.scores_url,
            start=str(monitor.start),
            end=None if monitor.end is None else str(monitor.end),
            stride=options.stride,
            tile=options.tile,
            halo=options.halo,
            engine=options.engine,
            mask_rule=options.mask_rule,
            precision=options.precision,
            workers=workers,
            substitutions=options.substitute,
            accepted=options.accept,
            progress=progress,
        )


def _tell(monitor: Monitor, events: Sequence[Event], grid: Grid) -> tuple[dict[str, int], tuple[str, ...]]:
    """Append to the feed, and tell others what they were not told: new lines by kind, failures."""
    from urbandelta.event_feed import read_feed, update_feed
    from urbandelta.notifying import post_webhook, run_command

    notify = monitor.notify
    if not (notify.feed or notify.command or notify.webhook):
        return {}, ()
    path = monitor.folder / "products" / "events" / FEED
    path.parent.mkdir(parents=True, exist_ok=True)
    news = _counted(line.kind for line in update_feed(path, events, grid=grid))
    lines = read_feed(path)
    untold = lines[_lines_told(monitor.folder, lines) :]
    problems = []
    try:
        if notify.command and untold:
            run_command(notify.command, untold, name=monitor.name)
    except NotifyError as error:
        problems.append(str(error))
    try:
        if notify.webhook and untold:
            post_webhook(notify.webhook, untold, name=monitor.name)
    except NotifyError as error:
        problems.append(str(error))
    if untold and not problems:
        _write_json(monitor.folder / TOLD, _mark(untold[-1]))
    return news, tuple(problems)


def _lines_told(folder: Path, lines: Sequence[FeedLine]) -> int:
    """How many lines of a feed others were told: up to the one noted. None of a feed that was begun anew."""
    noted = _read_json(folder / TOLD)
    return max((number for number, line in enumerate(lines, start=1) if _mark(line) == noted), default=0)


def _mark(line: FeedLine) -> dict[str, str]:
    return {"time": line.time, "kind": line.kind, "id": line.id, "digest": line.digest}


def _counted(names: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[str(name)] = counts.get(str(name), 0) + 1
    return counts


# ---------------------------------------------------------------- what everything looks like


def _look(monitor: Monitor, *, until: str | None, fetch: bool) -> dict[str, Any] | None:
    """What everything looks like now, without opening a store; None where only asking can tell (an archive)."""
    stamps = {"cube": _store_stamp(monitor.cube_url), "scores": _store_stamp(monitor.scores_url)}
    source = monitor.source
    if fetch and isinstance(source, FolderSource):
        stamps["source"] = _files_stamp([monitor.resolve(item.path) for item in source.imports])
    elif fetch and isinstance(source, CubeSource):
        url = source.url
        stamps["source"] = _store_stamp(url if "://" in url else str(monitor.resolve(url)))
    elif fetch and not isinstance(source, NoSource):
        return None
    if None in stamps.values():
        return None
    weights = Path(monitor.weights_path)
    files = [monitor.resolve(name) for name in (monitor.aoi.file, monitor.products.districts) if name is not None]
    return {
        "version": __version__,
        "monitor": hashlib.sha256(monitor.model_dump_json().encode()).hexdigest(),
        "until": until,
        "missing": 0,
        "problems": 0,
        "weights": _files_stamp([weights]) if weights.exists() else monitor.weights_path,
        "files": _files_stamp(files),
        "products": _files_stamp([monitor.folder / "products"]),
        **stamps,
    }


def _write_state(
    monitor: Monitor, *, until: str | None, fetch: bool, missing: Sequence[MissingItem], problems: Sequence[str] = ()
) -> None:
    # What is missing or failed makes the next look differ, so that it is tried again.
    unfinished = {"missing": len(missing), "problems": len(problems)}
    _write_json(monitor.folder / STATE, {**(_look(monitor, until=until, fetch=fetch) or {}), **unfinished})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    os.replace(temporary, path)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _store_stamp(url: str) -> str | None:
    """Of a local store, what points to its content; None for one that is not local."""
    if "://" in url and not url.startswith("file://"):
        return None
    path = Path(unquote(urlsplit(url).path)) if url.startswith("file://") else Path(url)
    return _files_stamp([path], without=_CONTENT)


def _files_stamp(paths: Sequence[Path], *, without: Sequence[str] = ()) -> str:
    """Hash over names, sizes and times of change of files, at any depth."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(_files(path, frozenset(without))):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(file)
                digest.update(f"{os.path.relpath(file, path)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(path: Path, without: frozenset[str]) -> Iterator[str]:
    if path.is_file():
        yield str(path)
    for folder, folders, names in os.walk(path):
        if folder == str(path):
            folders[:] = [name for name in folders if name not in without]
        yield from (os.path.join(folder, name) for name in names)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse a second update of the same monitor; the lock ends with its process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made ({error.strerror}); correct `store` in the monitor file") from error
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(
            f"{folder}: another update of this monitor is running{_owner(folder)}; wait until it ends"
        ) from None
    try:
        owner = {"process": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        (folder / _OWNER).write_text(json.dumps(owner), "utf-8")
        yield
    finally:
        (folder / _OWNER).unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / _OWNER).read_text("utf-8"))
        return f" (process {owner['process']}, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
