"""The first monitor file: commented, loadable as it is, declaring what the archive gives other than weights expect."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from urbandelta.eras import Era, Stream, era_named
from urbandelta.errors import ConfigError, MonitorError
from urbandelta.monitor import Monitor, parse_monitor
from urbandelta.sources.archives import ARCHIVES, StreamRequest, archive_named

__all__ = ["BY_HAND", "DEFAULT_ARCHIVE", "Departures", "departures", "initial_text", "write_initial"]

BY_HAND = "none"
DEFAULT_ARCHIVE = "planetary-computer"
_YEARS = 2
"""History that a new monitor of an era that goes on begins with: the first two windows a year apart, and some."""
_COLUMN = 34


@dataclass(frozen=True)
class Departures:
    """What an archive holds other than an era's weights expect, as `predict` wants it declared."""

    substitutions: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    reasons: tuple[str, ...] = field(default=())


def departures(era: Era, archive: str) -> Departures:
    """Compare an archive's row with an era: missing bands become 0, other levels and coefficients are to be accepted.

    Raises
    ------
    ConfigError
        If the archive is unknown, or can fill no stream of the era.
    """
    row = archive_named(archive)
    substitutions: list[str] = []
    accepted: set[str] = set()
    reasons: list[str] = []
    served = False
    for stream in era.streams:
        collection = row.collection_for(stream, StreamRequest())
        if collection is None or collection.unreadable:
            reasons.append(f"{stream.name}: {archive} has nothing that can be read; import it, or declare a substitute")
            continue
        served = True
        lacking = [band for band in stream.bands if band not in collection.assets] if collection.assets else []
        substitutions += [f"{band}=0" for band in lacking]
        if lacking:
            reasons.append(f"{stream.name}: {collection.id} lacks {', '.join(lacking)}")
        for name, given, expected in _properties(stream, collection.level, collection.coefficient):
            if given and expected and given != expected:
                accepted.add(name)
                reasons.append(f"{stream.name}: {collection.id} is {given}, the weights saw {expected}")
    if not served:
        raise ConfigError(
            f"{archive} has nothing of era {era.name} ({era.title}); use --archive {BY_HAND} and import the scenes"
        )
    return Departures(tuple(substitutions), tuple(sorted(accepted)), tuple(reasons))


def _properties(stream: Stream, level: str, coefficient: str) -> Sequence[tuple[str, str, str]]:
    return (
        ("processing_level", level, stream.processing_level),
        ("backscatter_coefficient", coefficient, stream.backscatter_coefficient),
    )


def initial_text(
    *,
    name: str,
    bbox: Sequence[float] | None = None,
    aoi_file: str | None = None,
    era: str = "s12",
    archive: str = DEFAULT_ARCHIVE,
    start: dt.date | None = None,
    today: dt.date,
) -> str:
    """Text of a monitor file.

    Parameters
    ----------
    name : str
        The monitor's, and its store's.
    bbox, aoi_file : four floats, or path relative to the file
        One of them.
    era, archive : str
        Row of `ERAS`; row of `ARCHIVES`, or "none" for scenes that are imported by hand.
    start : date, optional
        By default two years before `today`, or the begin of an era that is over.
    today : date

    Raises
    ------
    ConfigError
        If era or archive are unknown or do not fit.
    """
    row = era_named(era)
    first, last = (None if day is None else dt.date.fromisoformat(day) for day in row.span)
    assert first is not None
    if start is None:
        start = first if last is not None else max(first, dt.date(today.year - _YEARS, 1, 1))
    found = Departures() if archive == BY_HAND else departures(row, archive)
    where = f"bbox: {json.dumps(list(bbox))}" if bbox is not None else f"file: {_scalar(aoi_file)}"
    other = "file: city.gpkg" if bbox is not None else "bbox: [5.38, 50.54, 5.73, 50.74]"
    lines = [
        f"# A monitor of urbandelta: {row.title}.",
        "# `urbandelta update` with this file does whatever is new and nothing else. Paths are relative to the file.",
        "# Nothing secret belongs here: credentials come from the environment, netrc or a cloud profile.",
        "version: 1",
        f"name: {_scalar(name)}",
        _said("aoi:", "exactly one of bbox, file, geometry"),
        _said(f"  {where}", "west, south, east, north in degrees" if bbox is not None else "polygons in any CRS"),
        _said(f"  # {other}", "GeoJSON, Shapefile or GeoPackage" if bbox is not None else "degrees"),
        "  # geometry: {type: Polygon, coordinates: [[[5.4, 50.5], [5.7, 50.5], [5.7, 50.7], [5.4, 50.5]]]}",
        _said("grid: {pixel_m: null, crs: null}", f"null: {row.pixel_m:g} m, {row.crs or 'the UTM zone of the area'}"),
        f"era: {row.name}",
        _said(f"start: {start}", "steps are counted from here: changing it makes all scores anew"),
        _said(f"end: {last or 'null'}", "day before which it ends; null: goes on"),
        _said(f"store: {_scalar(name)}", "folder, or URL prefix of cube and scores (products and ledger stay local)"),
        *_source_lines(row, archive),
        _said(f"weights: {row.name}_simulated", "shipped set or file; see `urbandelta weights list`"),
        *_predict_lines(row, found),
        _said("events:", "objects of change"),
        _said("  threshold: 0.5", "a score of at least this makes an event"),
        _said("  low: 0.3", "pixels and windows of at least this belong to it"),
        _said("  min_area_m2: 400", "smaller ones are left out"),
        _said("  min_windows: 2", "settled windows that confirm one"),
        "products:",
        _said("  rasters: true", "cloud-optimised GeoTIFFs, one a month and overall"),
        _said("  stac: true", "their catalogue"),
        "  events: [gpkg, geoparquet, geojson]",
        _said("  report: true", "one HTML page"),
        _said("  districts: null", "polygons for a table per district, such as districts.gpkg"),
        "notify:",
        _said("  feed: true", "JSON lines of new and changed events"),
        _said("  command: null", "such as [python3, tell.py]; gets new lines as JSON on stdin"),
        _said("  webhook: null", "NAME of the environment variable that holds the address"),
    ]
    return "\n".join(lines) + "\n"


