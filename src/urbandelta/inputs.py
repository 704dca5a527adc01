"""How a cube's bands become the network's channels, and whether the weights' contract allows it.

Nothing is substituted silently: a band or stream that the cube lacks must be declared (`B01=B02`, `B10=0`,
`s1_dsc=s1_asc`), a property that differs from what the weights were trained on must be accepted by name, and both are
written into the scores' provenance.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from urbandelta.eras import Era, Stream
from urbandelta.errors import ConfigError, ContractError
from urbandelta.grid import Grid
from urbandelta.network import NetworkConfig, Path
from urbandelta.store import Cube
from urbandelta.types import FloatArray
from urbandelta.weights import input_contract

log = logging.getLogger(__name__)

ACCEPTABLE = ("processing_level", "backscatter_coefficient", "pixel_m")
"""Properties of the contract that a caller may accept to differ."""
UNSTATED = ("", "unknown")
"""How a cube says that it does not know a property."""
PIXEL_TOLERANCE = 0.2
"""Relative difference of pixel size that breaks the contract: the weights know objects by their size."""
METRES_PER_DEGREE = 111_320.0

_Channel: TypeAlias = int | float
"""Where a channel comes from: an index into the stored bands, or (float) a constant."""


class InputNeeds(Protocol):
    """What a network wants to read: `Weights`, or a `NewNetwork` that has none yet."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def era(self) -> Era:
        """Row whose streams it reads."""

    @property
    def config(self) -> NetworkConfig:
        """Its paths and their bands."""

    @property
    def contract(self) -> Mapping[str, Any]:
        """See `weights.input_contract`."""


@dataclass(frozen=True)
class NewNetwork:
    """What a network that is about to be trained will read."""

    era: Era
    config: NetworkConfig

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"of era {self.era.name}"

    @property
    def contract(self) -> Mapping[str, Any]:
        """That of the era."""
        return input_contract(self.era)


@dataclass(frozen=True)
class StreamInput:
    """One stream of the era: the cube's stream that it reads, if any, and the origin of each of its bands."""

    stream: Stream
    source: str | None
    channels: tuple[_Channel, ...]

    def take(self, frames: Mapping[str, FloatArray], out: FloatArray) -> None:
        """Fill `out` (y, x, band of the stream) from the frames (y, x, stored band) of the cube's streams."""
        for band, channel in enumerate(self.channels):
            if isinstance(channel, float) or self.source is None:
                out[..., band] = channel
            else:
                out[..., band] = frames[self.source][..., channel]


@dataclass(frozen=True)
class InputPlan:
    """The streams that the network reads, in channel order, and what was declared about them."""

    config: NetworkConfig
    streams: tuple[StreamInput, ...]
    substitutions: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    unstated: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The cube's streams that are read, each once."""
        return tuple(dict.fromkeys(item.source for item in self.streams if item.source is not None))

    def sources_of(self, path: Path) -> tuple[str, ...]:
        """The cube's streams that a path of the network sees."""
        return tuple(item.source for item in self.streams if item.stream.kind == path and item.source is not None)

    def frame(self, path: Path, frames: Mapping[str, FloatArray]) -> FloatArray:
        """A path's input (y, x, band) from the frames of the cube's streams."""
        height, width = next(iter(frames.values())).shape[:2]
        out = np.empty((height, width, self.config.path_bands(path)), np.float32)
        start = 0
        for item in self.streams:
            if item.stream.kind == path:
                item.take(frames, out[..., start : start + len(item.channels)])
                start += len(item.channels)
        return out


def resolve_inputs(
    cube: Cube, weights: InputNeeds, *, substitutions: Sequence[str] = (), accepted: Sequence[str] = ()
) -> InputPlan:
    """Match a cube with weights.

    Parameters
    ----------
    cube : Cube
    weights : Weights or other InputNeeds
    substitutions : sequence of str
        `BAND=BAND` or `BAND=NUMBER` for a band that a stream lacks, `STREAM=STREAM` or `STREAM=NUMBER` for a whole
        stream; a number is a constant in physical units.
    accepted : sequence of str
        Names out of `ACCEPTABLE` whose difference from the contract is accepted.

    Raises
    ------
    ContractError
        If the cube is of another era, lacks a band or stream without a substitute, or differs in a property that is not
        accepted. The message says what to declare.
    ConfigError
        If a declaration is malformed or names something unknown.
    """
    era = weights.era
    if cube.era.name != era.name:
        raise ContractError(
            f"{cube.url}: a cube of era {cube.era.name}, but weights {weights.name} are for era {era.name}; "
            f"choose weights of era {cube.era.name}"
        )
    if unknown := sorted(set(accepted) - set(ACCEPTABLE)):
        raise ConfigError(f"cannot accept {unknown[0]!r}; expected one of {', '.join(ACCEPTABLE)}")
    declared = _parse(era, substitutions)
    used: set[str] = set()
    streams = tuple(
        _stream_input(cube, stream, declared, used) for stream in era.streams if stream.kind in weights.config.paths
    )
    if idle := [target for target in declared if target not in used]:
        raise ConfigError(
            f"substitution {idle[0]}={declared[idle[0]]} replaces nothing, the cube has {idle[0]}; leave it out"
        )
    unstated = _check_properties(cube, weights, streams, accepted)
    return InputPlan(weights.config, streams, tuple(substitutions), tuple(accepted), unstated)


