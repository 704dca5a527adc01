"""What every importer shares: scenes made of layers, and the one path from a scene to an acquisition.

A source module only says which numbers lie where (`Layer`, `Part`, `Scene`) without reading a pixel. What the numbers
mean (`calibrate`) and where they go (`resample`) is the same for all of them and happens here, one scene at a time.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from urbandelta.eras import Stream
from urbandelta.errors import ConfigError, SourceError
from urbandelta.grid import Grid
from urbandelta.sources.calibrate import Decoded, Encoding, MaskRule, decode
from urbandelta.sources.choices import Resampling
from urbandelta.sources.resample import covering_window, crop, onto_grid, union
from urbandelta.types import Acquisition, Array, BoolArray, MaskArray, MaskReason, OrbitState

if TYPE_CHECKING:
    from urbandelta.masking import MaskingRules
    from urbandelta.matching import Matching

_LONGEST_PASS_SECONDS = 86_400
_NODATA = int(MaskReason.NODATA)
_UNSEEN = _NODATA | int(MaskReason.BORDER_NOISE)
# A layer beside the grid is still asked for one pixel, which tells the type; resampling then finds nothing inside.
_ANY_PIXEL = (slice(0, 1), slice(0, 1))


class Layer(Protocol):
    """One band of one file at one moment, with what the file declares about it."""

    @property
    def grid(self) -> Grid:
        """Where its pixels lie."""

    @property
    def origin(self) -> str:
        """File (and band) for messages."""

    @property
    def nodata(self) -> float | None:
        """Value that the file declares as missing."""

    @property
    def scale(self) -> float:
        """Declared scale; 1 if none."""

    @property
    def offset(self) -> float:
        """Declared offset; 0 if none."""

    def read(self, rows: slice, columns: slice) -> tuple[Array, BoolArray | None]:
        """Stored numbers of a window (y, x), and which of them the file itself masks out (None: says nothing)."""


@dataclass(frozen=True, eq=False)
class WrappedLayer:
    """What a layer declares that changes only how another one's numbers are read; its subclasses have `read`."""

    layer: Layer

    @property
    def grid(self) -> Grid:
        """Where its pixels lie."""
        return self.layer.grid

    @property
    def origin(self) -> str:
        """File for messages."""
        return self.layer.origin

    @property
    def nodata(self) -> float | None:
        """Value that the file declares as missing."""
        return self.layer.nodata

    @property
    def scale(self) -> float:
        """Declared scale."""
        return self.layer.scale

    @property
    def offset(self) -> float:
        """Declared offset, of the numbers as they are stored."""
        return self.layer.offset


@dataclass(frozen=True, eq=False)
class Part:
    """One granule of a scene: layers by band name. A pixel takes all its bands from one part."""

    layers: Mapping[str, Layer]
    item_id: str


@dataclass(frozen=True, eq=False)
class Scene:
    """One acquisition in files: one part, or several that are merged (earlier parts first)."""

    time: np.datetime64
    parts: tuple[Part, ...]
    platform: str = ""
    relative_orbit: int = -1
    orbit_state: OrbitState = ""
    processing_baseline: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """What the source itself did to the numbers; goes into the acquisition's provenance."""

    @property
    def item_id(self) -> str:
        """Identifiers of the parts."""
        return " + ".join(part.item_id for part in self.parts)


@dataclass(frozen=True)
class Found:
    """What a source module found: scenes, masks that always apply, and what its features are known to be."""

    scenes: Sequence[Scene]
    masks: tuple[MaskRule, ...] = ()
    level: str = ""
    coefficient: str = ""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What the user says about all acquisitions of an import; empty values leave what the files say."""

    level: str = ""
    coefficient: str = ""
    platform: str = ""
    orbit_state: OrbitState = ""
    relative_orbit: int = -1
    baseline: str = ""
    boa_offset_applied: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How scenes become acquisitions of one stream; recorded whole in each acquisition's provenance."""

    stream: Stream
    encoding: Encoding
    declared: Declared = field(default_factory=Declared)
    resampling: Resampling = "nearest"
    source: str = ""
    matching: Matching | None = None
    """Gain that all values are multiplied by; it goes into the acquisitions' scale, the stored numbers stay."""
    masking: MaskingRules | None = None
    """What is masked besides what the files say; looks at neighbours, so scenes are then read whole."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the provenance."""
        return {
            "source": self.source,
            "stream": self.stream.name,
            "encoding": self.encoding.as_dict(),
            "declared": {name: value for name, value in vars(self.declared).items() if value not in ("", -1)},
            "resampling": self.resampling,
            **({"matching": self.matching.as_dict()} if self.matching is not None else {}),
            **({"masking": self.masking.as_dict()} if self.masking is not None else {}),
        }


@dataclass(frozen=True, kw_only=True)
class SceneInfo:
    """What a dry run shows of one acquisition."""

    time: np.datetime64
    bands: tuple[str, ...]
    platform: str
    relative_orbit: int
    orbit_state: OrbitState
    item_id: str


