"""One self-contained HTML page about one scene: what changed, where, when, from which data, how sure.

The page needs no network: pictures are data URIs, style and script are inline. `report_page.gather` decides everything
that the page says, as plain values; the template only lays it out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import rasterio
import xarray as xr

from urbandelta.accuracy import Agreement
from urbandelta.cog import write_whole
from urbandelta.errors import GridError, SourceError, StoreError
from urbandelta.events import Event, EventOptions, find_events
from urbandelta.grid import Grid
from urbandelta.products import NO_DATE, DaysArray, check_threshold, grid_of
from urbandelta.report_page import gather
from urbandelta.scores import open_scores
from urbandelta.store import open_cube

if TYPE_CHECKING:
    from urbandelta.store import Cube

__all__ = ["ReportSummary", "cube_for", "read_truth", "render", "truth_beside", "write_report"]


@dataclass(frozen=True, kw_only=True)
class ReportSummary:
    """What was written, and the page's main figures; None where there is no truth to compare with."""

    path: Path
    bytes: int
    changed_ha: float
    scored_ha: float
    patches: int
    events: int
    roc_auc: float | None
    f1: float | None
    median_absolute_date_error_days: float | None


def write_report(
    scores_url: str,
    out_html: str | os.PathLike[str],
    *,
    cube_url: str | None = None,
    truth: str | os.PathLike[str] | None = None,
    title: str | None = None,
    threshold: float = 0.5,
    command: str | None = None,
    events: Sequence[Event] | None = None,
) -> ReportSummary:
    """Write the report on a score store as one HTML file; an existing file is replaced.

    Parameters
    ----------
    scores_url : str
    out_html : path
        Its folder must exist.
    cube_url : str, optional
        The cube the scores come from; by default the one that the scores name, if it is still there. Without a cube
        the page has no pictures of the scene and no list of acquisitions, and says so.
    truth : path, optional
        GeoTIFF of true change dates (int32 days since 1970-01-01, -1 none) on the same grid; by default
        `CUBE.truth.tif` beside the cube, if there is one.
    title : str, optional
    threshold : float
        A score that is at least this counts as change.
    command : str, optional
        How the report was asked for; shown in its provenance.
    events : sequence of Event, optional
        Those of these scores; found here, at the threshold, if not given.

    Raises
    ------
    ProductError
        If there is no window to report on, the threshold is outside 0..1, or the file cannot be written.
    StoreError
        If the scores, or the cube that was asked for, cannot be opened.
    GridError
        If scores, cube and truth do not share one grid.
    """
    scores = open_scores(scores_url)
    cube = cube_for(scores, cube_url)
    grid = cube.grid if cube is not None else grid_of(scores)
    where = truth if truth is not None else truth_beside(cube.url if cube is not None else None)
    dates = read_truth(where, grid) if where is not None else None
    check_threshold(threshold)
    if events is None:
        options = EventOptions(threshold=threshold, low=min(EventOptions().low, threshold))
        events = find_events(scores, options, cube=cube)
    page = gather(
        scores,
        cube,
        dates,
        title=title or Path(scores_url).name,
        threshold=threshold,
        command=command,
        events=events,
    )
    content = render(page).encode()
    write_whole(Path(out_html), content)
    match: Agreement | None = page["match"]
    return ReportSummary(
        path=Path(out_html),
        bytes=len(content),
        changed_ha=page["changed_ha"],
        scored_ha=page["scored_ha"],
        patches=page["patch_count"],
        events=page["events"]["count"],
        roc_auc=match.roc_auc if match else None,
        f1=match.f1 if match else None,
        median_absolute_date_error_days=match.median_absolute_date_error if match else None,
    )


def cube_for(scores: xr.Dataset, cube_url: str | None) -> Cube | None:
    """The cube at an address, or without one the cube that the scores name; None if that one is no longer there."""
    if cube_url is not None:
        return open_cube(cube_url)
    named = scores.attrs.get("cube_url")
    try:
        return open_cube(str(named)) if named else None
    except StoreError:  # the cube may have been moved or deleted since; its scores remain worth a report
        return None


def truth_beside(cube_url: str | None) -> Path | None:
    """The map of true dates that `simulate` writes beside a cube, if it exists."""
    if cube_url is None:
        return None
    path = Path(cube_url.removeprefix("file://").rstrip("/") + ".truth.tif")
    return path if path.exists() else None


def read_truth(path: str | os.PathLike[str], grid: Grid) -> DaysArray:
    """True change dates, int32 days since 1970-01-01, -1 none, shape (y, x).

    Raises
    ------
    SourceError
        If the file cannot be read.
    GridError
        If it lies on another grid.
    """
    try:
        with rasterio.open(path) as source:
            found = Grid(source.crs.to_wkt(), tuple(source.transform)[:6], source.height, source.width)
            days, nodata = source.read(1), source.nodata
    except (rasterio.errors.RasterioError, AttributeError) as error:
        raise SourceError(f"{path}: not a readable, georeferenced raster ({error})") from error
    same = found.crs == grid.crs and found.shape == grid.shape
    if not (same and np.allclose(found.transform, grid.transform, rtol=1e-9, atol=1e-9)):
        raise GridError(f"{path}: truth lies on {found}, the scores on {grid}; warp it to the cube's grid")
    return np.where((days == nodata) | (days < 0), NO_DATE, days).astype(np.int32)


def render(page: dict[str, Any]) -> str:
    """Lay the gathered values out as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report_template.html").render(page)


def _template(name: str) -> str:
    return resources.files("urbandelta").joinpath(name).read_text(encoding="utf-8")
