"""Two Landsat pairs without metadata: corrected by documented constants, and how well index differences find change.

    python experiments/landsat_pairs/run.py --data ../shared/data [--out FOLDER] [--json]

Each date gets a metadata file in the old layout (LMIN, LMAX, sun elevation), goes through `toa` and `import geotiff`
into a cube, and is judged by ROC-AUC over the pixels that the truth marks (changed against unchanged).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
from PIL import Image

import urbandelta as ud
from urbandelta.grid import Grid
from urbandelta.metrics import roc_auc
from urbandelta.sources.base import Declared, Found
from urbandelta.sources.geotiff import Naming, find_scenes
from urbandelta.sources.importing import ImportJob, NewCube, plan_import, run_import
from urbandelta.sources.pattern import compile_pattern
from urbandelta.toa import sun_position
from urbandelta.toa_raster import ToaOptions, write_toa

BANDS = ("1", "2", "3", "4", "5", "7")
ROLES = ("blue", "green", "red", "nir", "swir1", "swir2")
SHIFT = 0.25

# Radiance at digital numbers 1 and 255, W / (m2 sr um), bands 1-5 and 7: Chander, Markham & Helder (2009),
# doi:10.1016/j.rse.2009.01.007. TM: products that USGS made since 2007 of scenes after 1991. ETM+: since July 2000.
TM = {
    "1": (-1.52, 193.0), "2": (-2.84, 365.0), "3": (-1.17, 264.0),
    "4": (-1.51, 221.0), "5": (-0.37, 30.2), "7": (-0.15, 16.5),
}  # fmt: skip
ETM_HIGH = {
    "1": (-6.2, 191.6), "2": (-6.4, 196.5), "3": (-5.0, 152.9),
    "4": (-5.1, 157.4), "5": (-1.0, 31.06), "7": (-0.35, 10.80),
}  # fmt: skip
ETM_LOW = {
    "1": (-6.2, 293.7), "2": (-6.4, 300.9), "3": (-5.0, 234.4),
    "4": (-5.1, 241.1), "5": (-1.0, 47.57), "7": (-0.35, 16.54),
}  # fmt: skip

Planes = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Date:
    """One image: file, time of the pass (UTC, estimated), and the radiance of its digital numbers 1 and 255."""

    file: str
    time: str
    spacecraft: int
    radiance: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two dates and the folder that holds them with their truth."""

    folder: str
    dates: tuple[Date, Date]


# The headers do not tell the time. Landsat 5 crossed the equator at about 9:40 local time then, Landsat 7 at 10:00, and
# 32 degrees north some 20 minutes of local time later. Nor do they tell ETM+'s gains: high for land, and low in band 4
# while the sun is higher than 45 degrees, as the long-term acquisition plan had it.
PAIRS = {
    "nanjing": Pair(
        folder="landsat5_nanjing",
        dates=(
            Date(file="LT51200382000124BJC00_Nanjing", time="2000-05-03T02:10:00", spacecraft=5, radiance=TM),
            Date(file="LT51200382002193BJC00_Nanjing", time="2002-07-12T02:10:00", spacecraft=5, radiance=TM),
        ),
    ),
    "taizhou": Pair(
        folder="landsat7_taizhou",
        dates=(
            Date(
                file="2000TM", time="2000-03-17T02:22:00", spacecraft=7, radiance={**ETM_HIGH, "4": ETM_LOW["4"]}
            ),
            Date(file="2003TM", time="2003-02-06T02:22:00", spacecraft=7, radiance=ETM_HIGH),
        ),
    ),
}  # fmt: skip


def main() -> None:
    """Correct, import, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with landsat5_nanjing and landsat7_taizhou")
    parser.add_argument("--out", type=Path, help="keep metadata, corrected images and cubes here")
    parser.add_argument("--later-minutes", type=float, default=0.0, help="shift the estimated times of the passes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch)
        table = {name: judge(name, pair, options.data, out, options.later_minutes) for name, pair in PAIRS.items()}
    if options.json:
        print(json.dumps(table, indent=2))
        return
    print("| index difference | " + " | ".join(f"{name}, raw DN | {name}, TOA" for name in table) + " |")
    print("|---|" + "---|" * 2 * len(table))
    for row in next(iter(table.values())):
        cells = [f"{table[name][row][kind]:.3f}" for name in table for kind in ("raw", "toa")]
        print(f"| {row} | {' | '.join(cells)} |")


def judge(name: str, pair: Pair, data: Path, out: Path, later_minutes: float) -> dict[str, dict[str, float]]:
    """ROC-AUC of each measure on raw digital numbers and on reflectance."""
    folder, place = data / pair.folder, out / name
    place.mkdir(parents=True, exist_ok=True)
    changed, unchanged = (np.asarray(Image.open(folder / f"{word}.bmp")) > 0 for word in ("change", "unchanged"))
    marked = changed | unchanged
    raw = [planes(read(folder / date.file)) for date in pair.dates]
    corrected = [correct(date, folder, place, later_minutes) for date in pair.dates]
    toa = imported(place, corrected)
    return {
        measure: {
            kind: roc_auc(difference(*images)[marked], changed[marked]) for kind, images in (("raw", raw), ("toa", toa))
        }
        for measure, difference in MEASURES.items()
    }


def read(path: Path) -> npt.NDArray[np.float64]:
    """Bands (band, y, x) of a file."""
    with rasterio.open(path) as source:
        return source.read().astype(np.float64)


def planes(bands: npt.NDArray[np.float64]) -> Planes:
    """Bands by role."""
    return dict(zip(ROLES, bands, strict=True))


def correct(date: Date, folder: Path, place: Path, later_minutes: float) -> Path:
    """Write the date's metadata and its reflectance."""
    grid = Grid.from_raster(folder / date.file)
    time = np.datetime64(date.time, "ns") + np.timedelta64(round(later_minutes * 60), "s")
    day, clock = str(time.astype("datetime64[s]")).split("T")
    west, south, east, north = grid.bounds
    longitude, latitude = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(
        (west + east) / 2, (south + north) / 2
    )
    elevation, azimuth = sun_position(time, np.array([longitude]), np.array([latitude]))
    mtl = place / f"{day}_MTL.txt"
    mtl.write_text(metadata(date, day, clock, float(elevation[0]), float(azimuth[0])))
    out = place / f"toa_{day.replace('-', '')}.tif"
    write_toa(mtl, out, ToaOptions(bands=BANDS), dn=folder / date.file, overwrite=True)
    return out


