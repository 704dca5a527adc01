"""Made-up Landsat scenes for tests: metadata in each layout that archives delivered, band files, quality bands."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

SCENE = "LT05_L1TP_198025_19950612_20180101_01_T1"
TM = ("1", "2", "3", "4", "5", "6", "7")
ETM = ("1", "2", "3", "4", "5", "6_VCID_1", "6_VCID_2", "7", "8")
OLI = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11")
K = {5: ("607.76", "1260.56"), 7: ("666.09", "1282.71"), 8: ("774.8853", "1321.0789")}


def thermal(spacecraft: int, band: str) -> bool:
    return band in ("10", "11") if spacecraft == 8 else band.startswith("6")


def groups(
    *, spacecraft: int = 5, collection: int = 1, scene: str = SCENE, bands: Iterable[str] = TM, **extra: str
) -> dict[str, dict[str, str]]:
    """Metadata as groups; numbers are round so that tests can compute with them."""
    second = collection == 2
    product = {
        "SPACECRAFT_ID": f"LANDSAT_{spacecraft}",
        "SENSOR_ID": {5: "TM", 7: "ETM", 8: "OLI_TIRS"}[spacecraft],
        "WRS_PATH": "198",
        "DATE_ACQUIRED": "1995-06-12",
        "SCENE_CENTER_TIME": "09:53:14.7994828Z",
        **{f"FILE_NAME_BAND_{band}": f"{scene}_B{band}.TIF" for band in bands},
    }
    product |= (
        {
            "PROCESSING_LEVEL": "L1TP",
            "FILE_NAME_QUALITY_L1_PIXEL": f"{scene}_QA_PIXEL.TIF",
            "FILE_NAME_QUALITY_L1_RADIOMETRIC_SATURATION": f"{scene}_QA_RADSAT.TIF",
            "FILE_NAME_ANGLE_SOLAR_ZENITH_BAND_4": f"{scene}_SZA.TIF",
        }
        if second
        else {"DATA_TYPE": "L1TP", "FILE_NAME_BAND_QUALITY": f"{scene}_BQA.TIF"}
    )
    rescaling: dict[str, str] = {}
    constants: dict[str, str] = {}
    for band in bands:
        rescaling |= {f"RADIANCE_MULT_BAND_{band}": "5.0E-02", f"RADIANCE_ADD_BAND_{band}": "1.00000"}
        if thermal(spacecraft, band):
            constants[f"K1_CONSTANT_BAND_{band}"], constants[f"K2_CONSTANT_BAND_{band}"] = K[spacecraft]
        else:
            rescaling |= {f"REFLECTANCE_MULT_BAND_{band}": "2.0E-03", f"REFLECTANCE_ADD_BAND_{band}": "-0.010000"}
    thermal_group = "TIRS_THERMAL_CONSTANTS" if spacecraft == 8 else "THERMAL_CONSTANTS"
    names = {
        1: ("PRODUCT_METADATA", "RADIOMETRIC_RESCALING", thermal_group),
        2: ("PRODUCT_CONTENTS", "LEVEL1_RADIOMETRIC_RESCALING", "LEVEL1_THERMAL_CONSTANTS"),
    }[collection]  # fmt: skip
    return {
        "METADATA_FILE_INFO": {"LANDSAT_PRODUCT_ID": scene, "COLLECTION_NUMBER": f"{collection:02d}"},
        names[0]: product,
        "IMAGE_ATTRIBUTES": {
            "SUN_AZIMUTH": "138.5",
            "SUN_ELEVATION": "30.0",
            "EARTH_SUN_DISTANCE": "1.0152",
            **extra,
        },
        names[1]: rescaling,
        names[2]: constants,
    }


def as_text(content: Mapping[str, Mapping[str, str]], *, root: str = "L1_METADATA_FILE", quote: bool = True) -> str:
    """The text layout."""
    lines = [f"GROUP = {root}"]
    for group, pairs in content.items():
        lines.append(f"  GROUP = {group}")
        for key, value in pairs.items():
            number = value.replace(".", "").replace("-", "").replace("+", "").replace("E", "").isdigit()
            lines.append(f"    {key} = {value}" if number or not quote else f'    {key} = "{value}"')
        lines.append(f"  END_GROUP = {group}")
    return "\n".join([*lines, f"END_GROUP = {root}", "END", ""])


def as_json(content: Mapping[str, Mapping[str, str]]) -> str:
    """The JSON layout of Collection 2."""
    return json.dumps({"LANDSAT_METADATA_FILE": content})


BEFORE_2012 = """GROUP = L1_METADATA_FILE
  GROUP = METADATA_FILE_INFO
    PRODUCT_CREATION_TIME = 2010-04-19T12:12:44Z
  END_GROUP = METADATA_FILE_INFO
  GROUP = PRODUCT_METADATA
    PRODUCT_TYPE = "L1T"
    SPACECRAFT_ID = "Landsat7"
    SENSOR_ID = "ETM+"
    ACQUISITION_DATE = 2000-03-17
    SCENE_CENTER_SCAN_TIME = 02:24:41.5000000Z
    WRS_PATH = 119
    STARTING_ROW = 38
    BAND1_FILE_NAME = "L71119038_03820000317_B10.TIF"
    BAND61_FILE_NAME = "L71119038_03820000317_B61.TIF"
    BAND62_FILE_NAME = "L72119038_03820000317_B62.TIF"
  END_GROUP = PRODUCT_METADATA
  GROUP = MIN_MAX_RADIANCE
    LMAX_BAND1 = 191.600
    LMIN_BAND1 = -6.200
    LMAX_BAND61 = 17.040
    LMIN_BAND61 = 0.000
    LMAX_BAND62 = 12.650
    LMIN_BAND62 = 3.200
  END_GROUP = MIN_MAX_RADIANCE
  GROUP = MIN_MAX_PIXEL_VALUE
    QCALMAX_BAND1 = 255.0
    QCALMIN_BAND1 = 1.0
    QCALMAX_BAND61 = 255.0
    QCALMIN_BAND61 = 1.0
    QCALMAX_BAND62 = 255.0
    QCALMIN_BAND62 = 1.0
  END_GROUP = MIN_MAX_PIXEL_VALUE
  GROUP = PRODUCT_PARAMETERS
    SUN_AZIMUTH = 132.6
    SUN_ELEVATION = 47.9
  END_GROUP = PRODUCT_PARAMETERS
