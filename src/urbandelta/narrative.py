"""What the report says in words: the headline, which weights, what to be careful about.

Each sentence is made from numbers that the page also shows; nothing is said that was not computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from urbandelta.accuracy import Agreement
from urbandelta.cartography import MapFrame
from urbandelta.composites import Acquisitions, title_of
from urbandelta.figures import MONTHS, gaps
from urbandelta.patches import Patch
from urbandelta.products import ScoreMaps

__all__ = ["LIMITS", "Note", "Weights", "area_text", "headline", "notes", "plain_date", "position_text", "weights_used"]

SIMULATED = "These weights were trained on simulated scenes: this page shows the program at work, not a measurement of a real city."  # noqa: E501
GAP_DAYS = 40
"""Longer stretches without any acquisition of a stream are pointed out; S1 and S2 revisit within 12 days."""

LIMITS = (
    "A score is the network's answer for one window of time, not a probability. It is credited to the window's middle; "
    "the change itself may lie anywhere within the window, so a date is uncertain by up to half a window's length.",
    "The date of a pixel is taken from the time that all windows have in common which flag it one after the other. "
    "A change close to the first or the last window is dated less well, or missed.",
    "An event is a group of neighbouring pixels whose scores stay high for as long as built ground keeps them so. Its "
    "intervals were calibrated on simulated scenes so that nine in ten hold the true date there; in a real city they "
    "may hold it less often.",
    "Satellites see surfaces, not purposes. Bare soil, harvests, floods, parked vehicles and scaffolding can look like "
    "building, and change under a roof or below the pixel size is not seen.",
    "Scores from times with few observations, one satellite only, or long cloudy spells are less certain. No change "
    "reported there does not mean that nothing changed.",
    "Areas are counted pixel by pixel and are not corrected for the map's errors. For a figure with an interval, "
    "compare with a sample of reference data.",
)


@dataclass(frozen=True)
class Note:
    """One remark on the data: `warning` asks for care, `info` only informs."""

    level: Literal["warning", "info"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The network's weights as the scores name them."""

    name: str
    sha256: str
    statement: str
    simulated: bool


def plain_date(moment: np.datetime64) -> str:
    """A date as people write it, "14 May 2021", the same in every locale."""
    year, month, day = str(moment.astype("datetime64[D]")).split("-")
    return f"{int(day)} {MONTHS[int(month) - 1]} {year}"


def period_text(start: np.datetime64, end: np.datetime64) -> str:
    """How long a time is, to people: "24 months", "80 days"."""
    days = int((end - start) / np.timedelta64(1, "D")) + 1
    return f"{days} days" if days < 100 else f"{days / 30.44:.0f} months"


def area_text(hectares: float) -> str:
    """An area with two to three significant digits, in km² from 1000 ha on."""
    if hectares >= 1000:
        return f"{hectares / 100:.1f} km²"
    return f"{hectares:.0f} ha" if hectares >= 100 else f"{hectares:.1f} ha" if hectares >= 1 else f"{hectares:.2f} ha"


def position_text(lonlat: tuple[float, float]) -> str:
    """Latitude and longitude with hemispheres, to about 10 m."""
    lon, lat = lonlat
    return f"{abs(lat):.4f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.4f}° {'E' if lon >= 0 else 'W'}"


def headline(
    patches: Sequence[Patch], changed_ha: float, scored_ha: float, frame: MapFrame, threshold: float
) -> tuple[str, str]:
    """The main finding in one sentence, and where the strongest change is in a second one."""
    if not patches:
        return (
            f"No change stands out in the {area_text(scored_ha)} looked at.",
            f"No pixel's score reaches the threshold of {threshold:g}.",
        )
    share = 100 * changed_ha / scored_ha
    places = "one place" if len(patches) == 1 else f"{len(patches)} places"
    top = patches[0]
    where = frame.place(top.row, top.column)
    where = "in the centre" if where == "centre" else f"in the {where}"
    position = position_text(frame.lonlat(top.row, top.column))
    return (
        f"{area_text(changed_ha)} of {area_text(scored_ha)} changed ({share:.2g} %), in {places}.",
        f"The strongest change covers {area_text(top.area_ha)} {where} of the scene ({position}) and is dated "
        f"to around {plain_date(top.change_date)}, with a highest score of {top.peak_score:.2f}.",
    )


