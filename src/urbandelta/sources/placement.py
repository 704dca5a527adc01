"""Where published tiles lie, which their files do not say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from urbandelta.errors import ConfigError, GridError
from urbandelta.grid import Grid
from urbandelta.store import open_cube


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Grid of an area that was cut into tiles from its north-west corner.

    That of a raster or cube (`grid_from`), or `bounds` (west, south, east, north) in `crs`. `shape` is the height and
    width of the area in pixels: cutting drops what is left over beyond whole tiles, so the tiles can end before the
    area does. Without it they do not.
    """

    grid_from: Path | None = None
    bounds: tuple[float, float, float, float] | None = None
    crs: str | None = None
    shape: tuple[int, int] | None = None

    @property
    def cube(self) -> str:
        """The cube that the grid is taken from, or "" if it is none."""
        return str(self.grid_from) if self.grid_from is not None and self.grid_from.is_dir() else ""

    def grid(self, extent: tuple[int, int], *, where: str) -> Grid | None:
        """The grid of the area, or None if nothing was said.

        Parameters
        ----------
        extent : (int, int)
            Height and width in pixels that the tiles reach.
        where : str
            What messages call the tiles.

        Raises
        ------
        ConfigError
            If the options contradict each other.
        GridError
            If the area is smaller than its tiles.
        """
        given = (self.bounds, self.crs, self.shape)
        if self.grid_from is not None:
            if any(value is not None for value in given):
                raise ConfigError("--grid-from says it all; leave out --source-bounds, --source-crs and --source-shape")
            found = open_cube(self.cube).grid if self.cube else Grid.from_raster(self.grid_from)
        elif all(value is None for value in given):
            return None
        elif self.bounds is None or self.crs is None:
            raise ConfigError("--source-bounds and --source-crs go together, with --source-shape if need be")
        else:
            found = Grid.from_bounds(self.bounds, self.crs, extent if self.shape is None else self.shape)
        require_room(extent, found, where=where)
        return found


def require_room(extent: tuple[int, int], grid: Grid, *, where: str) -> None:
    """Raise `GridError` if tiles reach beyond a grid."""
    if extent[0] > grid.height or extent[1] > grid.width:
        raise GridError(
            f"{where}: its tiles reach over {extent[0]} x {extent[1]} px, the area has {grid.height} x {grid.width}; "
            "they do not belong together"
        )
