"""A simulated scene: its truth, and its acquisitions one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from urbandelta.eras import ERAS, Era
from urbandelta.errors import ConfigError
from urbandelta.grid import Grid
from urbandelta.simulate import optical, radar
from urbandelta.simulate.landscape import Landscape, draw_landscape
from urbandelta.simulate.noise import generator
from urbandelta.simulate.optical import OpticalSensor
from urbandelta.simulate.radar import RadarSensor
from urbandelta.simulate.recipes import SceneRecipe, recipe_for
from urbandelta.simulate.revisit import Pass, passes
from urbandelta.simulate.weather import wetness
from urbandelta.types import Acquisition, Array, FloatArray, MaskArray

NO_CHANGE = -1
"""Truth of pixels on which nothing is built."""
Camera: TypeAlias = Callable[[np.random.Generator, Pass], tuple[Array, MaskArray]]
"""Draws the values and the mask of one pass."""

_SMALLEST = 32
_DAYS_A_MONTH = 30.4375
# Times are nanoseconds since 1970, which reach from 1678 to 2261.
_FIRST_START, _LAST_START = np.datetime64("1700-01-01"), np.datetime64("2200-01-01")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A scene whose changes are known; made by `simulate`.

    `acquisitions` draws one image at a time, so memory depends on the size of the scene and not on its length.
    """

    era: Era
    grid: Grid
    start: np.datetime64
    """Midnight UTC at which the series begins."""
    days: int
    seed: int
    looks: int
    cloudiness: float
    lost: tuple[str, float, float] | None
    """Platform that fails, from and to which fraction of the series."""
    landscape: Landscape
    moisture: FloatArray
    """Soil moisture of every day, 0..1 (day,)."""
    recipe: SceneRecipe

    @property
    def land_cover(self) -> Array:
        """Classes before any construction, uint8 of `LandCover` (y, x)."""
        return self.landscape.land_cover

    @property
    def truth(self) -> Array:
        """Day on which construction begins, int32 days since 1970-01-01 (y, x); -1 where nothing is built."""
        return self._map(self.landscape.construction.start)

    @property
    def completed(self) -> Array:
        """Day from which a changed pixel has its final look, as `truth`; may lie behind the end of the series."""
        return self._map(np.ceil(self.landscape.construction.end))

    def _map(self, days: FloatArray) -> Array:
        image = np.full(self.grid.shape, NO_CHANGE, np.int32)
        image.flat[self.landscape.construction.pixels] = days.astype(np.int32)
        return image

    def passes(self, stream_name: str) -> tuple[Pass, ...]:
        """Acquisitions of a stream in time order, without drawing them."""
        number = self.era.stream_names.index(self.era.stream(stream_name).name)
        orbits = self.recipe.streams[stream_name].orbits
        return passes(self.seed, number, orbits, start=self.start, days=self.days, lost=self.lost)

    def acquisitions(self, stream_name: str) -> Iterator[Acquisition]:
        """Draw the acquisitions of a stream, one after the other in time order.

        Raises
        ------
        ConfigError
            If the era has no such stream.
        """
        stream = self.era.stream(stream_name)
        number = self.era.stream_names.index(stream_name)
        recipe = self.recipe.streams[stream_name]
        camera = _camera(self, recipe.sensor, number)
        for visit in self.passes(stream_name):
            values, mask = camera(generator(self.seed, 10, number, visit.number), visit)
            seconds = visit.time.astype("datetime64[s]")
            yield Acquisition(
                time=visit.time,
                values=values,
                mask=mask,
                bands=stream.bands,
                scale=recipe.sensor.scale if isinstance(recipe.sensor, OpticalSensor) else 1.0,
                item_id=f"simulated_{self.era.name}_{self.seed}_{stream_name}_{seconds}",
                platform=visit.platform,
                relative_orbit=visit.relative_orbit,
                orbit_state=stream.orbit_state,
                processing_baseline=recipe.processing_baseline,
                processing_level=stream.processing_level,
                backscatter_coefficient=stream.backscatter_coefficient,
                provenance={"source": "simulated", "seed": self.seed},
            )

    def day(self, time: np.datetime64) -> float:
        """Days since 1970-01-01, with the time of day as a fraction."""
        return float(time.astype("datetime64[s]").astype(np.int64)) / 86_400

    def wet(self, time: np.datetime64) -> float:
        """Soil moisture at a time, 0..1."""
        return float(self.moisture[int((time - self.start) / np.timedelta64(1, "D"))])


