"""Landsat metadata files (MTL): every text layout since 2008 and Collection 2's JSON, read into one table of bands.

Three generations of key names are known: `LMAX_BAND61` and `BAND61_FILE_NAME` (before August 2012),
`RADIANCE_MULT_BAND_6_VCID_1` and `FILE_NAME_BAND_6_VCID_1` (since then, Collection 1), and the same in groups of other
names (Collection 2). Keys are looked up whatever their group, so a group that was renamed does not matter.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from urbandelta.errors import MetadataError

MOST_BYTES = 4_000_000
"""Largest file that is read as metadata; real ones have 6 to 70 kB."""
_MOST_DEPTH = 8

_BAND = r"(?P<band>\d{1,2}(?:_VCID_[12])?)"
_SPACECRAFT = re.compile(r"LANDSAT[_ -]?(\d)$", re.IGNORECASE)
_LEVEL1 = re.compile(r"L1|^$", re.IGNORECASE)


@dataclass(frozen=True)
class Line:
    """Two numbers that make a straight line: `value = mult * digital number + add`."""

    mult: float
    add: float

    @classmethod
    def through(cls, low: float, high: float, first: float, last: float) -> Line:
        """The line on which the digital numbers `first` and `last` mean `low` and `high`."""
        mult = (high - low) / (last - first)
        return cls(mult, low - mult * first)


@dataclass(frozen=True, kw_only=True)
class BandMetadata:
    """What a metadata file says of one band; None where it says nothing.

    Attributes
    ----------
    name : str
        As in today's keys: `1`, `6_VCID_1`, `10`.
    file : str
        Name of the band's file, "" if not named.
    radiance, reflectance : Line or None
        Declared factors (reflectance: before division by the sine of the sun's elevation).
    radiance_range, reflectance_range : Line or None
        The same from the declared minima and maxima, which older files state with more digits.
    k1, k2 : float or None
        Thermal constants.
    lowest, highest : float or None
        Calibrated digital numbers (`QUANTIZE_CAL_MIN`, `QUANTIZE_CAL_MAX`).
    """

    name: str
    file: str = ""
    radiance: Line | None = None
    reflectance: Line | None = None
    radiance_range: Line | None = None
    reflectance_range: Line | None = None
    k1: float | None = None
    k2: float | None = None
    lowest: float | None = None
    highest: float | None = None


@dataclass(frozen=True, kw_only=True)
class Mtl:
    """A Landsat Level-1 scene as its metadata file describes it.

    `spacecraft` is 4, 5, 7, 8 or 9; `sensor` such as `TM`, `ETM`, `OLI_TIRS`; `collection` is 0 before collections were
    numbered. `sun_elevation` is that of the scene's centre in degrees; `earth_sun_distance` in astronomical units, None
    if not stated. Names of files are "" where there is none.
    """

    where: str
    scene_id: str
    spacecraft: int
    sensor: str
    collection: int
    time: np.datetime64
    sun_elevation: float
    sun_azimuth: float
    earth_sun_distance: float | None
    bands: Mapping[str, BandMetadata]
    quality_file: str = ""
    saturation_file: str = ""
    solar_zenith_file: str = ""
    path: int = -1
    row: int = -1


def read_mtl(path: str | Path) -> Mtl:
    """Metadata of a scene from an `*_MTL.txt` or `*_MTL.json` file.

    Raises
    ------
    MetadataError
        If the file is missing, malformed, or not that of a Landsat Level-1 scene.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise MetadataError(f"{path}: cannot be read ({error.strerror or error}); name the scene's MTL file") from error
    return parse_mtl(content, where=str(path))


def parse_mtl(content: bytes | str, *, where: str) -> Mtl:
    """Metadata from the content of a file; `where` is for messages.

    Raises
    ------
    MetadataError
        If the content is malformed, or not that of a Landsat Level-1 scene.
    """
    text = _decoded(content, where)
    groups = list(_json_groups(text, where) if text.lstrip().startswith("{") else _text_groups(text, where))
    return _scene(_Keys(where, _merged(groups)))


def _decoded(content: bytes | str, where: str) -> str:
    if len(content) > MOST_BYTES:
        raise MetadataError(f"{where}: has more than {MOST_BYTES} bytes, no Landsat metadata file; name the MTL file")
    if isinstance(content, str):
        text = content
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise MetadataError(f"{where}: is not a text file; name the scene's MTL file") from error
    # Old files were padded with NUL to a round size.
    text = text.rstrip("\0 \t\r\n")
    if "\0" in text:
        raise MetadataError(f"{where}: is not a text file, or damaged; name the scene's MTL file")
    if not text:
        raise MetadataError(f"{where}: is empty; fetch it again")
    return text


def _text_groups(text: str, where: str) -> Iterator[tuple[str, str, str]]:
    """(group, key, value) of each assignment of the text layout."""
    open_groups: list[str] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line == "END":
            break
        if not line:
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key:
            raise MetadataError(f"{where}:{number}: expected KEY = VALUE, found {line[:60]!r}; fetch the file again")
        if key == "GROUP":
            open_groups.append(value)
            if len(open_groups) > _MOST_DEPTH:
                raise MetadataError(f"{where}:{number}: groups are nested {_MOST_DEPTH} deep, this is no MTL file")
        elif key == "END_GROUP":
            if not open_groups or open_groups.pop() != value:
                raise MetadataError(f"{where}:{number}: END_GROUP = {value[:60]} closes no open group; fetch it again")
        elif not open_groups:
            raise MetadataError(f"{where}:{number}: {key[:60]} stands outside any group; is this an MTL file?")
        else:
            yield open_groups[-1], key, _unquoted(value)
    if open_groups:
        raise MetadataError(f"{where}: ends inside the group {open_groups[-1]}; the file is cut short, fetch it again")


def _unquoted(value: str) -> str:
    return value.strip().strip('"').strip()


def _json_groups(text: str, where: str) -> Iterator[tuple[str, str, str]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"{where}: is not JSON ({error}); fetch the file again") from error
    yield from _json_leaves(document, "", where, 0)


def _json_leaves(node: dict[str, Any], group: str, where: str, depth: int) -> Iterator[tuple[str, str, str]]:
    if depth > _MOST_DEPTH:
        raise MetadataError(f"{where}: groups are nested {_MOST_DEPTH} deep, this is no MTL file")
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _json_leaves(value, str(key), where, depth + 1)
        elif isinstance(value, (str, int, float)):
            yield group, str(key), _unquoted(str(value))


def _merged(groups: list[tuple[str, str, str]]) -> dict[str, str]:
    # A key that stands in several groups (Collection 2's processing record repeats some) counts where it comes first.
    values: dict[str, str] = {}
    for _, key, value in groups:
        values.setdefault(key.upper(), value)
    return values


@dataclass(frozen=True)
class _Keys:
    where: str
    values: Mapping[str, str]

    def text(self, *keys: str) -> str:
        """First of the keys that the file has; "" if none."""
        return next((self.values[key] for key in keys if key in self.values), "")

    def needed(self, *keys: str) -> str:
        value = self.text(*keys)
        if not value:
            raise MetadataError(f"{self.where}: states no {keys[0]}; is this the MTL file of a Landsat Level-1 scene?")
        return value

    def number(self, *keys: str) -> float | None:
        value = self.text(*keys)
        if not value or value.upper() in ("NAN", "NULL", "N/A", "NONE"):
            return None
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            name = next(key for key in keys if key in self.values)
            raise MetadataError(f"{self.where}: {name} = {value[:40]!r} is not a number; fetch the file again")
        return number

    def needed_number(self, *keys: str) -> float:
        number = self.number(*keys)
        if number is None:
            raise MetadataError(f"{self.where}: states no {keys[0]}; is this the MTL file of a Landsat Level-1 scene?")
        return number


def _scene(keys: _Keys) -> Mtl:
    level = keys.text("PROCESSING_LEVEL", "DATA_TYPE", "PRODUCT_TYPE")
    spacecraft = keys.needed("SPACECRAFT_ID")
    match = _SPACECRAFT.match(spacecraft)
    if match is None or match[1] not in "45789":
        raise MetadataError(f"{keys.where}: spacecraft {spacecraft[:40]!r} is not Landsat 4, 5, 7, 8 or 9")
    if not _LEVEL1.match(level):
        raise MetadataError(f"{keys.where}: is a product of level {level[:20]}; TOA needs Level-1 digital numbers")
    sensor = keys.needed("SENSOR_ID").upper().rstrip("+")
    if sensor not in ("TM", "ETM", "OLI", "TIRS", "OLI_TIRS"):
        raise MetadataError(f"{keys.where}: sensor {sensor[:20]!r} is not TM, ETM, OLI or TIRS")
    elevation = keys.needed_number("SUN_ELEVATION")
    if not -90 <= elevation <= 90:
        raise MetadataError(f"{keys.where}: SUN_ELEVATION = {elevation:g} is not -90..90 degrees; fetch the file again")
    distance = keys.number("EARTH_SUN_DISTANCE")
    if distance is not None and not 0.98 < distance < 1.02:
        raise MetadataError(f"{keys.where}: EARTH_SUN_DISTANCE = {distance:g} is not about 1; fetch the file again")
    bands = _bands(keys)
    if not bands:
        raise MetadataError(f"{keys.where}: states no band; is this the MTL file of a Landsat Level-1 scene?")
    return Mtl(
        where=keys.where,
        scene_id=keys.text("LANDSAT_PRODUCT_ID", "LANDSAT_SCENE_ID") or _stem(keys.where),
        spacecraft=int(match[1]),
        sensor=sensor,
        collection=_collection(keys),
        time=_time(keys),
        sun_elevation=elevation,
        sun_azimuth=keys.number("SUN_AZIMUTH") or 0.0,
        earth_sun_distance=distance,
        bands=bands,
        quality_file=_file(keys, "FILE_NAME_QUALITY_L1_PIXEL", "FILE_NAME_BAND_QUALITY"),
        saturation_file=_file(keys, "FILE_NAME_QUALITY_L1_RADIOMETRIC_SATURATION"),
        solar_zenith_file=_file(keys, "FILE_NAME_ANGLE_SOLAR_ZENITH_BAND_4"),
        path=int(keys.number("WRS_PATH") or -1),
        row=int(keys.number("WRS_ROW", "STARTING_ROW") or -1),
    )


def _collection(keys: _Keys) -> int:
    text = keys.text("COLLECTION_NUMBER") or "0"
    if not text.isdigit():
        raise MetadataError(f"{keys.where}: COLLECTION_NUMBER = {text[:20]!r} is not a number; fetch the file again")
    return int(text)


def _stem(where: str) -> str:
    return re.sub(r"_MTL$", "", Path(where).stem, flags=re.IGNORECASE)


def _time(keys: _Keys) -> np.datetime64:
    date = keys.needed("DATE_ACQUIRED", "ACQUISITION_DATE")
    clock = keys.text("SCENE_CENTER_TIME", "SCENE_CENTER_SCAN_TIME") or "00:00:00Z"
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date) or not re.fullmatch(r"\d{2}:\d{2}:\d{2}(\.\d*)?Z?", clock):
        raise MetadataError(f"{keys.where}: {date[:20]!r} {clock[:30]!r} is not a date and a UTC time; fetch it again")
    try:
        return np.datetime64(f"{date}T{clock.rstrip('Z')[:18].rstrip('.')}", "ns")
    except ValueError as error:
        raise MetadataError(f"{keys.where}: {date} {clock} is not a date and a time ({error})") from error