def metadata(date: Date, day: str, clock: str, elevation: float, azimuth: float) -> str:
    """A metadata file in the layout of before 2012."""
    lines = [
        "GROUP = L1_METADATA_FILE",
        f'SPACECRAFT_ID = "Landsat{date.spacecraft}"',
        f'SENSOR_ID = "{"TM" if date.spacecraft == 5 else "ETM+"}"',
        f"ACQUISITION_DATE = {day}",
        f"SCENE_CENTER_SCAN_TIME = {clock}Z",
        f"SUN_ELEVATION = {elevation:.5f}",
        f"SUN_AZIMUTH = {azimuth:.5f}",
    ]
    for band, (low, high) in date.radiance.items():
        lines += [
            f"LMIN_BAND{band} = {low}",
            f"LMAX_BAND{band} = {high}",
            f"QCALMIN_BAND{band} = 1",
            f"QCALMAX_BAND{band} = 255",
        ]
    return "\n".join([*lines, "END_GROUP = L1_METADATA_FILE", "END", ""])


def imported(place: Path, files: list[Path]) -> list[Planes]:
    """Reflectances by role as a cube holds them."""
    naming = Naming(pattern=compile_pattern("toa_{date:%Y%m%d}.tif"))
    url = str(place / "cube")
    job = ImportJob(
        into=url,
        stream="optical",
        find=lambda _: Found(find_scenes(place, naming)),
        where=str(place),
        new_cube=NewCube(era="ers12ls5", native=True),
        declared=Declared(level="L1"),
    )
    run_import(plan_import(job))
    cube = ud.open_cube(url)
    assert len(cube.times("optical")) == len(files)
    values, _ = cube.read("optical", slice(0, len(files)), slice(0, cube.grid.height), slice(0, cube.grid.width))
    return [planes(np.moveaxis(image, -1, 0).astype(np.float64)) for image in values]


# ---------------------------------------------------------------- measures of change, the higher the more


def nd(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(a - b) / (a + b), 0 where that is not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num((a - b) / (a + b), nan=0.0, posinf=0.0, neginf=0.0)


def plain_endisi(image: Planes) -> npt.NDArray[np.float64]:
    """ENDISI as Chen et al. (2019) define it: nd(blue, beta q), beta from the means of the same image."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(image["swir1"] / image["swir2"], nan=0.0, posinf=0.0, neginf=0.0)
    q = ratio + nd(image["green"], image["swir1"]) ** 2
    return nd(image["blue"], 2 * image["blue"].mean() / q.mean() * q)


def label_endisi(image: Planes) -> npt.NDArray[np.float64]:
    """ENDISI as urbandelta's labels use it: shifted, without water and bare soil, clipped; beta of the same image."""
    bands = [image[role] for role in ("blue", "green", "red", "nir", "swir1", "nir", "swir2")]  # band 6 is not used
    stack = np.stack(bands, axis=-1).astype(np.float32)
    beta = ud.endisi_beta(stack, era="ers12ls5", mode="corrected").beta
    return np.asarray(ud.endisi(stack, beta, era="ers12ls5", shift=SHIFT, mode="corrected"), np.float64)


def standardised(image: Planes) -> npt.NDArray[np.float64]:
    """Each band with mean 0 and standard deviation 1."""
    stack = np.stack([image[role] for role in ROLES])
    return (stack - stack.mean((1, 2), keepdims=True)) / stack.std((1, 2), keepdims=True)


Index = Callable[[Planes], npt.NDArray[np.float64]]


def absolute(index: Index) -> Callable[[Planes, Planes], npt.NDArray[np.float64]]:
    """How much an index differs between the dates."""
    return lambda first, second: np.abs(index(second) - index(first))


def length(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Length of the change vector."""
    return np.sqrt(((second - first) ** 2).sum(axis=0))


MEASURES: dict[str, Callable[[Planes, Planes], npt.NDArray[np.float64]]] = {
    "ENDISI (Chen 2019)": absolute(plain_endisi),
    f"ENDISI of the labels, shift {SHIFT}": absolute(label_endisi),
    "NDBI": absolute(lambda image: nd(image["swir1"], image["nir"])),
    "NDVI": absolute(lambda image: nd(image["nir"], image["red"])),
    "MNDWI": absolute(lambda image: nd(image["green"], image["swir1"])),
    "BSI": absolute(lambda image: nd(image["swir1"] + image["red"], image["nir"] + image["blue"])),
    "change vector": lambda first, second: length(
        np.stack([first[role] for role in ROLES]), np.stack([second[role] for role in ROLES])
    ),
    "change vector of standardised bands": lambda first, second: length(standardised(first), standardised(second)),
}


if __name__ == "__main__":
    main()
