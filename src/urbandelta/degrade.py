"""Rules by which observations are lost, as data: which acquisitions of a cube are kept.

A rule is written as text, `NAME` or `NAME:VALUE`:

* `full`: nothing is lost.
* `drop:SHARE`: each acquisition is lost with this chance, whatever its stream (0 to 1).
* `direction:ascending`, `direction:descending`: radar of this orbit direction only; optical as it is.
* `sar-only`, `optical-only`: the other sensor stops after its first `FIRST_DAYS` days.
* `platform:NAME`: this satellite is lost, in all streams.
* `gap:DAYS`: no optical acquisition during so many days on end, as under a cloud season; the seed places the gap.

What a network sees of a stream that is lost is a decision, and it is made here, once: a lost orbit direction is
replaced by the other one (each of its streams by one of the same kind), and a lost sensor stays frozen at what it
showed in its first days, as carrying the latest valid value forward does with any sensor that fails. So it shows no
change from then on, but still shows the place as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from urbandelta.eras import Stream
from urbandelta.errors import ConfigError
from urbandelta.types import BoolArray, TimeArray

__all__ = ["FIRST_DAYS", "Degraded", "Rule", "Series", "degrade", "parse_rule", "standard_rules"]

RuleName: TypeAlias = Literal["full", "drop", "direction", "sar-only", "optical-only", "platform", "gap"]

FIRST_DAYS = 60
"""Long enough to see every pixel once through the clouds of a temperate winter."""
DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Series:
    """When a stream of a cube was seen, and by which satellites; arrays (time,), sorted by time."""

    stream: Stream
    times: TimeArray
    platforms: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """One way to lose observations; `random` rules differ from seed to seed."""

    name: RuleName
    value: str = ""

    @property
    def text(self) -> str:
        """As it is written."""
        return f"{self.name}:{self.value}" if self.value else self.name

    @property
    def random(self) -> bool:
        """Whether the seed matters."""
        return self.name in ("drop", "gap")


@dataclass(frozen=True, eq=False)
class Degraded:
    """What is left: positions of the kept acquisitions by stream, and the stand-ins for streams that are gone."""

    kept: Mapping[str, npt.NDArray[np.intp]]
    substitutions: tuple[str, ...] = ()

    @property
    def acquisitions(self) -> int:
        """Acquisitions of all streams that are kept."""
        return sum(len(positions) for positions in self.kept.values())


_VALUES: Mapping[str, str] = {
    "full": "", "drop": "0.5", "direction": "ascending", "sar-only": "", "optical-only": "", "platform": "S1B",
    "gap": "90",
}  # fmt: skip


def parse_rule(text: str) -> Rule:
    """A rule from its text.

    Raises
    ------
    ConfigError
        If the name is unknown or the value is out of range.
    """
    name, _, value = text.strip().partition(":")
    if name not in _VALUES:
        raise ConfigError(f"unknown rule {text!r}; expected one of {', '.join(_example(known) for known in _VALUES)}")
    if bool(value) != bool(_VALUES[name]):
        raise ConfigError(f"rule {text!r}: write it as {_example(name)}")
    if name == "direction" and value not in ("ascending", "descending"):
        raise ConfigError(f"rule {text!r}: the direction is ascending or descending")
    if name in ("drop", "gap"):
        least, most = (0.0, 1.0) if name == "drop" else (1.0, 1e5)
        try:
            inside = least <= float(value) <= most
        except ValueError:
            inside = False
        if not inside:
            raise ConfigError(f"rule {text!r}: need a number of {least:g} to {most:g}")
    return Rule(name, value)  # type: ignore[arg-type]  # checked above


def _example(name: str) -> str:
    return f"{name}:{_VALUES[name]}" if _VALUES[name] else name


def standard_rules(series: Sequence[Series], shares: Sequence[float] = (0.25, 0.5, 0.75)) -> list[Rule]:
    """The rules that say something about a cube: one direction if it has two, each satellite if it has several."""
    rules = [Rule("full"), *(Rule("drop", f"{share:g}") for share in shares)]
    kinds = {item.stream.kind for item in series}
    directions = sorted({item.stream.orbit_state for item in series if item.stream.kind == "sar"} - {""})
    if len(directions) > 1:
        rules += [Rule("direction", direction) for direction in directions]
    if kinds == {"sar", "optical"}:
        rules += [Rule("sar-only"), Rule("optical-only")]
    for kind in ("sar", "optical"):
        platforms = sorted({name for item in series if item.stream.kind == kind for name in item.platforms if name})
        if len(platforms) > 1:
            rules += [Rule("platform", name) for name in platforms]
    if "optical" in kinds:
        rules += [Rule("gap", "60"), Rule("gap", "120")]
    return rules


def degrade(series: Sequence[Series], rule: Rule, *, seed: int = 0) -> Degraded:
    """Apply a rule to the streams of a cube.

    Parameters
    ----------
    series : sequence of Series
        Streams that hold something.
    rule : Rule
    seed : int
        Of random rules.

    Raises
    ------
    ConfigError
        If the rule makes no sense for these streams: no such satellite or direction.
    """
    rng = np.random.default_rng([seed, *rule.text.encode()])
    keep = {item.stream.name: _kept(item, rule, rng, series) for item in series}
    kept = {name: np.flatnonzero(flags) for name, flags in keep.items()}
    lost = [name for name, positions in kept.items() if not positions.size]
    if len(lost) == len(kept):
        raise ConfigError(f"rule {rule.text}: nothing is left of {', '.join(kept)}")
    if rule.name == "platform" and sum(len(p) for p in kept.values()) == sum(len(item.times) for item in series):
        known = sorted({name for item in series for name in item.platforms if name})
        raise ConfigError(
            f"rule {rule.text}: no acquisition is of {rule.value}; satellites: {', '.join(known) or 'none'}"
        )
    substitutions = tuple(f"{name}={_stand_in(name, series, kept, rule)}" for name in lost)
    return Degraded({name: positions for name, positions in kept.items() if positions.size}, substitutions)


def _kept(item: Series, rule: Rule, rng: np.random.Generator, series: Sequence[Series]) -> BoolArray:
    stream, times = item.stream, item.times
    everything = np.ones(len(times), np.bool_)
    if rule.name == "drop":
        return np.asarray(rng.random(len(times)) >= float(rule.value))
    if rule.name == "direction" and stream.kind == "sar":
        states = {other.stream.orbit_state for other in series if other.stream.kind == "sar"}
        if rule.value not in states:
            raise ConfigError(f"rule {rule.text}: the cube holds no {rule.value} radar stream")
        return np.full(len(times), stream.orbit_state == rule.value)
    if rule.name == "platform":
        return np.array([platform != rule.value for platform in item.platforms], np.bool_)
    if (rule.name, stream.kind) in (("sar-only", "optical"), ("optical-only", "sar")):
        return np.asarray(times < times[0] + FIRST_DAYS * DAY)
    if rule.name == "gap" and stream.kind == "optical":
        length = np.timedelta64(round(float(rule.value) * 24), "h")
        room = max((times[-1] - times[0]) - length, np.timedelta64(0, "ns"))
        start = times[0] + room * float(rng.random())
        return np.asarray((times < start) | (times >= start + length))
    return everything


def _stand_in(name: str, series: Sequence[Series], kept: Mapping[str, npt.NDArray[np.intp]], rule: Rule) -> str:
    kind = next(item.stream.kind for item in series if item.stream.name == name)
    for item in series:
        if item.stream.kind == kind and kept[item.stream.name].size:
            return item.stream.name
    raise ConfigError(f"rule {rule.text}: no {kind} acquisition is left, and nothing can stand in for stream {name}")