END_GROUP = L1_METADATA_FILE
END
"""


def write_raster(path: Path, array: np.ndarray, *, west: float = 500_000.0, north: float = 5_600_010.0) -> Path:
    """A GeoTIFF of 30 m pixels."""
    array = array if array.ndim == 3 else array[None]
    path.unlink(missing_ok=True)  # GDAL would delete the scene's MTL file together with a band that it replaces
    with rasterio.open(
        path, "w", driver="GTiff", count=len(array), height=array.shape[1], width=array.shape[2], dtype=array.dtype,
        crs="EPSG:32631", transform=Affine(30, 0, west, 0, -30, north),
    ) as target:  # fmt: skip
        target.write(array)
    return path


def write_scene(
    folder: Path,
    *,
    shape: tuple[int, int] = (6, 5),
    collection: int = 1,
    spacecraft: int = 5,
    bands: Iterable[str] = TM,
    scene: str = SCENE,
    seed: int = 0,
    **extra: str,
) -> Path:
    """A scene folder whose pixel (0, 0) is fill; the rest is clear. Returns the MTL file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    dtype = np.uint16 if spacecraft == 8 else np.uint8
    for band in bands:
        dn = rng.integers(20, 120, shape).astype(dtype)
        dn[0, 0] = 0
        write_raster(folder / f"{scene}_B{band}.TIF", dn)
    quality = np.full(shape, 672 if collection == 1 else 5440, np.uint16)
    quality[0, 0] = 1
    if collection == 1:
        write_raster(folder / f"{scene}_BQA.TIF", quality)
    else:
        write_raster(folder / f"{scene}_QA_PIXEL.TIF", quality)
        write_raster(folder / f"{scene}_QA_RADSAT.TIF", np.zeros(shape, np.uint16))
    content = groups(spacecraft=spacecraft, collection=collection, scene=scene, bands=bands, **extra)
    root = "L1_METADATA_FILE" if collection == 1 else "LANDSAT_METADATA_FILE"
    mtl = folder / f"{scene}_MTL.txt"
    mtl.write_text(as_text(content, root=root))
    return mtl


def pack(folder: Path, archive: Path, *, rename: Mapping[str, str] | None = None) -> Path:
    """An archive of a folder's files, whose metadata come last, as USGS packs them."""
    mode = "w:gz" if archive.name.endswith("gz") else "w"
    files = sorted(folder.iterdir(), key=lambda path: (path.name.endswith("_MTL.txt"), path.name))
    with tarfile.open(archive, mode) as tar:
        for path in files:
            tar.add(path, arcname=(rename or {}).get(path.name, path.name))
    return archive
