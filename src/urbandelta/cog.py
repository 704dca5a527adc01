"""One map as a cloud-optimised GeoTIFF, written whole or not at all.

A file carries the digest of its content in its tags, so that a second run can tell "the same already" from "another
result".
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
import rasterio.shutil

from urbandelta.errors import ProductError, ShapeError
from urbandelta.grid import Grid
from urbandelta.types import Array


def write_cog(
    path: str | os.PathLike[str],
    array: Array,
    grid: Grid,
    *,
    nodata: float,
    tags: Mapping[str, str],
    description: str = "",
    colormap: Mapping[int, tuple[int, int, int, int]] | None = None,
    categories: bool = False,
) -> None:
    """Write one map as a cloud-optimised GeoTIFF with overviews and statistics.

    The file is written beside its target and renamed, so a reader never sees half of it.

    Parameters
    ----------
    path : path
        Target; its folder must exist. An existing file is replaced.
    array : ndarray, shape (y, x)
    grid : Grid
    nodata : float
        Value of pixels without a result; NaN for scores, -1 for dates and counts.
    tags : mapping of str to str
        Metadata of the file: what the map is, and its provenance.
    description : str
        Name of the band.
    colormap : mapping of int to (red, green, blue, alpha), optional
        Palette, for uint8 maps only.
    categories : bool
        Overviews by nearest neighbour, for values that must not be averaged (dates, counts, classes);
        otherwise by average.

    Raises
    ------
    ShapeError
        If the array does not have the grid's shape, or a palette is given for other than uint8.
    ProductError
        If the file cannot be written.
    """
    path = Path(path)
    if array.shape != (grid.height, grid.width):
        raise ShapeError(f"{path.name}: map of shape {array.shape}, but the grid has {(grid.height, grid.width)}")
    if colormap is not None and array.dtype != np.uint8:
        raise ShapeError(f"{path.name}: a palette needs a uint8 map, this one is {array.dtype}")
    profile = {
        "driver": "GTiff", "height": grid.height, "width": grid.width, "count": 1, "dtype": array.dtype,
        "crs": grid.crs, "transform": rasterio.Affine(*grid.transform), "nodata": nodata,
    }  # fmt: skip
    # Composed in memory: GDAL would leave an .aux.xml on disk, and reports a full disk less plainly than Python.
    with rasterio.MemoryFile() as plain, rasterio.MemoryFile() as cog:
        with plain.open(**profile) as target:
            target.write(array, 1)
            target.update_tags(**tags)
            if description:
                target.set_band_description(1, description)
            if colormap is not None:
                target.write_colormap(1, dict(colormap))
        with rasterio.Env(GDAL_PAM_ENABLED="NO"), plain.open() as source:
            rasterio.shutil.copy(source, cog.name, driver="COG", **_cog_options(array, categories))
        write_whole(path, cog.getbuffer())


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file beside its target and rename it, so that no reader sees half of it.

    Raises
    ------
    ProductError
        If that fails; the target is then as it was.
    """
    if not path.name:
        raise ProductError(f"{str(path)!r} is no name of a file; give one")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise ProductError(f"{path}: cannot write this file ({error}); check its folder and the free space") from error
    finally:
        temporary.unlink(missing_ok=True)


def _cog_options(array: Array, categories: bool) -> dict[str, str]:
    # The driver makes no overview for an image within one block; a 128 px scene still deserves a quick look.
    overviews = max(1, int(np.ceil(np.log2(max(max(array.shape) / 512, 1)))))
    return {
        "COMPRESS": "DEFLATE",
        "PREDICTOR": "YES",
        "BLOCKSIZE": "512",
        "OVERVIEW_COUNT": str(overviews),
        "OVERVIEW_RESAMPLING": "NEAREST" if categories else "AVERAGE",
        "STATISTICS": "YES",
        "BIGTIFF": "IF_SAFER",
    }


def next_action(path: Path, known: str | None, wanted: str, *, overwrite: bool) -> Literal["keep", "write"]:
    """Whether to write a file, from the content digests of the existing file (None: no file) and of the new one.

    Raises
    ------
    ProductError
        If the file holds something else and may not be overwritten.
    """
    if known == wanted:
        return "keep"
    if known is None or overwrite:
        return "write"
    raise ProductError(f"{path} holds another result; choose another folder or pass --overwrite")


def known_digest(path: Path) -> str | None:
    """Content digest that the file at `path` carries, "unknown" if it carries none, None if there is no file."""
    if not path.exists():
        return None
    try:
        with rasterio.open(path) as source:
            return str(source.tags().get("content_sha256", "unknown"))
    except rasterio.errors.RasterioError:
        return "unreadable"


def content_digest(array: Array, grid: Grid, tags: Mapping[str, str]) -> str:
    """SHA-256 over a map's pixels, their type and shape, its grid and its tags."""
    header = json.dumps([grid.crs, list(grid.transform), array.dtype.str, list(array.shape), dict(tags)])
    return hashlib.sha256(header.encode() + np.ascontiguousarray(array).tobytes()).hexdigest()