class Source(Protocol):
    """A place that acquisitions come from."""

    def describe(self) -> Sequence[SceneInfo]:
        """What there is, in order of time, without reading pixels."""

    def acquisitions(self) -> Iterator[Acquisition]:
        """The acquisitions on the cube's grid, in order of time, one in memory at a time."""


@dataclass(frozen=True, eq=False)
class SceneSource:
    """Scenes of files, read by a recipe onto a grid."""

    scenes: tuple[Scene, ...]
    recipe: Recipe
    grid: Grid

    def describe(self) -> tuple[SceneInfo, ...]:
        """What there is, in order of time, without reading pixels."""
        return tuple(describe_scene(scene, self.recipe) for scene in self.scenes)

    def acquisitions(self) -> Iterator[Acquisition]:
        """The acquisitions on the cube's grid, in order of time, one in memory at a time."""
        for scene in self.scenes:
            yield read_scene(scene, self.recipe, self.grid)


def describe_scene(scene: Scene, recipe: Recipe) -> SceneInfo:
    """What a dry run shows of a scene."""
    declared = recipe.declared
    return SceneInfo(
        time=scene.time,
        bands=bands_of(scene, recipe.stream),
        platform=declared.platform or scene.platform,
        relative_orbit=declared.relative_orbit if declared.relative_orbit >= 0 else scene.relative_orbit,
        orbit_state=declared.orbit_state or scene.orbit_state,
        item_id=scene.item_id,
    )


def bands_of(scene: Scene, stream: Stream) -> tuple[str, ...]:
    """Bands of the stream that all parts of a scene hold, in the stream's order."""
    return tuple(band for band in stream.bands if all(band in part.layers for part in scene.parts))


def overlaps(scene: Scene, recipe: Recipe, grid: Grid) -> bool:
    """Whether any part of a scene reaches the grid."""
    bands = bands_of(scene, recipe.stream)
    return any(covering_window(part.layers[bands[0]].grid, grid) is not None for part in scene.parts)


def native_grid(scene: Scene, stream: Stream) -> Grid:
    """Smallest grid on the pixels of the scene's finest band that covers all its bands."""
    return union([part.layers[band].grid for part in scene.parts for band in bands_of(scene, stream)])


def check_scenes(scenes: Sequence[Scene], recipe: Recipe, *, where: str) -> tuple[Scene, ...]:
    """Sort scenes by time and refuse what could only be stored wrongly.

    Raises
    ------
    SourceError
        If there is none, none holds a band of the stream, two share a time, their bands differ, or a mask band is
        missing.
    """
    ordered = tuple(sorted(scenes, key=lambda scene: (scene.time, scene.item_id)))
    stream = recipe.stream
    if not any(bands_of(scene, stream) for scene in ordered):
        masks = {rule.band for rule in recipe.encoding.masks}
        found = sorted({band for scene in ordered for part in scene.parts for band in part.layers} - masks)
        raise SourceError(
            f"{where}: holds no band of stream {stream.name} ({', '.join(stream.bands)}); "
            f"found {', '.join(found[:20]) or 'nothing'}; name them with --bands or --rename OLD=NEW"
        )
    _check_bands(ordered, stream, where)
    for scene in ordered:
        for rule in recipe.encoding.masks:
            if not all(rule.band in part.layers for part in scene.parts):
                raise SourceError(f"{scene.item_id}: has no mask band {rule.band}; leave it out or correct its name")
    for earlier, later in pairwise(ordered):
        if earlier.time == later.time:
            moment = np.datetime_as_string(earlier.time, "s")
            raise SourceError(
                f"{where}: {earlier.item_id} and {later.item_id} have the same time {moment}Z; "
                "narrow the selection, or merge them with --merge-within 0"
            )
    return ordered


def merge_scenes(scenes: Sequence[Scene], *, seconds: float) -> list[Scene]:
    """Join scenes of one pass: same platform and orbit, at most `seconds` after the first of the group.

    The merged scene has the time of its first part.
    """
    if not 0 <= seconds < _LONGEST_PASS_SECONDS:
        raise ConfigError(
            f"cannot merge scenes {seconds:g} s apart; one pass takes less than {_LONGEST_PASS_SECONDS} s"
        )
    merged: list[Scene] = []
    limit = np.timedelta64(round(seconds * 1e9), "ns")
    for scene in sorted(scenes, key=lambda scene: (scene.time, scene.item_id)):
        group = next(
            (
                index
                for index in range(len(merged) - 1, -1, -1)
                if scene.time - merged[index].time <= limit and _one_pass(scene, merged[index])
            ),
            None,
        )
        if group is None:
            merged.append(scene)
        else:
            merged[group] = replace(merged[group], parts=merged[group].parts + scene.parts)
    return merged


