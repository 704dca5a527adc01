"""`urbandelta import`: scenes from files into a cube."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from urbandelta.cli.import_options import Bounds, ImportOptions, names_in, option, pairs_in
from urbandelta.cli.options import takes_options
from urbandelta.cli.progress import print_json, progress_bar
from urbandelta.errors import ConfigError

if TYPE_CHECKING:
    from urbandelta.eras import Stream
    from urbandelta.sources.base import Found, SceneInfo
    from urbandelta.sources.importing import ImportJob, ImportPlan, ImportReport

app = typer.Typer(no_args_is_help=True, help="Import scenes from files into a cube.")

_FILES = "Which files and bands"
_LANDSAT = "Landsat"


@app.command("eopatch")
@takes_options
def import_eopatch(
    source: Annotated[Path, typer.Argument(help="An EOPatch folder, or a folder of them.")],
    *,
    options: ImportOptions,
    feature: Annotated[str, option("--feature", "Feature with the values [the published pipeline's].", _FILES)] = "",
    bands: Annotated[str, option("--bands", "Names of its channels; - skips one [the stream's].", _FILES)] = "",
    source_bounds: Annotated[
        Bounds | None, option("--source-bounds", "WEST SOUTH EAST NORTH of patches without bbox.geojson.", _FILES)
    ] = None,
) -> None:
    """Import EOPatch folders, current or old layout; nothing is unpickled."""
    from urbandelta.sources import eopatch

    patch_options = eopatch.PatchOptions(
        feature=feature,
        bands=names_in(bands),
        valid_mask=options.valid_band,
        masks=options.mask_names,
        bounds=source_bounds,
        crs=options.source_crs,
    )

    def find(stream: Stream) -> Found:
        return eopatch.find(source, stream, patch_options)

    _run(options.job(source, find), options)


@app.command("geotiff")
@takes_options
def import_geotiff(
    source: Annotated[Path, typer.Argument(help="A raster (GeoTIFF, COG, JPEG 2000) or a folder of them.")],
    *,
    options: ImportOptions,
    pattern: Annotated[
        str, option("--pattern", "Names with fields, such as '*_{date:%Y%m%dT%H%M%SZ}_{band}.tif'.", _FILES)
    ] = "*",
    bands: Annotated[str, option("--bands", "Names of the bands of each file; - skips one.", _FILES)] = "",
    rename: Annotated[str, option("--rename", "Band names, OLD=NEW,OLD=NEW.", _FILES)] = "",
    date: Annotated[str, option("--date", "Time of the only acquisition.", _FILES)] = "",
    dates: Annotated[
        Path | None, option("--dates", "Text file with KEY: DATE for each {scene} of the pattern.", _FILES)
    ] = None,
    layout: Annotated[
        str, option("--layout", "One file stacks a series: names of the bands of one date, in order.", _FILES)
    ] = "",
    first_date: Annotated[str, option("--first-date", "With --layout: the first date.", _FILES)] = "",
    every: Annotated[str, option("--every", "With --layout: time between dates, 1M, 5D or 12h.", _FILES)] = "",
    steps: Annotated[int, option("--steps", "With --layout: number of dates.", _FILES)] = 0,
) -> None:
    """Import GeoTIFF, COG or JPEG 2000 files, found by a name pattern or stacked in one file."""
    from urbandelta.sources import geotiff, stack
    from urbandelta.sources.base import Found
    from urbandelta.sources.pattern import compile_pattern, parse_time

    if layout:
        if not (first_date and every and steps) or pattern != "*" or bands or rename or date or dates:
            raise ConfigError("--layout goes with --first-date, --every and --steps, and with no other file option")
        series = stack.parse_layout(
            layout, start=parse_time(first_date, where="--first-date"), every=every, steps=steps
        )
        scenes = functools.partial(stack.find_scenes, source, series, crs=options.source_crs)
    else:
        if first_date or every or steps:
            raise ConfigError("--first-date, --every and --steps describe a --layout; give one")
        naming = geotiff.Naming(
            pattern=compile_pattern(pattern),
            bands=names_in(bands),
            rename=pairs_in(rename),
            date=parse_time(date, where="--date") if date else None,
            dates=geotiff.read_dates(dates) if dates else {},
            crs=options.source_crs,
        )
        scenes = functools.partial(geotiff.find_scenes, source, naming)
    _run(options.job(source, lambda _: Found(scenes(), masks=options.valid_rules)), options)


@app.command("netcdf")
@takes_options
def import_netcdf(
    source: Annotated[Path, typer.Argument(help="A NetCDF file, or a folder of them.")],
    *,
    options: ImportOptions,
    files: Annotated[str, option("--files", "File names of a folder, such as 'S2_*.nc'.", _FILES)] = "*.nc",
    rename: Annotated[str, option("--rename", "Variable to band, OLD=NEW,OLD=NEW.", _FILES)] = "",
) -> None:
    """Import NetCDF time series; variables may lie on grids of different pixel size."""
    from urbandelta.sources import netcdf
    from urbandelta.sources.base import Found

    netcdf_options = netcdf.NetcdfOptions(files=files, rename=pairs_in(rename), crs=options.source_crs)
    _run(
        options.job(source, lambda _: Found(netcdf.find_scenes(source, netcdf_options), masks=options.valid_rules)),
        options,
    )


@app.command("landsat")
@takes_options
def import_landsat(
    source: Annotated[
        Path, typer.Argument(help="A Level-1 scene (its MTL file, folder or archive), or a folder of many.")
    ],
    *,
    options: ImportOptions,
    sun: Annotated[
        Literal["scene", "pixel"], option("--sun", "Sun's elevation: the scene's, or one for each pixel.", _LANDSAT)
    ] = "scene",
    thermal: Annotated[
        Literal["scaled", "kelvin"],
        option("--thermal", "Thermal band: 0..1 over Landsat 5's range of radiance, or kelvin.", _LANDSAT),
    ] = "scaled",
    rescaling: Annotated[
        Literal["declared", "range"],
        option("--rescaling", "Factors as declared, or from the declared range.", _LANDSAT),
    ] = "declared",
    quality: Annotated[
        Literal["auto", "none"], option("--quality", "Mask by the quality bands that the MTL names.", _LANDSAT)
    ] = "auto",
    dilated_cloud: Annotated[
        bool, option("--dilated-cloud/--no-dilated-cloud", "Collection 2: mask the margin around clouds.", _LANDSAT)
    ] = True,
) -> None:
    """Import Landsat 4 to 9 Level-1 scenes, corrected to the top of the atmosphere and masked by their quality bands.

    Archives (.tar, .tar.gz) are read where they lie.
    """
    from urbandelta.sources import landsat

    landsat_options = landsat.LandsatOptions(
        sun=sun, thermal=thermal, rescaling=rescaling, quality=quality, dilated_cloud=dilated_cloud
    )
    _run(options.job(source, lambda stream: landsat.find(source, stream, landsat_options)), options)


def _run(job: ImportJob, options: ImportOptions) -> None:
    from urbandelta.sources.importing import plan_import, run_import

    plan = plan_import(job)
    if options.dry_run:
        _print_scenes(plan, as_json=options.json)
        return
    with progress_bar(f"import {job.stream}") as progress:
        report = run_import(plan, progress=progress)
    if options.json:
        print_json(dataclasses.asdict(report))
        return
    typer.echo(
        f"{job.into}: {report.added} acquisitions added to {job.stream}, {report.skipped} were there already"
        f"{_left_out(plan)}{_empty(report)}; snapshot {report.snapshot}"
    )


def _print_scenes(plan: ImportPlan, *, as_json: bool) -> None:
    rows = [_as_row(info) for info in plan.source.describe()]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo("  ".join(str(value) for value in row.values() if value not in ("", None)))
    typer.echo(f"{len(rows)} acquisitions would go onto {plan.source.grid}{_left_out(plan)}")


def _left_out(plan: ImportPlan) -> str:
    reasons = ((plan.other_orbit, "of the other orbit direction"), (plan.outside, "outside the grid"))
    return "".join(f", {count} {reason} left out" for count, reason in reasons if count)


def _empty(report: ImportReport) -> str:
    reasons = ((report.empty, "without data on the grid dropped"), (report.noted, "known to be empty not read again"))
    return "".join(f", {count} {reason}" for count, reason in reasons if count)


def _as_row(info: SceneInfo) -> dict[str, object]:
    import numpy as np

    return {
        "time": f"{np.datetime_as_string(info.time, 's')}Z",
        "bands": ",".join(info.bands),
        "platform": info.platform,
        "orbit_state": info.orbit_state,
        "relative_orbit": info.relative_orbit if info.relative_orbit >= 0 else None,
        "item_id": info.item_id,
    }