def write_initial(path: Path, **options: Any) -> Monitor:
    """Write a monitor file that is not there yet, and read it; parameters of `initial_text`.

    Raises
    ------
    MonitorError
        If the file is there, cannot be written, or its area makes no grid.
    """
    text = initial_text(**options)
    monitor = parse_monitor(yaml.safe_load(text), where=path)
    # An area that is none is told now, not by tonight's update.
    monitor.make_grid()
    try:
        # Exclusive: of two that begin at once, one is told so.
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise MonitorError(f"{path}: is there already and is not overwritten; choose another name") from None
    except OSError as error:
        raise MonitorError(f"{path}: cannot be written ({error.strerror or error}); choose another folder") from error
    return monitor


def _source_lines(era: Era, archive: str) -> list[str]:
    if archive == BY_HAND:
        pattern = "'*_{date:%Y%m%d}_{band}.tif'"
        return [
            "source:",
            _said("  kind: none", "scenes come by `urbandelta import ... --into STORE/cube`, or:"),
            _said("  # kind: folder", "folders that scenes are dropped into"),
            "  # imports:",
            *(
                f"  #   - {{stream: {name}, format: geotiff, path: scenes/{name}, pattern: {pattern}}}"
                for name in era.stream_names
            ),
        ]
    row = ARCHIVES[archive]
    needs = f"; needs {', '.join(row.credentials)}" if row.credentials else ""
    return [
        "source:",
        "  kind: stac",
        _said(f"  archive: {archive}", f"{row.title}{needs}"),
        _said("  streams: {}", "empty: all that it has; or, for instance, {s1_asc: {relative_orbits: [88]}}"),
    ]


def _predict_lines(era: Era, found: Departures) -> list[str]:
    return [
        _said("predict:", "as `urbandelta predict`; null: its default"),
        _said("  stride: null", f"steps from window to window; null: {era.stride_inference}"),
        "  tile: null",
        "  halo: null",
        "  engine: auto",
        "  precision: fp32",
        "  mask_rule: explicit",
        *(f"  # {reason}" for reason in found.reasons),
        f"  substitute: {json.dumps(list(found.substitutions))}",
        f"  accept: {json.dumps(list(found.accepted))}",
    ]


def _said(line: str, comment: str) -> str:
    """A line and its comment, in a column of its own where it fits."""
    return f"{line:<{_COLUMN}} # {comment}"


def _scalar(text: str | None) -> str:
    """A text as YAML on one line, quoted where it must be."""
    return (
        str(yaml.safe_dump(text, width=10_000, allow_unicode=True, default_flow_style=True)).split("\n...")[0].strip()
    )
