"""A window of a raster behind a server holds exactly the pixels of the same window read from disk."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning
from rasterio.shutil import copy
from servers import range_server as faults
from servers.range_server import range_server

from urbandelta.errors import FetchError
from urbandelta.range_file import cut
from urbandelta.sources.geotiff import read_info
from urbandelta.sources.remote import RemoteRaster
from urbandelta.transport import Clock, Transport, TransportOptions

HEIGHT, WIDTH = 210, 170
FORMS = {
    "cog": {"driver": "COG", "compress": "deflate", "blocksize": 128},
    "cog_float": {"driver": "COG", "compress": "zstd", "predictor": 3, "blocksize": 128, "dtype": "float32"},
    "cog_mask": {"driver": "COG", "compress": "deflate", "blocksize": 128, "mask": True},
    "tiles_by_band": {"tiled": True, "blockxsize": 64, "blockysize": 32, "interleave": "band", "compress": "lzw"},
    "tiles_by_pixel": {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "pixel"},
    "strips": {"blockysize": 7, "compress": "deflate", "predictor": 2},
    "one_strip": {"blockysize": HEIGHT},
    "sparse": {"tiled": True, "blockxsize": 64, "blockysize": 64, "sparse_ok": True, "compress": "lzw", "hole": True},
    "bigtiff": {"bigtiff": "yes", "tiled": True, "blockxsize": 64, "blockysize": 64, "endianness": "big"},
    "jp2": {"driver": "JP2OpenJPEG", "reversible": "yes", "quality": 100, "blockxsize": 64, "blockysize": 64},
    "jp2_tlm": {"driver": "JP2OpenJPEG", "reversible": "yes", "quality": 100, "blockxsize": 64, "blockysize": 64}
    | {"tlm": "yes"},
}


def write(path: Path, form: dict) -> None:
    options = dict(form)
    driver, dtype = options.pop("driver", "GTiff"), options.pop("dtype", "uint16")
    hole, mask = options.pop("hole", False), options.pop("mask", False)
    rng = np.random.default_rng(7)
    data = rng.integers(0, 3000, (3, HEIGHT, WIDTH)).astype(dtype)
    profile = {
        "height": HEIGHT,
        "width": WIDTH,
        "count": 3,
        "dtype": dtype,
        "nodata": None if mask or driver == "JP2OpenJPEG" else 0,
    }
    profile |= {"crs": "EPSG:32631", "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}
    plain = path if driver == "GTiff" else path.with_name(f"{path.stem}_plain.tif")
    if driver == "GTiff":
        profile |= options
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(plain, "w", driver="GTiff", **profile) as file:
        if hole:
            file.write(data[:, :64, :64], window=((64, 128), (64, 128)))
        else:
            file.write(data)
        if mask:
            file.write_mask(rng.random((HEIGHT, WIDTH)) < 0.7)
    if driver != "GTiff":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            copy(plain, path, driver=driver, **options)
        plain.unlink()


class Served:
    """Server and files; what is asked of the server makes its description long."""

    def __init__(self, server, paths):
        self.server, self.paths = server, paths


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rasters")
    paths = {name: folder / f"{name}.{'jp2' if 'jp2' in name else 'tif'}" for name in FORMS}
    for name, form in FORMS.items():
        write(paths[name], form)
    with range_server({f"/{path.name}": path for path in paths.values()}) as server:
        yield Served(server, paths)


def spans(length: int):
    return st.tuples(st.integers(0, length - 1), st.integers(1, length)).map(
        lambda pair: slice(pair[0], min(length, pair[0] + pair[1]))
    )


QUIET = Clock(sleep=lambda seconds: None)
SMALL = TransportOptions(block_bytes=512, first_bytes=2048, ahead_bytes=1024, merge_bytes=512, request_bytes=20_000)


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=spans(HEIGHT), columns=spans(WIDTH), band=st.integers(1, 3), small=st.booleans())
def test_a_window_at_a_distance_is_the_window_on_disk(served, name, rows, columns, band, small):
    server, paths = served.server, served.paths
    with contextlib.closing(Transport(SMALL if small else None)) as transport:
        layer = RemoteRaster.open(transport, server.url(f"/{paths[name].name}"), band=band)
        local = read_info(paths[name]).layer(band)
        for fact in ("grid", "nodata", "scale", "offset", "has_mask"):
            assert getattr(layer, fact) == getattr(local, fact)
        values, masked = layer.read(rows, columns)
        expected, expected_masked = local.read(rows, columns)
        assert values.dtype == expected.dtype
        npt.assert_array_equal(values, expected)
        assert (masked is None) == (expected_masked is None)
        if masked is not None:
            npt.assert_array_equal(masked, expected_masked)


KINDS = [faults.truncated, faults.short, faults.hangs_up, faults.status(500), faults.status(404), faults.shifted]


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), after=st.integers(0, 12), rows=spans(HEIGHT), columns=spans(WIDTH))
def test_a_failure_at_any_request_is_an_error_and_never_pixels(served, name, kind, after, rows, columns):
    server, paths = served.server, served.paths
    server.faults, server.always = [None] * after, kind
    expected, _ = read_info(paths[name]).layer(2).read(rows, columns)
    try:
        with contextlib.closing(Transport(SMALL, clock=QUIET)) as transport:
            try:
                layer = RemoteRaster.open(transport, server.url(f"/{paths[name].name}?sig=S3CRET"), band=2)
                values, _ = layer.read(rows, columns)
            except FetchError as error:
                told = str(error)
            else:
                told = ""
                npt.assert_array_equal(values, expected)
            assert "S3CRET" not in told
            if "layer" in locals():
                # The layer is as good as new once the server is.
                server.faults, server.always = [], None
                npt.assert_array_equal(layer.read(rows, columns)[0], expected)
    finally:
        server.faults, server.always = [], None


@given(data=st.binary(max_size=300), seams=st.lists(st.integers(0, 300), max_size=6), step=st.integers(1, 50))
def test_blocks_do_not_depend_on_the_pieces_that_they_came_in(data, seams, step):
    edges = [0, *sorted(min(seam, len(data)) for seam in seams), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges) if start < end]
    blocks = cut(pieces, 7, step)
    expected = [data[place : place + step] for place in range(0, len(data), step)]
    assert {number: bytes(block) for number, block in blocks.items()} == dict(enumerate(expected, 7))