def _file(keys: _Keys, *names: str) -> str:
    """A file name that the metadata give: never a path, so that a hostile file cannot point elsewhere."""
    name = keys.text(*names)
    if name and (name in (".", "..") or re.search(r"[/\\:\x00-\x1f]", name)):
        raise MetadataError(f"{keys.where}: {name[:60]!r} is not the plain name of a file beside it")
    return name


def _bands(keys: _Keys) -> dict[str, BandMetadata]:
    patterns = (
        rf"FILE_NAME_BAND_{_BAND}",
        rf"BAND{_BAND}_FILE_NAME",
        rf"RADIANCE_(?:MULT|MAXIMUM)_BAND_{_BAND}",
        rf"REFLECTANCE_MULT_BAND_{_BAND}",
        rf"LMAX_BAND{_BAND}",
    )
    found: set[str] = set()
    for key in keys.values:
        for pattern in patterns:
            if match := re.fullmatch(pattern, key):
                found.add(_modern(match["band"]))
    return {name: _band(keys, name) for name in sorted(found, key=_order)}


def _modern(band: str) -> str:
    """`61` and `62` were the two gains of ETM+'s thermal band."""
    return f"6_VCID_{band[1]}" if band in ("61", "62") else band


def _order(name: str) -> tuple[int, str]:
    return int(name.partition("_")[0]), name


