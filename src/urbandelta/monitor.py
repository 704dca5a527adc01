"""The monitor file: one YAML file that says which area is watched, from which source, with which weights.

The models here are its only description: what is read, what is refused, and the JSON Schema
in `docs/monitor.schema.json`.
Nothing secret belongs into the file; credentials come from the environment, netrc or a cloud profile.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from urbandelta.eras import ERAS
from urbandelta.errors import MonitorError
from urbandelta.sources.choices import Resampling, ZeroRule

if TYPE_CHECKING:
    from urbandelta.aoi import Aoi
    from urbandelta.events import EventOptions
    from urbandelta.grid import Grid

VERSION = 1
_LARGEST_BYTES = 4 * 2**20
"""A monitor file with an area drawn in it is a few hundred kilobytes at most."""

Url: TypeAlias = Annotated[str, Field(min_length=1, max_length=2000)]


class _Strict(BaseModel):
    """Frozen, and unknown keys are refused: a misspelt option must not be a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Area(_Strict):
    """What is watched: one of `bbox`, `file` and `geometry`."""

    bbox: tuple[float, float, float, float] | None = Field(None, description="west, south, east, north in degrees")
    file: str | None = Field(
        None, description="GeoJSON, Shapefile or GeoPackage of polygons, relative to the monitor file"
    )
    geometry: dict[str, Any] | None = Field(None, description="GeoJSON Polygon or MultiPolygon in degrees")

    @model_validator(mode="after")
    def _one(self) -> Area:
        if sum(value is not None for value in (self.bbox, self.file, self.geometry)) != 1:
            raise ValueError("give exactly one of bbox, file and geometry")
        return self


class GridSettings(_Strict):
    """Pixels of the cube; null is what the era uses, in the UTM zone of the area where the era names no CRS."""

    pixel_m: float | None = Field(None, gt=0, description="side of a pixel in metres")
    crs: str | None = Field(None, description="such as EPSG:32631")


class ArchiveStream(_Strict):
    """What is asked of an archive for one stream; null leaves the archive's own row as it is."""

    collection: str | None = None
    relative_orbits: tuple[int, ...] | None = Field(None, description="only these tracks")
    platforms: tuple[str, ...] | None = None
    max_cloud: float | None = Field(None, ge=0, le=100, description="percentage that the archive states for a tile")
    assets: dict[str, str] | None = Field(
        None, description="band: key of its asset; KEY#2 is the second band of a file"
    )
    only: tuple[str, ...] | None = Field(None, description="bands to fetch")
    level: str | None = None
    coefficient: str | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: tuple[float, ...] | None = None
    zero: ZeroRule | None = None
    mask_band: str | None = None
    mask_values: str | None = None
    merge_within: float | None = Field(None, ge=0, description="seconds within which granules are one pass")
    resampling: Resampling | None = None
    clouds: Literal["s2cloudless"] | None = Field(None, description="look for clouds on Sentinel-2 L1C")
    border_noise: bool | None = Field(None, description="radar: mask noise at the border of the swath")
    offset_check: Literal["refuse", "warn"] | None = None


class StacSource(_Strict):
    """A STAC API or static catalogue: a named archive, or `custom` with a URL and a collection for each stream."""

    kind: Literal["stac"]
    archive: str = Field("planetary-computer", description="row of the table of archives, or custom")
    url: Url | None = Field(None, description="of the API or catalogue, in place of the archive's own")
    streams: dict[str, ArchiveStream] = Field(
        default_factory=dict, description="which streams, and how; all of the era that the archive has if empty"
    )


class HubStream(_Strict):
    """What is asked of Sentinel Hub for one stream."""

    relative_orbits: tuple[int, ...] | None = None
    max_cloud: float | None = Field(None, ge=0, le=100)
    clouds: Literal["provider", "s2cloudless", "none"] | None = Field(
        None, description="whose mask; null: the provider's where it has one, else s2cloudless"
    )


class SentinelHubSource(_Strict):
    """Sentinel Hub's process API; client id and secret come from SH_CLIENT_ID and SH_CLIENT_SECRET, or a profile."""

    kind: Literal["sentinelhub"]
    endpoint: Literal["sentinel-hub", "cdse"] = "sentinel-hub"
    url: Url | None = Field(None, description="of another deployment")
    streams: dict[str, HubStream] = Field(default_factory=dict)