def read_scene(scene: Scene, recipe: Recipe, grid: Grid) -> Acquisition:
    """Read one scene onto a grid.

    Raises
    ------
    SourceError
        If a file cannot be read or its numbers are not what was declared; the message names the file.
    """
    bands = bands_of(scene, recipe.stream)
    image = _read_part(scene.parts[0], bands, recipe, grid)
    for part in scene.parts[1:]:
        image = _merge(image, _read_part(part, bands, recipe, grid))
    info = describe_scene(scene, recipe)
    gain = 1.0 if recipe.matching is None else recipe.matching.gain
    acquisition = Acquisition(
        time=scene.time,
        values=image.values,
        mask=image.mask,
        bands=bands,
        scale=image.scale * gain,
        offset=image.offset * gain,
        item_id=scene.item_id,
        platform=info.platform,
        relative_orbit=info.relative_orbit,
        orbit_state=info.orbit_state,
        processing_baseline=recipe.declared.baseline or scene.processing_baseline,
        processing_level=recipe.declared.level,
        boa_offset_applied=recipe.declared.boa_offset_applied,
        backscatter_coefficient=recipe.declared.coefficient,
        provenance={
            **scene.provenance,
            **recipe.as_dict(),
            "files": origins(scene, (*bands, *(r.band for r in recipe.encoding.masks))),
        },
    )
    return acquisition if recipe.masking is None else _masked(acquisition, recipe.masking, grid)


def origins(scene: Scene, bands: Sequence[str]) -> list[str]:
    """Files that the given bands of a scene come from."""
    return sorted({part.layers[band].origin for part in scene.parts for band in bands})


@dataclass(frozen=True, eq=False)
class _Image:
    values: Array  # (y, x, band)
    mask: MaskArray  # (y, x)
    scale: float
    offset: float


_LayerImage: TypeAlias = tuple[Array, BoolArray]


def _read_part(part: Part, bands: Sequence[str], recipe: Recipe, grid: Grid) -> _Image:
    decoded = [_read_band(part.layers[band], recipe, grid) for band in bands]
    if len({(band.scale, band.offset, band.values.dtype) for band in decoded}) > 1:
        # One image has one encoding: bands that differ meet in physical units.
        decoded = [band.physical() for band in decoded]
    mask = functools.reduce(np.bitwise_or, (band.invalid for band in decoded)) * np.uint8(_NODATA)
    for rule in recipe.encoding.masks:
        mask |= _read_mask(part.layers[rule.band], rule, grid)
    values = np.stack([band.values for band in decoded], axis=-1)
    if recipe.masking is not None:
        from urbandelta.masking import fringe_reasons

        mask |= fringe_reasons(values, mask, recipe.masking, encoding=decoded[0])
    return _Image(values, mask, decoded[0].scale, decoded[0].offset)


def _read_band(layer: Layer, recipe: Recipe, grid: Grid) -> Decoded:
    window = covering_window(layer.grid, grid) or _ANY_PIXEL
    raw, masked = layer.read(*window)
    try:
        band = decode(raw, encoding=recipe.encoding, nodata=layer.nodata, scale=layer.scale, offset=layer.offset)
    except SourceError as error:
        raise SourceError(f"{layer.origin}: {error}") from error
    invalid = band.invalid if masked is None else band.invalid | masked
    values, invalid = onto_grid(band.values, invalid, crop(layer.grid, *window), grid, resampling=recipe.resampling)
    return Decoded(values, invalid, band.scale, band.offset)


def _read_mask(layer: Layer, rule: MaskRule, grid: Grid) -> MaskArray:
    window = covering_window(layer.grid, grid) or _ANY_PIXEL
    codes, masked = layer.read(*window)
    reasons = rule.apply(codes)
    if masked is not None:
        reasons[masked] = _NODATA
    bits, outside = onto_grid(reasons, np.zeros(reasons.shape, np.bool_), crop(layer.grid, *window), grid)
    bits[outside] = _NODATA
    return bits


def _merge(first: _Image, second: _Image) -> _Image:
    if (first.scale, first.offset, first.values.dtype) != (second.scale, second.offset, second.values.dtype):
        raise SourceError("parts of one scene are encoded differently; import them without --merge-within")
    take = (first.mask & _UNSEEN != 0) & (second.mask & _UNSEEN == 0)
    values = np.where(take[..., None], second.values, first.values)
    return _Image(values, np.where(take, second.mask, first.mask), first.scale, first.offset)


def _masked(acquisition: Acquisition, rules: MaskingRules, grid: Grid) -> Acquisition:
    from urbandelta.masking import apply_merged

    return apply_merged(acquisition, rules, pixel_m=grid.pixel_size[0])


def _one_pass(one: Scene, other: Scene) -> bool:
    return (one.platform, one.orbit_state, one.relative_orbit) == (
        other.platform,
        other.orbit_state,
        other.relative_orbit,
    )


def _check_bands(scenes: Sequence[Scene], stream: Stream, where: str) -> None:
    usual, _ = Counter(bands_of(scene, stream) for scene in scenes).most_common(1)[0]
    for scene in scenes:
        bands = bands_of(scene, stream)
        if bands != usual:
            missing = sorted(set(usual) - set(bands)) or sorted(set(bands) - set(usual))
            verb = "lacks" if set(usual) - set(bands) else "has besides"
            raise SourceError(
                f"{where}: the acquisition of {np.datetime_as_string(scene.time, 's')}Z ({scene.item_id}) {verb} "
                f"{', '.join(missing)} unlike the others; complete it, or choose bands that all have with --only"
            )