def simulate(
    era_name: str,
    *,
    size: int = 128,
    months: int = 24,
    seed: int = 7,
    start: str | np.datetime64 | None = None,
    looks: int | None = None,
    cloudiness: float = 0.5,
    lost_satellite: bool = True,
) -> Scene:
    """Draw a scene in which everything that changes is known.

    The same arguments give the same scene. Fields bear another crop every year, meadows are mown, leaves fall, soil is
    wet after rain: none of that is urban change. On 2.5 to 4.5 % of the pixels, fields or meadows become building sites
    at known dates and then halls, houses or car parks; a third of them in each part of the series. The date of change
    is the day on which construction begins.

    Parameters
    ----------
    era_name : str
        A row of `eras.ERAS`.
    size : int
        Height and width in pixels of the era's grid.
    months : int
        Length of the series.
    seed : int
        Chooses the scene.
    start : str or datetime64, optional
        First day; by default one at which both satellites of each constellation flew.
    looks : int, optional
        Equivalent looks of the radar's speckle; by default what the era's label rule assumes.
    cloudiness : float
        Mean share of clouds over the year, 0..1; winter is cloudier than summer.
    lost_satellite : bool
        Whether one radar satellite fails for some months.

    Returns
    -------
    Scene

    Raises
    ------
    ConfigError
        If the era cannot be simulated or a number is out of range.
    """
    recipe = recipe_for(era_name)
    era = ERAS[era_name]
    if size < _SMALLEST:
        raise ConfigError(f"a simulated scene needs at least {_SMALLEST} pixels a side, not {size}")
    if months < 1:
        raise ConfigError(f"a simulated series needs at least one month, not {months}")
    if seed < 0:
        raise ConfigError(f"the seed must not be negative, but is {seed}")
    if not 0 <= cloudiness <= 0.95:
        raise ConfigError(f"cloudiness must lie between 0 and 0.95, not {cloudiness}")
    looks = round(era.label.looks) if looks is None else looks
    if looks < 1:
        raise ConfigError(f"speckle needs at least one look, not {looks}")
    first = _midnight(recipe.start if start is None else start)
    days = round(months * _DAYS_A_MONTH)
    first_day = int(first.astype("datetime64[D]").astype(np.int64))
    west, north = recipe.origin
    return Scene(
        era=era,
        grid=Grid(recipe.crs, (era.pixel_m, 0.0, west, 0.0, -era.pixel_m, north), size, size),
        start=first,
        days=days,
        seed=seed,
        looks=looks,
        cloudiness=cloudiness,
        lost=recipe.lost if lost_satellite else None,
        landscape=draw_landscape(
            seed,
            (size, size),
            (first_day, first_day + days),
            parcel_px=recipe.parcel_px,
            largest_px=recipe.largest_building_px,
        ),
        moisture=wetness(seed, first_day=first_day, days=days),
        recipe=recipe,
    )


def _camera(scene: Scene, sensor: OpticalSensor | RadarSensor, number: int) -> Camera:
    """What draws the images of stream `number`; draws what never changes in them once."""
    ground = scene.landscape
    shape, parcel = scene.grid.shape, ground.parcel
    if isinstance(sensor, OpticalSensor):
        texture = optical.ground_texture(scene.seed, shape, parcel)

        def photograph(rng: np.random.Generator, visit: Pass) -> tuple[Array, MaskArray]:
            day, wet = scene.day(visit.time), scene.wet(visit.time)
            cover = ground.cover(day)
            return optical.look(rng, cover, texture, sensor, day=day, wet=wet, cloudiness=scene.cloudiness)

        return photograph

    roughness, bounce = radar.ground_roughness(scene.seed, number, shape, parcel)

    def illuminate(rng: np.random.Generator, visit: Pass) -> tuple[Array, MaskArray]:
        cover = ground.cover(scene.day(visit.time))
        values = radar.look(rng, cover, roughness, bounce, sensor, wet=scene.wet(visit.time), looks=scene.looks)
        return values, np.zeros(shape, np.uint8)

    return illuminate


def _midnight(moment: str | np.datetime64) -> np.datetime64:
    try:
        midnight: np.datetime64 = np.datetime64(moment).astype("datetime64[D]").astype("datetime64[s]")
    except ValueError:
        raise ConfigError(f"start {moment!r} is not a date; write it as YYYY-MM-DD") from None
    if np.isnat(midnight):
        raise ConfigError("start is not a date; write it as YYYY-MM-DD")
    if not _FIRST_START <= midnight < _LAST_START:
        raise ConfigError(f"start {midnight} is outside {_FIRST_START} to {_LAST_START}; choose a nearer date")
    return midnight
