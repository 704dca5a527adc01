"""Offers of sources that need no archive: folders that scenes are dropped into, and other cubes."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import numpy as np
import xarray as xr

from urbandelta.eras import Stream
from urbandelta.errors import ConfigError, SourceError, StoreError
from urbandelta.masking import BorderOptions, CloudOptions, MaskingRules
from urbandelta.offers import Offer, StreamOffers, Workspace
from urbandelta.sources.base import Declared, Found, Recipe, Scene, bands_of, describe_scene, read_scene
from urbandelta.sources.calibrate import Encoding, MaskRule
from urbandelta.sources.choices import Conversion
from urbandelta.sources.importing import ImportJob, NewCube, plan_import
from urbandelta.sources.stac import Period
from urbandelta.store import Cube, open_cube
from urbandelta.types import Acquisition, OrbitState

if TYPE_CHECKING:
    from urbandelta.monitor import FolderImport, Monitor

# Readers of local files keep them open and are not made for several threads.
_one_at_a_time = threading.Lock()


def from_folders(monitor: Monitor, imports: tuple[FolderImport, ...], period: Period, stream: Stream) -> StreamOffers:
    """What folders hold of one stream; files that cannot be read as described make it a failure."""
    offers: list[Offer] = []
    where = []
    for item in imports:
        if item.stream != stream.name:
            continue
        where.append(item.path)
        try:
            plan = plan_import(_job(monitor, item))
        except SourceError as error:
            return StreamOffers(stream=stream.name, where=item.path, failure=str(error))
        recipe = plan.source.recipe
        offers += [
            _file_offer(scene, recipe) for scene in plan.source.scenes if period.start <= scene.time < period.end
        ]
    return StreamOffers(
        stream=stream.name,
        where=", ".join(where),
        offers=tuple(sorted(offers, key=lambda offer: (offer.time, offer.item_id))),
    )


def from_cube(monitor: Monitor, url: str, period: Period, stream: Stream) -> StreamOffers:
    """What another cube holds of one stream.

    Raises
    ------
    ConfigError
        If it is of another era or grid.
    """
    path = url if "://" in url else str(monitor.resolve(url))
    try:
        other = open_cube(path)
    except StoreError as error:
        return StreamOffers(stream=stream.name, where=path, failure=str(error))
    if other.era.name != monitor.era or other.grid != monitor.make_grid():
        raise ConfigError(
            f"source.url: {path} is of era {other.era.name} on {other.grid}, the monitor of {monitor.era} on "
            f"{monitor.make_grid()}; they must agree"
        )
    return StreamOffers(stream=stream.name, where=path, offers=tuple(_cube_offers(other, stream.name, period)))


def _job(monitor: Monitor, item: FolderImport) -> ImportJob:
    if item.db and item.amplitude:
        raise ConfigError("source.imports: db and amplitude exclude each other")
    if bool(item.mask_band) != bool(item.mask_values):
        raise ConfigError("source.imports: mask_band and mask_values go together")
    conversion: Conversion = "db" if item.db else "amplitude" if item.amplitude else "none"
    masks = [MaskRule.cloud(item.cloud_mask)] if item.cloud_mask else []
    masks += [MaskRule.parse(item.mask_band, item.mask_values)] if item.mask_band else []
    return ImportJob(
        into=monitor.cube_url,
        stream=item.stream,
        find=functools.partial(_find, monitor, item),
        where=str(monitor.resolve(item.path)),
        new_cube=NewCube(era=monitor.era, grid=monitor.make_grid()),
        encoding=Encoding(
            scale=item.scale, offset=item.offset, conversion=conversion, nodata=item.nodata, masks=tuple(masks)
        ),
        zero=item.zero,
        declared=Declared(level=item.level, coefficient=item.coefficient, platform=item.platform),
        orbit=item.orbit,
        resampling=item.resampling,
        merge_within=item.merge_within,
        masking=MaskingRules(
            clouds=CloudOptions() if item.clouds else None, border=BorderOptions() if item.border_noise else None
        ),
    )


def _find(monitor: Monitor, item: FolderImport, stream: Stream) -> Found:
    source = monitor.resolve(item.path)
    valid = (MaskRule.valid(item.valid_band),) if item.valid_band else ()
    if item.format == "geotiff":
        from urbandelta.sources import geotiff
        from urbandelta.sources.pattern import compile_pattern

        naming = geotiff.Naming(pattern=compile_pattern(item.pattern or "*"), bands=item.bands or ())
        return Found(geotiff.find_scenes(source, naming), masks=valid)
    if item.pattern or item.bands:
        raise ConfigError(f"source.imports: pattern and bands belong to format geotiff, not {item.format}")
    if item.format == "netcdf":
        from urbandelta.sources import netcdf

        return Found(netcdf.find_scenes(source, netcdf.NetcdfOptions()), masks=valid)
    from urbandelta.sources import eopatch

    masks = tuple(name for name in (item.cloud_mask, item.mask_band) if name)
    return eopatch.find(source, stream, eopatch.PatchOptions(valid_mask=item.valid_band, masks=masks))


def _file_offer(scene: Scene, recipe: Recipe) -> Offer:
    info = describe_scene(scene, recipe)
    return Offer(
        stream=recipe.stream.name,
        time=scene.time,
        item_id=scene.item_id,
        read=functools.partial(_read_files, scene, recipe),
        platform=info.platform,
        relative_orbit=info.relative_orbit,
        bands=len(bands_of(scene, recipe.stream)),
        bytes=0,
        pass_seconds=0.0,
    )


def _read_files(scene: Scene, recipe: Recipe, workspace: Workspace) -> Acquisition:
    with _one_at_a_time:
        return read_scene(scene, recipe, workspace.grid)


def _cube_offers(other: Cube, name: str, period: Period) -> Iterator[Offer]:
    if name not in other.streams:
        return
    known = other.acquisitions(name).load()
    times = other.times(name)
    for index in np.flatnonzero((times >= period.start) & (times < period.end)):
        row = known.isel(time=int(index))
        yield Offer(
            stream=name,
            time=times[index],
            item_id=str(row["item_id"].item()),
            read=functools.partial(_read_cube, other, name, int(index), row),
            platform=str(row["platform"].item()),
            relative_orbit=int(row["relative_orbit"].item()),
            bands=len(other.bands(name)),
            bytes=0,
            pass_seconds=0.0,
        )


def _read_cube(other: Cube, name: str, index: int, row: xr.Dataset, workspace: Workspace) -> Acquisition:
    height, width = workspace.grid.shape
    values, mask = other.read_raw(name, slice(index, index + 1), slice(0, height), slice(0, width))
    encoding = other.attributes(name)
    orbit_state = str(row["orbit_state"].item())
    return Acquisition(
        time=other.times(name)[index],
        values=np.ascontiguousarray(values[0]),
        mask=mask[0],
        bands=other.bands(name),
        scale=encoding.scale,
        offset=encoding.offset,
        item_id=str(row["item_id"].item()),
        platform=str(row["platform"].item()),
        relative_orbit=int(row["relative_orbit"].item()),
        orbit_state=cast(OrbitState, orbit_state),
        processing_baseline=str(row["processing_baseline"].item()),
        processing_level=str(row["processing_level"].item()),
        boa_offset_applied=bool(row["boa_offset_applied"].item()),
        backscatter_coefficient=str(row["backscatter_coefficient"].item()),
        provenance=json.loads(str(row["provenance"].item()) or "{}") if "provenance" in row else {},
    )