class FolderImport(_Strict):
    """Files of one stream in a folder; the options of `urbandelta import`."""

    stream: str
    format: Literal["geotiff", "netcdf", "eopatch"] = "geotiff"
    path: str = Field(description="file or folder, relative to the monitor file")
    pattern: str | None = Field(None, description="geotiff: names with {date}, {band} and so on")
    bands: tuple[str, ...] | None = Field(None, description="geotiff: bands of a file with several, in order")
    scale: float | None = None
    offset: float | None = None
    db: bool = False
    amplitude: bool = False
    nodata: tuple[float, ...] = ()
    zero: ZeroRule | None = None
    level: str = ""
    coefficient: str = ""
    orbit: Literal["ascending", "descending", "unknown", ""] = ""
    platform: str = ""
    valid_band: str = ""
    cloud_mask: str = ""
    mask_band: str = ""
    mask_values: str = ""
    clouds: Literal["s2cloudless"] | None = Field(None, description="look for clouds on Sentinel-2 L1C")
    border_noise: bool = Field(False, description="radar: mask noise at the border of the swath")
    merge_within: float | None = Field(None, ge=0)
    resampling: Resampling = "nearest"


class FolderSource(_Strict):
    """Folders that scenes are dropped into; every update imports what is new."""

    kind: Literal["folder"]
    imports: tuple[FolderImport, ...] = Field(min_length=1)


class CubeSource(_Strict):
    """Acquisitions of another cube on the same grid, for tests and rehearsals."""

    kind: Literal["cube"]
    url: Url


class NoSource(_Strict):
    """Scenes are imported by hand."""

    kind: Literal["none"]


Source: TypeAlias = Annotated[
    StacSource | SentinelHubSource | FolderSource | CubeSource | NoSource, Field(discriminator="kind")
]


class PredictSettings(_Strict):
    """Options of `urbandelta predict`; null is its default."""

    stride: int | None = Field(None, ge=1)
    tile: int | None = Field(None, ge=1)
    halo: int | None = Field(None, ge=0)
    engine: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    mask_rule: Literal["explicit", "published"] = "explicit"
    substitute: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()


class EventSettings(_Strict):
    """What counts as an event; see `urbandelta.events.EventOptions`."""

    threshold: float = Field(0.5, gt=0, le=1)
    low: float = Field(0.3, gt=0, le=1)
    min_area_m2: float = Field(400.0, ge=0)
    min_pixels: int = Field(8, ge=1)
    min_days: float | None = Field(None, ge=0, description="null: half of a window")
    min_windows: int = Field(2, ge=1)
    connectivity: Literal[4, 8] = 8
    high_confidence: float = Field(0.8, ge=0, le=1)
    max_spread: float = Field(0.15, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> EventSettings:
        if self.low > self.threshold:
            raise ValueError(f"low {self.low:g} is above threshold {self.threshold:g}; it must not be")
        return self

    def options(self) -> EventOptions:
        """As `events.find_events` takes them. Kept apart from these fields, since events bring heavy libraries."""
        from urbandelta.events import EventOptions

        return EventOptions(**self.model_dump())


class ProductSettings(_Strict):
    """What an update writes beside the scores."""

    rasters: bool = True
    stac: bool = True
    events: tuple[Literal["gpkg", "geoparquet", "geojson"], ...] = ("gpkg", "geoparquet", "geojson")
    report: bool = True
    districts: str | None = Field(None, description="polygons for a table per district, relative to the monitor file")


class NotifySettings(_Strict):
    """Who is told of new events."""

    feed: bool = True
    command: tuple[str, ...] | None = Field(None, description="program and arguments; gets the events on stdin as JSON")
    webhook: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="NAME of the environment variable that holds the URL"
    )