def _parse(era: Era, texts: Sequence[str]) -> dict[str, str]:
    """Substitutions by what they replace."""
    known = set(era.stream_names) | {band for stream in era.streams for band in stream.bands}
    declared: dict[str, str] = {}
    for text in texts:
        target, _, value = text.partition("=")
        if not value:
            raise ConfigError(f"substitution {text!r}: write TARGET=SOURCE, such as B01=B02, B10=0 or s1_dsc=s1_asc")
        if target not in known:
            raise ConfigError(f"substitution {text!r}: era {era.name} has no band or stream {target!r}")
        if target in declared:
            raise ConfigError(f"substitution {text!r}: {target} is substituted twice")
        declared[target] = value
    return declared


def _stream_input(cube: Cube, stream: Stream, declared: Mapping[str, str], used: set[str]) -> StreamInput:
    source = stream.name
    if source not in cube.streams:
        value = _declared_stream(cube, stream, declared)
        used.add(stream.name)
        if isinstance(value, float):
            return StreamInput(stream, None, (value,) * len(stream.bands))
        source = value
    stored = cube.bands(source)
    if missing := [band for band in stream.bands if band not in stored and band not in declared]:
        example = " ".join(f"--substitute {band}={stored[0]}" for band in missing)
        raise ContractError(
            f"{cube.url}: stream {source} lacks band {', '.join(missing)}, which the network reads; "
            f"declare what stands in, for instance {example} (or a number)"
        )
    used.update(band for band in stream.bands if band not in stored)
    return StreamInput(stream, source, tuple(_channel(band, stored, declared) for band in stream.bands))


def _declared_stream(cube: Cube, stream: Stream, declared: Mapping[str, str]) -> str | float:
    """The stream, or the constant, that stands in for one that the cube lacks."""
    stored = ", ".join(cube.streams) or "nothing"
    alike = [name for name in cube.streams if cube.era.stream(name).kind == stream.kind]
    if stream.name not in declared:
        raise ContractError(
            f"{cube.url}: the network needs stream {stream.name}, the cube holds {stored}; import it, or declare a "
            f"substitute, for instance --substitute {stream.name}={alike[0] if alike else 0}"
        )
    value = declared[stream.name]
    number = _number(value)
    if number is None and value not in alike:
        raise ConfigError(
            f"substitution {stream.name}={value}: {value!r} is neither a number nor a {stream.kind} stream "
            f"of the cube, which holds {stored}"
        )
    return value if number is None else number


def _channel(band: str, stored: Sequence[str], declared: Mapping[str, str]) -> _Channel:
    if band in stored:
        return stored.index(band)
    value = declared[band]
    if value in stored:
        return stored.index(value)
    number = _number(value)
    if number is None:
        raise ConfigError(
            f"substitution {band}={value}: {value!r} is neither a number nor a stored band ({', '.join(stored)})"
        )
    return number


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _check_properties(
    cube: Cube, weights: InputNeeds, streams: Sequence[StreamInput], accepted: Sequence[str]
) -> tuple[str, ...]:
    """Raise for a property that differs and is not accepted; returns those that the cube does not state."""
    unstated = []
    contract: Mapping[str, Any] = weights.contract
    pixel_m = pixel_metres(cube.grid)
    if abs(pixel_m / contract["pixel_m"] - 1) > PIXEL_TOLERANCE:
        _refuse(cube, "pixel_m", f"{pixel_m:.4g} m", f"{contract['pixel_m']:.4g} m", weights, accepted)
    for item in streams:
        if item.source is None:
            continue
        info, expected = cube.attributes(item.source), contract["streams"][item.stream.name]
        for name, stated in (
            ("processing_level", info.processing_levels),
            ("backscatter_coefficient", info.backscatter_coefficients),
        ):
            known = {value for value in stated if value not in UNSTATED}
            if known - {expected[name]}:
                _refuse(cube, name, f"{item.source} {', '.join(sorted(known))}", str(expected[name]), weights, accepted)
            elif not known and expected[name]:
                unstated.append(f"{item.source}.{name}")
    # A stream that stands in for another is looked at twice.
    unstated = list(dict.fromkeys(unstated))
    if unstated:
        log.warning("%s does not state %s; assuming what the weights expect", cube.url, ", ".join(unstated))
    return tuple(unstated)


def _refuse(cube: Cube, name: str, found: str, expected: str, weights: InputNeeds, accepted: Sequence[str]) -> None:
    if name not in accepted:
        raise ContractError(
            f"{cube.url}: {name} is {found}, weights {weights.name} expect {expected}; "
            f"convert the data, or accept the difference with --accept {name}"
        )


def pixel_metres(grid: Grid) -> float:
    """Pixel size in metres, the mean of both axes; on a geographic grid at its middle latitude."""
    width, height = (abs(size) for size in grid.pixel_size)
    if not grid.is_geographic:
        return (width + height) / 2
    _, south, _, north = grid.bounds
    parallel = np.cos(np.radians((south + north) / 2))
    return float((width * parallel + height) / 2 * METRES_PER_DEGREE)