def weights_used(attributes: Mapping[str, Any]) -> Weights:
    """Say which weights made the scores, from the attributes of a score store."""
    name = str(attributes.get("weights_name") or "unnamed")
    sha256 = str(attributes.get("weights_sha256") or "")
    description = _as_mapping(attributes.get("weights_description") or {})
    simulated = "simulat" in json.dumps(description, default=str).lower()
    if simulated:
        statement = SIMULATED
    else:
        said = "; ".join(f"{key}: {value}" for key, value in description.items() if isinstance(value, str))
        statement = said or "The weights do not say what they were trained on."
    return Weights(name=name, sha256=sha256, statement=statement, simulated=simulated)


def _as_mapping(value: Any) -> Mapping[str, Any]:
    """Attributes may hold a mapping, its JSON, or plain words."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {"note": value}
    return value if isinstance(value, Mapping) else {}


def notes(
    scores: xr.Dataset,
    maps: ScoreMaps,
    acquisitions: Sequence[Acquisitions],
    *,
    snapshot: str | None,
    match: Agreement | None,
) -> list[Note]:
    """What a careful reader should know about these data, worst first."""
    found = [*_score_notes(scores, maps), *_stream_notes(acquisitions)]
    made_from = str(scores.attrs.get("cube_snapshot", ""))
    if snapshot and made_from and snapshot != made_from:
        found.append(
            Note(
                "warning",
                f"The cube has changed since the scores were made: they come from snapshot {made_from}, "
                f"pictures and acquisitions on this page from {snapshot}.",
            )
        )
    if match is not None and match.left_out:
        found.append(
            Note(
                "info",
                f"{match.left_out} truly changed pixels changed outside the time that the windows span; "
                "they are left out of the comparison with truth.",
            )
        )
    return sorted(found, key=lambda note: note.level != "warning")


def _score_notes(scores: xr.Dataset, maps: ScoreMaps) -> Iterator[Note]:
    if scores.attrs.get("complete") is False:
        yield Note("warning", "The prediction is not finished; run the same prediction again to complete these scores.")
    unscored = float(np.isnan(maps.maximum).mean())
    if unscored:
        yield Note(
            "warning" if unscored > 0.2 else "info", f"{100 * unscored:.2g} % of the pixels have no score at all."
        )
    observations = scores["n_obs"].values
    windows = observations.size
    spread = f"{observations.min()} to {observations.max()}" if windows > 1 else f"{observations[0]}"
    days = (scores["window_end"].values - scores["window_start"].values) / np.timedelta64(1, "D")
    yield Note(
        "info",
        f"{windows} window{'s' if windows > 1 else ''}, {np.median(days):.0f} days long (median), "
        f"of {spread} observations each.",
    )
    substitutions = scores.attrs.get("substitutions")
    if substitutions and str(substitutions) not in ("{}", "[]", "null"):
        yield Note(
            "warning", f"Missing input was substituted, as declared when predicting: {plain_value(substitutions)}."
        )
    accepted = scores.attrs.get("accepted")
    if accepted and str(accepted) not in ("{}", "[]", "null"):
        yield Note(
            "warning",
            f"The input departs from what the weights were trained on, as accepted when predicting: "
            f"{plain_value(accepted).replace('_', ' ')}.",
        )


def _stream_notes(acquisitions: Sequence[Acquisitions]) -> Iterator[Note]:
    for stream in acquisitions:
        title = title_of(stream.stream)
        for start, end in gaps(stream.times, days=GAP_DAYS):
            days = int((end - start) / np.timedelta64(1, "D"))
            yield Note("warning", f"{title}: nothing between {plain_date(start)} and {plain_date(end)} ({days} days).")
        if stream.valid_fraction.size and float(stream.valid_fraction.mean()) < 0.5:
            share = 100 * float(stream.valid_fraction.mean())
            yield Note(
                "info", f"{title}: only {share:.0f} % of the pixels are valid on average (clouds, snow, no data)."
            )
        if not stream.times.size:
            yield Note("warning", f"{title}: no acquisition.")


def plain_value(value: Any) -> str:
    """An attribute in one line: mappings as "key: value", lists by commas, JSON text decoded first."""
    if isinstance(value, str) and value[:1] in "{[":
        try:
            value = json.loads(value)
        except ValueError:
            return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain_value(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain_value(item) for item in value)
    return str(value)
