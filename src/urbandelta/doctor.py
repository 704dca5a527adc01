"""`urbandelta doctor`: what is installed, what is missing, what is broken; names of secrets, never their values."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from urbandelta.cube_format import digest
from urbandelta.errors import EngineError, UrbandeltaError
from urbandelta.repository import local_path
from urbandelta.store import Cube, open_cube

if TYPE_CHECKING:
    from urbandelta.fetch_plan import FetchPlan
    from urbandelta.monitor import Monitor, SentinelHubSource
    from urbandelta.sources.archives import Archive

Health: TypeAlias = Literal["ok", "note", "broken"]

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("torch", "lightning", "torchmetrics", "tensorboard"),
        "xccd": ("pyxccd",),
        "sentinelhub": ("sentinelhub",),
        "clouds": ("s2cloudless",),
        "s3": ("boto3",),
        "video": ("imageio_ffmpeg",),
    }
)
"""What `pip install 'urbandelta[NAME]'` adds, by extra: modules that are imported."""

_LIBRARIES = ("numpy", "xarray", "zarr", "icechunk", "rasterio", "odc-geo", "openvino", "pystac-client", "urllib3")
_SAMPLED = 3
_REACH_SECONDS = 10.0
_SPARE = 1.2


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at: `ok`, worth a `note`, or `broken`, and what was seen."""

    subject: str
    health: Health
    detail: str


def diagnose(*, monitor: Monitor | None = None, cube: str | None = None, plan: bool = True) -> list[Check]:
    """Look at everything that a command would need.

    Parameters
    ----------
    monitor : Monitor, optional
        Its archive, credentials, disk and cube are looked at as well.
    cube : str, optional
        A cube to look at.
    plan : bool
        Hold free disk against what a fetch would store, which asks the archive for its items.

    Returns
    -------
    list of Check
    """
    checks = [*check_installation(), *check_engines(), *check_extras()]
    if monitor is not None:
        checks += _check_monitor(monitor, plan=plan)
    url = cube if monitor is None else monitor.cube_url
    if url is not None:
        checks += check_cube(url, must_exist=monitor is None)
    return checks


def check_installation() -> Iterator[Check]:
    """Versions of Python, of this package and of what it stands on."""
    yield Check(
        subject="urbandelta",
        health="ok",
        detail=f"{_version('urbandelta')}, Python {platform.python_version()}, {platform.platform()}",
    )
    for name in _LIBRARIES:
        version = _version(name)
        yield Check(
            subject=name,
            health="ok" if version else "broken",
            detail=version or "not installed; pip install urbandelta again",
        )


def check_engines() -> Iterator[Check]:
    """Which engines can compute the network here."""
    from urbandelta.engines import DEFAULT_ENGINE, ENGINES, engine_named

    for name in ENGINES:
        try:
            engine_named(name)
            yield Check(subject=f"engine {name}", health="ok", detail="works")
        except (EngineError, ImportError, RuntimeError) as error:
            health: Health = "broken" if name == DEFAULT_ENGINE else "note"
            yield Check(subject=f"engine {name}", health=health, detail=_line(error))


def check_extras() -> Iterator[Check]:
    """Which optional parts are installed."""
    for extra, modules in EXTRAS.items():
        lacking = [module for module in modules if importlib.util.find_spec(module) is None]
        detail = f"lacks {', '.join(lacking)}; pip install 'urbandelta[{extra}]'" if lacking else "installed"
        yield Check(subject=f"extra {extra}", health="note" if lacking else "ok", detail=detail)


def check_credentials(archive: Archive, *, needs_s3: bool) -> Iterator[Check]:
    """Whether the variables that an archive reads are set."""
    for name in archive.credentials:
        present = bool(os.environ.get(name)) or (name.startswith("AWS_") and _aws_profile())
        yield Check(
            subject=f"credential {name}",
            health="ok" if present else "broken",
            detail="set" if present else f"not set; {archive.title} needs it to read pixels (searching works without)",
        )
    for name in archive.optional_credentials:
        detail = "set" if os.environ.get(name) else "not set"
        yield Check(subject=f"credential {name}", health="ok", detail=f"{detail} (optional)")
    if needs_s3 and importlib.util.find_spec("boto3") is None:
        yield Check(
            subject="s3", health="broken", detail=f"{archive.title} is read by S3; pip install 'urbandelta[s3]'"
        )


def check_archive(archive: Archive) -> Check:
    """Whether an archive's catalogue answers within seconds."""
    from urbandelta.archive_access import reach

    try:
        title = reach(archive, seconds=_REACH_SECONDS)
    except UrbandeltaError as error:
        return Check(subject=f"archive {archive.name}", health="broken", detail=_line(error))
    return Check(subject=f"archive {archive.name}", health="ok", detail=f"answers: {title}")


def check_hub(source: SentinelHubSource) -> Check:
    """Whether Sentinel Hub accepts the credentials of the environment or the library's profile."""
    from urbandelta.sources.hub_client import ENDPOINTS, HubClient, Patience, find_access

    title = ENDPOINTS[source.endpoint].title
    try:
        client = HubClient(find_access(source.endpoint, url=source.url), Patience(tries=1, read_seconds=_REACH_SECONDS))
        client.authenticate()
    except UrbandeltaError as error:
        return Check(subject=f"archive {source.endpoint}", health="broken", detail=_line(error))
    return Check(subject=f"archive {source.endpoint}", health="ok", detail=f"{title} accepts the credentials")


