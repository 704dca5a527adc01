"""What the JSON API answers, as models from which its OpenAPI description is made."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """No field but those that are named."""

    model_config = ConfigDict(extra="forbid")


class Problem(Model):
    """Why a request was refused."""

    detail: str


class GridInfo(Model):
    """The grid of the area."""

    crs: str
    height: int
    width: int
    pixel: list[float] = Field(description="height and width of a pixel in units of the CRS")


class MonthInfo(Model):
    """One step of the slider."""

    label: str
    windows: int
    start: str | None = Field(description="first step of its windows")
    end: str | None = Field(description="last step of its windows")
    provisional: bool


class ClassInfo(Model):
    """A class of a map."""

    value: int
    title: str
    colour: str = Field(description="as CSS")


class OverallInfo(Model):
    """A map over the whole time."""

    name: str
    title: str
    low: float
    high: float
    dates: bool = Field(description="whether values are days since 1970-01-01")
    classes: list[ClassInfo] = Field(description="of a map of classes, what its values mean; else empty")


class StreamSummary(Model):
    """One stream of the cube."""

    name: str
    title: str
    kind: Literal["sar", "optical"]
    count: int
    first: str
    last: str


class AreaInfo(Model):
    """What is served."""

    name: str
    version: str = Field(description="changes with the data; part of the addresses of tiles")
    bounds: list[float] = Field(description="west, south, east, north in degrees")
    outline: list[list[float]]
    native_zoom: int
    grid: GridInfo
    months: list[MonthInfo]
    maps: list[OverallInfo]
    streams: list[StreamSummary]
    optical: str | None = Field(description="stream that true colour comes from")
    provenance: dict[str, str]
    complete: bool
    legends: dict[str, list[str]]
    events: int | None = None


class AcquisitionInfo(Model):
    """One acquisition of a stream."""

    moment: str = Field(description="its time as it stands in addresses")
    time: str
    platform: str
    valid: float = Field(description="share of its pixels that are not masked")


class AcquisitionList(Model):
    """The acquisitions of one stream, oldest first."""

    stream: str
    acquisitions: list[AcquisitionInfo]


class ScoreHistory(Model):
    """Scores of a pixel, one entry a window."""

    start: list[str]
    end: list[str]
    middle: list[str]
    score: list[float | None]
    spread: list[float | None] | None
    n_obs: list[int]
    provisional: list[bool]


class StreamHistory(Model):
    """What a stream measured at a pixel, one entry an acquisition; radar in decibels."""

    name: str
    title: str
    kind: Literal["sar", "optical"]
    units: str
    times: list[str]
    platforms: list[str]
    values: dict[str, list[float | None]]
    valid: list[bool]
    reasons: list[str]


class IndexHistory(Model):
    """An index of the optical bands of a pixel, valid acquisitions only."""

    name: str
    title: str
    times: list[str]
    values: list[float | None]


class PixelHistory(Model):
    """One pixel through time."""

    row: int
    column: int
    longitude: float
    latitude: float
    x: float
    y: float
    crs: str
    corners: list[list[float]]
    score: ScoreHistory | None
    streams: list[StreamHistory]
    indices: list[IndexHistory]
    events: list[str]


class EventInfo(Model):
    """One event; dates with 90 % intervals."""

    id: str
    status: int
    stage: str
    confidence: str
    first_date: str
    first_low: str
    first_high: str
    last_date: str
    last_low: str
    last_high: str
    duration_days: int
    dated_by: str = Field(description="what the dates rest on: observations, or scores alone")
    area_m2: float
    peak: float
    mean: float
    spread: float | None
    n_obs: int
    windows: int
    bounds: list[float]


class EventPage(Model):
    """Events that a filter keeps, and how many there are in all."""

    matched: int
    total: int
    origin: str = Field(description="event file that they come from, or scores, or none")
    remark: str
    events: list[EventInfo]


class EventFeature(Model):
    """One event as a GeoJSON feature in EPSG:4326."""

    type: Literal["Feature"] = "Feature"
    id: str
    bbox: list[float]
    geometry: dict[str, Any]
    properties: EventInfo


class EventFeatures(Model):
    """Events as GeoJSON in EPSG:4326."""

    type: Literal["FeatureCollection"] = "FeatureCollection"
    features: list[EventFeature]