class Monitor(_Strict):
    """One area that is watched, as its file says."""

    version: Literal[1]
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="letters, digits, dot, dash, underscore"
    )
    aoi: Area
    grid: GridSettings = GridSettings()
    era: str = "s12"
    start: dt.date
    end: dt.date | None = Field(None, description="day before which it ends; null: goes on")
    store: str = Field(min_length=1, description="folder, relative to the monitor file, or URL prefix")
    source: Source
    weights: str = "s12_simulated"
    predict: PredictSettings = PredictSettings()
    events: EventSettings = EventSettings()
    products: ProductSettings = ProductSettings()
    notify: NotifySettings = NotifySettings()

    _base: Path = PrivateAttr(default_factory=Path.cwd)

    @field_validator("era")
    @classmethod
    def _known_era(cls, era: str) -> str:
        if era not in ERAS:
            raise ValueError(f"no such era; there are {', '.join(ERAS)}")
        return era

    @model_validator(mode="after")
    def _consistent(self) -> Monitor:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        known = ERAS[self.era].stream_names
        asked = list(getattr(self.source, "streams", {})) + [
            item.stream for item in getattr(self.source, "imports", ())
        ]
        unknown = sorted(set(asked) - set(known))
        if unknown:
            raise ValueError(f"source names stream {', '.join(unknown)}; era {self.era} has {', '.join(known)}")
        return self

    @property
    def base(self) -> Path:
        """Folder of the monitor file, which relative paths start from."""
        return self._base

    @property
    def cube_url(self) -> str:
        """Where the cube is, or will be."""
        return self._inside("cube")

    @property
    def scores_url(self) -> str:
        """Where the scores are, or will be."""
        return self._inside("scores")

    @property
    def folder(self) -> Path:
        """Local folder of products, runs, ledger and lock: the store, or for a remote store one of the same name."""
        return self.resolve(self.name) if "://" in self.store else self.resolve(self.store)

    @property
    def weights_path(self) -> str:
        """Weights as `find_weights` takes them: a path, or the name of a shipped set."""
        path = self.resolve(self.weights)
        return str(path) if path.exists() or "/" in self.weights else self.weights

    def resolve(self, path: str) -> Path:
        """A path of the file, relative to the file's folder."""
        return self._base / Path(path).expanduser()

    def aoi_area(self) -> Aoi:
        """The area as polygons in degrees."""
        from urbandelta.aoi import Aoi, read_aoi

        if self.aoi.geometry is not None:
            import shapely.geometry

            try:
                shape = shapely.geometry.shape(self.aoi.geometry)
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                raise MonitorError(f"aoi.geometry: is no GeoJSON Polygon or MultiPolygon ({error})") from error
            return Aoi(shape, self.name)
        return read_aoi(self.resolve(self.aoi.file) if self.aoi.file is not None else self.aoi.bbox or ())

    def make_grid(self) -> Grid:
        """The anchored grid over the area."""
        from urbandelta.grid import Grid

        era = ERAS[self.era]
        return Grid.for_aoi(self.aoi_area(), pixel_m=self.grid.pixel_m or era.pixel_m, crs=self.grid.crs or era.crs)

    def _inside(self, name: str) -> str:
        if "://" in self.store:
            return f"{self.store.rstrip('/')}/{name}"
        return str(self.resolve(self.store) / name)


def load_monitor(path: str | Path) -> Monitor:
    """Read a monitor file.

    Raises
    ------
    MonitorError
        If the file is missing, too large, no YAML, or says what no monitor understands; the message names the key.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise MonitorError(f"{path}: {error.strerror or error}; `urbandelta init {path}` writes one") from error
    if len(text) > _LARGEST_BYTES:
        raise MonitorError(f"{path}: is larger than a monitor file can be; keep polygons in a file of their own")
    return parse_monitor(_yaml(text, path), where=path)


def parse_monitor(data: Any, *, where: Path) -> Monitor:
    """A monitor from plain values; `where` is the file that relative paths start beside.

    Raises
    ------
    MonitorError
        As `load_monitor`.
    """
    if not isinstance(data, Mapping):
        raise MonitorError(f"{where}: is no mapping of keys; `urbandelta init` writes a file to start from")
    if data.get("version") != VERSION:
        raise MonitorError(f"{where}: version is {data.get('version')!r}; this urbandelta reads version {VERSION}")
    try:
        monitor = Monitor.model_validate(data)
    except ValidationError as error:
        raise MonitorError(f"{where}: {_problems(error)}") from None
    monitor._base = where.absolute().parent
    return monitor


def monitor_schema() -> dict[str, Any]:
    """JSON Schema of the monitor file."""
    schema = Monitor.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "urbandelta monitor", **schema}


def _yaml(text: bytes, path: Path) -> Any:
    import yaml

    try:
        # Aliases multiply: a few lines of them can fill the memory. No monitor needs one.
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise MonitorError(
                    f"{path}: uses a YAML alias (*{event.anchor}), which is not supported; repeat the value"
                )
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise MonitorError(f"{path}: is no YAML ({' '.join(str(error).split())})") from error


def _problems(error: ValidationError) -> str:
    """What is wrong, key by key. Values are left out: somebody may have put a secret where none belongs."""
    found = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        keys = [str(part) for part in problem["loc"] if str(part) not in _KINDS]
        key = ".".join(keys) or "the file"
        if problem["type"] == "extra_forbidden":
            found.append(f"{key}: is no key of a monitor file; remove it or correct its spelling")
        elif problem["type"] == "missing":
            found.append(f"{key}: is missing")
        else:
            found.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(found)


_KINDS = frozenset(("stac", "sentinelhub", "folder", "cube"))
