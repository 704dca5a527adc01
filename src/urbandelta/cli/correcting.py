"""`urbandelta toa`: Landsat digital numbers to reflectance, radiance and temperature."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from urbandelta.cli.progress import AsJson, print_json, progress_bar
from urbandelta.errors import ConfigError

_OURS = ("DRIVER", "HEIGHT", "WIDTH", "COUNT", "DTYPE", "CRS", "TRANSFORM", "NODATA")


def toa(
    mtl: Annotated[Path, typer.Argument(metavar="MTL", help="MTL file (text or JSON), scene folder, or archive.")],
    out: Annotated[Path, typer.Option("--out", metavar="TIF", help="GeoTIFF to write.")],
    dn: Annotated[
        Path | None,
        typer.Option("--dn", metavar="RASTER", help="Raster of digital numbers [the band files that the MTL names]."),
    ] = None,
    bands: Annotated[
        str, typer.Option(help="Bands to write, or those of --dn in its order, such as 1,2,3,6_VCID_1 [all but pan].")
    ] = "",
    kind: Annotated[
        Literal["toa", "reflectance", "radiance", "temperature"],
        typer.Option(help="What to make; toa: reflectance, and temperature of thermal bands."),
    ] = "toa",
    sun: Annotated[
        Literal["scene", "pixel"], typer.Option(help="Sun's elevation: as the MTL states it, or for each pixel.")
    ] = "scene",
    rescaling: Annotated[
        Literal["declared", "range"], typer.Option(help="Factors as declared, or from the declared minima and maxima.")
    ] = "declared",
    temperature: Annotated[Literal["K", "C", "F"], typer.Option(help="Unit of temperatures.")] = "K",
    dtype: Annotated[
        Literal["float32", "float64", "uint8", "uint16", "int16"], typer.Option(help="Type of the stored numbers.")
    ] = "float32",
    scale: Annotated[
        float | None, typer.Option(help="Units per step: stored = (value - offset) / scale [floats: 1].")
    ] = None,
    offset: Annotated[float, typer.Option(help="See --scale; not for temperatures.")] = 0.0,
    thermal_scale: Annotated[float | None, typer.Option(help="The same for temperatures [floats: 1].")] = None,
    qa: Annotated[bool, typer.Option("--qa", help="Hide what the scene's quality bands call unusable.")] = False,
    co: Annotated[
        list[str] | None,
        typer.Option("--co", metavar="NAME=VALUE", help="Option of GDAL's GeoTIFF driver; repeatable."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that holds something else.")] = False,
    as_json: AsJson = False,
) -> None:
    """Correct a Landsat Level-1 scene to the top of the atmosphere and write a GeoTIFF.

    Landsat 4 to 9, Collections 1 and 2 and older. Bands keep the order of the MTL or of --dn; fill becomes nodata.
    """
    from urbandelta.toa_raster import ToaOptions, parse_bands, write_toa

    options = ToaOptions(
        bands=parse_bands(bands),
        kind=kind,
        sun=sun,
        rescaling=rescaling,
        temperature=temperature,
        dtype=dtype,
        scale=scale,
        offset=offset,
        thermal_scale=thermal_scale,
        quality=qa,
        creation=tuple(_pair(text) for text in co or ()),
    )
    with progress_bar("toa") as progress:
        report = write_toa(mtl, out, options, dn=dn, overwrite=overwrite, progress=progress)
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        typer.echo(report.out)
    if report.kept:
        typer.echo(f"{report.out}: holds the same already and was left alone", err=True)
    if report.missing:
        typer.echo(f"left out, their files are not there: bands {', '.join(report.missing)}", err=True)
    if report.clipped:
        typer.echo(
            f"{report.clipped} values did not fit {dtype} and were clipped; choose other --scale, --offset or --dtype",
            err=True,
        )
    for note in report.notes:
        typer.echo(note, err=True)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ConfigError(f"--co {text!r}: expected NAME=VALUE, such as COMPRESS=LZW")
    if name.upper() in _OURS:
        raise ConfigError(f"--co {text!r}: is decided by other options; leave it out")
    return name, value
