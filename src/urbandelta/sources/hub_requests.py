"""The published requests to Sentinel Hub: what is asked of the catalogue and of the process API.

Bodies are made by the `sentinelhub` library, so that they follow the service's schema; what they ask for is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from urbandelta.eras import Stream
from urbandelta.errors import ConfigError
from urbandelta.grid import Grid

MOST_PIXELS = 2500
"""Largest side of an image that the process API gives."""
DATA_MASK, CLOUD_MASK = "dataMask", "CLM"

_PAGE = 100
_RADAR_PROCESSING = {"backCoeff": "GAMMA0_ELLIPSOID", "orthorectify": True, "demInstance": "COPERNICUS"}
# Numbers of all baselines as they were before 04.00, so that reflectance is DN / 10000.
_OPTICAL_PROCESSING = {"harmonizeValues": True, "upsampling": "NEAREST", "downsampling": "NEAREST"}


def layers(stream: Stream, *, cloud_mask: bool) -> tuple[str, ...]:
    """Bands of the image that a request gives, in order: the stream's, the data mask, and optionally clouds."""
    return (*stream.bands, DATA_MASK, *((CLOUD_MASK,) if cloud_mask and stream.kind == "optical" else ()))


def evalscript(stream: Stream, *, cloud_mask: bool) -> str:
    """Script that returns `layers` as one image: linear power in FLOAT32, digital numbers in UINT16."""
    names = layers(stream, cloud_mask=cloud_mask)
    radar = stream.kind == "sar"
    units = ["LINEAR_POWER" if radar and name in stream.bands else "DN" for name in names]
    return "\n".join(
        (
            "//VERSION=3",
            "function setup() {",
            "  return {",
            f"    input: [{{bands: {_listed(names)}, units: {_listed(units)}}}],",
            f'    output: {{id: "default", bands: {len(names)}, sampleType: "{"FLOAT32" if radar else "UINT16"}"}}',
            "  };",
            "}",
            "function evaluatePixel(sample) {",
            f"  return [{', '.join(f'sample.{name}' for name in names)}];",
            "}",
        )
    )


def process_request(
    stream: Stream, grid: Grid, *, start: np.datetime64, end: np.datetime64, cloud_mask: bool
) -> dict[str, Any]:
    """Body of a process request for one image on a grid of at most `MOST_PIXELS` on a side.

    Raises
    ------
    ConfigError
        If the grid's CRS is one that Sentinel Hub does not know, or the library is not installed.
    """
    hub = _library()
    try:
        crs = hub.CRS(grid.crs.upper().removeprefix("EPSG:"))
    except ValueError:
        raise ConfigError(
            f"grid.crs: Sentinel Hub is asked by EPSG code, which {grid.crs[:40]} is not; choose a UTM zone, such as "
            "EPSG:32631"
        ) from None
    processing = _RADAR_PROCESSING if stream.kind == "sar" else _OPTICAL_PROCESSING
    data = hub.SentinelHubRequest.input_data(
        _collection(stream),
        time_interval=(_seconds(start), _seconds(end)),
        other_args={"processing": dict(processing)},
    )
    return dict(
        hub.SentinelHubRequest.body(
            hub.SentinelHubRequest.bounds(bbox=hub.BBox(grid.bounds, crs)),
            [dict(data)],
            evalscript(stream, cloud_mask=cloud_mask),
            hub.SentinelHubRequest.output(
                [hub.SentinelHubRequest.output_response("default", hub.MimeType.TIFF)],
                size=(grid.width, grid.height),
            ),
        )
    )


def search_request(
    stream: Stream, bounds: Sequence[float], *, start: np.datetime64, end: np.datetime64
) -> dict[str, Any]:
    """Body of a catalogue search for a stream, over west, south, east, north in degrees."""
    collection = _collection(stream)
    document: dict[str, Any] = {
        "collections": [collection.catalog_id],
        "datetime": f"{_seconds(start)}Z/{_seconds(end)}Z",
        "bbox": [float(value) for value in bounds],
        "limit": _PAGE,
    }
    if stream.kind == "sar":
        document["filter"] = (
            f"sar:instrument_mode='IW' AND s1:polarization='DV' AND s1:resolution='HIGH' "
            f"AND sat:orbit_state='{stream.orbit_state}'"
        )
        document["filter-lang"] = "cql2-text"
    return document


def _collection(stream: Stream) -> Any:
    hub = _library()
    if stream.bands and set(stream.bands) <= {"VV", "VH"} and stream.units == "linear power":
        radar = {
            "ascending": hub.DataCollection.SENTINEL1_IW_ASC,
            "descending": hub.DataCollection.SENTINEL1_IW_DES,
        }
        return radar[stream.orbit_state]
    if stream.kind == "optical" and stream.processing_level == "L1C":
        return hub.DataCollection.SENTINEL2_L1C
    raise ConfigError(f"source.kind: sentinelhub has Sentinel-1 and Sentinel-2, nothing for stream {stream.name}")


def _library() -> Any:
    try:
        import sentinelhub
    except ImportError as error:
        raise ConfigError(f"source.kind: sentinelhub needs pip install 'urbandelta[sentinelhub]' ({error})") from error
    return sentinelhub


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _seconds(moment: np.datetime64) -> str:
    return str(np.datetime_as_string(moment, "s"))
