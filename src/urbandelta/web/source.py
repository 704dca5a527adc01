"""What a server serves: found from a monitor file, a monitor's store, or a score store."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from urbandelta.errors import ConfigError, MonitorError, StoreError
from urbandelta.repository import local_path, open_repository
from urbandelta.scores import open_scores

if TYPE_CHECKING:
    from urbandelta.events import EventOptions
    from urbandelta.monitor import EventSettings

__all__ = ["WebSource", "find_source"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WebSource:
    """Where the scores, the images and the products of one area lie; at least one of them is there.

    `folder` is the local folder that holds `products/`; `event_settings` are those of a monitor file.
    """

    name: str
    scores_url: str | None = None
    cube_url: str | None = None
    folder: Path | None = None
    event_settings: EventSettings | None = None

    def event_options(self) -> EventOptions:
        """What counts as an event: as the monitor file says, else as in the last update, else the defaults."""
        from urbandelta.manifests import latest_manifest
        from urbandelta.monitor import EventSettings

        if self.event_settings is not None:
            return self.event_settings.options()
        try:
            last = latest_manifest(self.folder) if self.folder is not None else None
            return EventSettings(**(last.config["events"] if last is not None else {})).options()
        except (MonitorError, KeyError, TypeError, ValueError) as error:
            log.warning("%s: events are found with default options (%s)", self.folder, " ".join(str(error).split()))
            return EventSettings().options()

    @property
    def rasters(self) -> Path | None:
        """Folder of the rasters, if there is one."""
        return self._product("rasters")

    @property
    def events(self) -> Path | None:
        """Folder of the event files, if there is one."""
        return self._product("events")

    def _product(self, name: str) -> Path | None:
        folder = self.folder / "products" / name if self.folder is not None else None
        return folder if folder is not None and folder.is_dir() else None


def find_source(target: str, *, cube: str | None = None) -> WebSource:
    """What to serve for a target that a user names.

    Parameters
    ----------
    target : str
        A monitor file, the store of a monitor (holds `scores`, `cube`, `products`), or a score store.
    cube : str, optional
        The cube, if it lies elsewhere; for a score store, by default the one that the scores name.

    Raises
    ------
    ConfigError
        If the target is none of these.
    StoreError
        If a store that is named cannot be opened.
    """
    path = local_path(target)
    if path is not None and path.is_file():
        found = _of_monitor(path)
    elif path is not None and not path.exists():
        raise StoreError(f"{target}: no such file or folder; give a monitor file, its store, or a score store")
    elif path is not None and _is_store(path):
        found = WebSource(
            name=path.name, scores_url=_there(path / "scores"), cube_url=_there(path / "cube"), folder=path
        )
    else:
        found = _of_scores(target, path)
    if cube is not None:
        open_repository(cube, kind="cube")
        found = replace(found, cube_url=cube)
    if found.scores_url is None and found.cube_url is None and found.rasters is None:
        raise ConfigError(f"{target}: holds neither scores nor a cube nor rasters yet; run `urbandelta update` first")
    return found


def _of_monitor(path: Path) -> WebSource:
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"{path}: is a file, but no monitor file (.yaml); give that, a store, or a score store")
    from urbandelta.monitor import load_monitor

    monitor = load_monitor(path)
    urls = [_openable(url, kind) for url, kind in ((monitor.scores_url, "scores"), (monitor.cube_url, "cube"))]
    return WebSource(
        name=monitor.name,
        scores_url=urls[0],
        cube_url=urls[1],
        folder=Path(monitor.folder),
        event_settings=monitor.events,
    )


def _of_scores(target: str, path: Path | None) -> WebSource:
    try:
        scores = open_scores(target)
    except StoreError as error:
        raise StoreError(f"{error}; `serve` takes a monitor file, a monitor's store, or a score store") from error
    cube = _openable(str(scores.attrs.get("cube_url", "")), "cube")
    # A score store that lies in a monitor's store brings the monitor's products with it.
    inside = path is not None and path.name == "scores" and (path.parent / "products").is_dir()
    folder = path.parent if inside and path is not None else None
    name = folder.name if folder else (path.name if path is not None else target.rstrip("/").rsplit("/", 1)[-1])
    return WebSource(name=name, scores_url=target, cube_url=cube, folder=folder)


def _is_store(path: Path) -> bool:
    return any((path / part).is_dir() for part in ("scores", "cube", "products"))


def _there(path: Path) -> str | None:
    return str(path) if path.is_dir() else None


def _openable(url: str, kind: str) -> str | None:
    """The address itself if a store of that kind can be opened there: a cube may be gone, the scores still show."""
    if not url:
        return None
    try:
        open_repository(url, kind=kind)
    except StoreError:
        return None
    return url