def check_disk(folder: Path, needed: int | None) -> Check:
    """Free bytes where a store lies, against what is to be stored."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed is None:
        return Check(subject="disk", health="ok", detail=f"{free / 1e9:.1f} GB free at {place}")
    enough = free > needed * _SPARE
    return Check(
        subject="disk",
        health="ok" if enough else "broken",
        detail=f"{free / 1e9:.1f} GB free at {place}, a fetch stores about {needed / 1e9:.2f} GB"
        + ("" if enough else "; free some, or move the store"),
    )


def check_cube(url: str, *, must_exist: bool = True) -> Iterator[Check]:
    """Whether a cube opens, its streams agree with themselves, and sampled acquisitions have the digests recorded."""
    path = local_path(url)
    if path is not None and not path.exists():
        health: Health = "broken" if must_exist else "note"
        yield Check(subject="cube", health=health, detail=f"{url}: not there yet")
        return
    try:
        cube = open_cube(url)
    except UrbandeltaError as error:
        yield Check(subject="cube", health="broken", detail=_line(error))
        return
    yield Check(
        subject="cube", health="ok", detail=f"{cube.url}: era {cube.era.name}, {cube.grid}, snapshot {cube.snapshot}"
    )
    streams = [_check_stream(cube, name) for name in cube.streams]
    yield from streams
    if all(check.health == "ok" for check in streams):
        yield from _check_alignment(cube)


def _check_stream(cube: Cube, name: str) -> Check:
    subject = f"stream {name}"
    try:
        known = cube.acquisitions(name)
        times = cube.times(name)
        count = len(times)
        if len(np.unique(times)) != count:
            return Check(
                subject=subject, health="broken", detail="two acquisitions share a time; import the data again"
            )
        stored = cube.stream(name)
        if stored.sizes["time"] != count or stored["mask"].sizes["time"] != count:
            return Check(subject=subject, health="broken", detail="pixels and times differ in number; import it again")
        rows, columns = slice(0, cube.grid.height), slice(0, cube.grid.width)
        for index in sorted({round(at) for at in np.linspace(0, count - 1, min(count, _SAMPLED))}):
            values, mask = cube.read_raw(name, slice(index, index + 1), rows, columns)
            if digest(np.ascontiguousarray(values[0]), mask[0], cube.bands(name)) != str(known["digest"].values[index]):
                return Check(
                    subject=subject,
                    health="broken",
                    detail=f"the acquisition of {np.datetime_as_string(times[index], 's')}Z does not have the digest "
                    "recorded for it; restore the store, or import it again",
                )
    except (UrbandeltaError, OSError, ValueError, KeyError) as error:
        return Check(subject=subject, health="broken", detail=_line(error))
    first, last = (np.datetime_as_string(moment, "D") for moment in (times[0], times[-1]))
    return Check(
        subject=subject,
        health="ok",
        detail=f"{count} acquisitions {first}..{last}; digests of {min(count, _SAMPLED)} recomputed",
    )


def _check_alignment(cube: Cube) -> Iterator[Check]:
    from urbandelta.coregistration import check_cube as shifts_of

    for shift in shifts_of(cube):
        yield Check(subject="alignment", health="note" if shift.too_far else "ok", detail=str(shift))


def _check_monitor(monitor: Monitor, *, plan: bool) -> Iterator[Check]:
    from urbandelta.offering import archive_of, chosen_streams, request_of

    planned: FetchPlan | None = None
    yield Check(
        subject="monitor", health="ok", detail=f"{monitor.name}: source {monitor.source.kind}, cube {monitor.cube_url}"
    )
    source = monitor.source
    if source.kind == "stac":
        archive = archive_of(source)
        needs_s3 = archive.signing == "s3" and any(
            (row := archive.collection_for(stream, request_of(source, stream.name))) is not None and row.level == "L1C"
            for stream in chosen_streams(monitor, None)
        )
        yield from check_credentials(archive, needs_s3=needs_s3 or bool(archive.credentials))
        reached = check_archive(archive)
        yield reached
        if plan and reached.health == "ok":
            planned, check = _planned(monitor)
            yield check
    if source.kind == "sentinelhub":
        reached = check_hub(source)
        yield reached
        if plan and reached.health == "ok":
            planned, check = _planned(monitor)
            yield check
    if local_path(monitor.cube_url) is not None:
        yield check_disk(monitor.folder, None if planned is None else planned.stored_bytes)


def _planned(monitor: Monitor) -> tuple[FetchPlan | None, Check]:
    from urbandelta.fetch_plan import plan_fetch

    try:
        planned = plan_fetch(monitor)
    except UrbandeltaError as error:
        return None, Check(subject="plan", health="broken", detail=_line(error))
    failures: Sequence[str] = planned.failures
    if failures:
        return planned, Check(subject="plan", health="broken", detail="; ".join(failures))
    return planned, Check(subject="plan", health="ok", detail=f"{planned.new} acquisitions to fetch")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _aws_profile() -> bool:
    home = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", Path.home() / ".aws" / "credentials"))
    return home.exists()


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