def _band(keys: _Keys, name: str) -> BandMetadata:
    old = name.replace("_VCID_", "")
    lowest = keys.number(f"QUANTIZE_CAL_MIN_BAND_{name}", f"QCALMIN_BAND{old}")
    highest = keys.number(f"QUANTIZE_CAL_MAX_BAND_{name}", f"QCALMAX_BAND{old}")

    def declared(quantity: str) -> Line | None:
        mult = keys.number(f"{quantity}_MULT_BAND_{name}")
        add = keys.number(f"{quantity}_ADD_BAND_{name}")
        if mult is None:
            return None
        if add is None or mult <= 0:
            raise MetadataError(f"{keys.where}: {quantity}_MULT_BAND_{name} and _ADD_ make no line; fetch it again")
        return Line(mult, add)

    def ranged(highs: tuple[str, ...], lows: tuple[str, ...]) -> Line | None:
        high, low = keys.number(*highs), keys.number(*lows)
        if high is None or low is None or highest is None or lowest is None:
            return None
        if not (high > low and highest > lowest):
            raise MetadataError(f"{keys.where}: {highs[0]} and {lows[0]} make no line; fetch the file again")
        return Line.through(low, high, lowest, highest)

    return BandMetadata(
        name=name,
        file=_file(keys, f"FILE_NAME_BAND_{name}", f"BAND{old}_FILE_NAME"),
        radiance=declared("RADIANCE"),
        reflectance=declared("REFLECTANCE"),
        radiance_range=ranged(
            (f"RADIANCE_MAXIMUM_BAND_{name}", f"LMAX_BAND{old}"), (f"RADIANCE_MINIMUM_BAND_{name}", f"LMIN_BAND{old}")
        ),
        reflectance_range=ranged((f"REFLECTANCE_MAXIMUM_BAND_{name}",), (f"REFLECTANCE_MINIMUM_BAND_{name}",)),
        k1=keys.number(f"K1_CONSTANT_BAND_{name}"),
        k2=keys.number(f"K2_CONSTANT_BAND_{name}"),
        lowest=lowest,
        highest=highest,
    )
