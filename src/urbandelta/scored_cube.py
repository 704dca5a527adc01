"""The cube that scores come from, as it was when they were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from urbandelta.errors import StoreError
from urbandelta.products import grid_of
from urbandelta.store import open_cube

if TYPE_CHECKING:
    from urbandelta.store import Cube


def scored_cube(scores: xr.Dataset) -> Cube | None:
    """The cube that scores name, at the snapshot that they name; None if it is no longer there."""
    url, snapshot = (str(scores.attrs.get(name, "")) for name in ("cube_url", "cube_snapshot"))
    if not url:
        return None
    try:
        cube = open_cube(url, snapshot=snapshot or None)
    except StoreError:  # moved or deleted since; the scores alone still date changes
        return None
    # Another cube may have taken its place.
    return cube if cube.grid == grid_of(scores) else None
