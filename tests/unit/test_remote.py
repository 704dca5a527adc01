from __future__ import annotations

import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest
import rasterio
from affine import Affine
from rasterio.shutil import copy
from servers import range_server as faults
from servers.range_server import range_server

from urbandelta.errors import FetchError, SourceError
from urbandelta.sources.base import Layer
from urbandelta.sources.jpeg2000 import read_tile_map
from urbandelta.sources.remote import RemoteRaster
from urbandelta.transport import Clock, SignedUrl, Transport, TransportOptions

SHAPE = (3, 1100, 1000)
GRID = {"crs": "EPSG:32631", "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 4000, SHAPE).astype("uint16")


@pytest.fixture(scope="module")
def files(tmp_path_factory, data) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("remote")
    profile = {"driver": "GTiff", "count": 3, "height": SHAPE[1], "width": SHAPE[2], "dtype": "uint16", **GRID}
    with rasterio.open(folder / "tiles.tif", "w", **profile, tiled=True, blockxsize=128, blockysize=128) as file:
        file.scales, file.offsets = (0.5,) * 3, (-1.0,) * 3  # later it would move the header to the end
        file.write(data)
    copy(folder / "tiles.tif", folder / "cog.tif", driver="COG", compress="deflate", blocksize=256)
    jp2 = {"driver": "JP2OpenJPEG", "reversible": "yes", "quality": 100, "blockxsize": 256, "blockysize": 256}
    copy(folder / "tiles.tif", folder / "image.jp2", **jp2)
    (folder / "image.jp2.aux.xml").unlink(missing_ok=True)
    profile |= {"height": 16, "width": 16, "crs": None}
    with rasterio.open(folder / "nowhere.tif", "w", **profile) as file:
        file.write(data[:, :16, :16])
    profile |= {"height": 40_000, "width": 40_000, "sparse_ok": True, "blockysize": 40_000, "compress": "deflate"}
    with rasterio.open(folder / "bomb.tif", "w", **profile | GRID):
        pass
    (folder / "text.tif").write_text("no raster " * 100)
    (folder / "cut.tif").write_bytes((folder / "cog.tif").read_bytes()[:400_000])
    return {f"/{path.name}": path for path in folder.iterdir()}


@pytest.fixture
def server(files):
    with range_server(files) as running:
        yield running


@pytest.fixture
def transport():
    made = Transport(clock=Clock(sleep=lambda seconds: None))
    yield made
    made.close()


def test_it_is_a_layer_that_knows_its_header(server, transport):
    layer: Layer = RemoteRaster.open(transport, server.url("/tiles.tif?sig=S3CRET"), band=2)
    assert layer.grid.shape == SHAPE[1:]
    assert (layer.scale, layer.offset, layer.nodata) == (0.5, -1.0, None)
    assert layer.origin == server.url("/tiles.tif")
    assert "S3CRET" not in repr(layer)
    assert len(server.requests) == 1


def test_only_the_blocks_of_a_window_are_asked_for_and_all_at_once(server, transport, data):
    layer = RemoteRaster.open(transport, server.url("/tiles.tif"), band=1)
    server.requests.clear()
    values, masked = layer.read(slice(500, 700), slice(300, 420))
    npt.assert_array_equal(values, data[0, 500:700, 300:420])
    assert masked is None
    assert len(server.requests) == 3, "one for each row of blocks"
    blocks, bytes_each = 3 * 2, 128 * 128 * 2 * 3
    asked = sum(end - start for start, end in server.spans)
    assert asked <= blocks * bytes_each + 3 * 2 * transport.options.block_bytes


def test_bands_that_lie_together_are_transferred_once(server, transport, data, files):
    layers = [RemoteRaster.open(transport, server.url("/tiles.tif"), band=band) for band in (1, 2, 3)]
    assert len(server.requests) == 1, "and so is the header"
    with ThreadPoolExecutor(3) as threads:
        read = list(threads.map(lambda layer: layer.read(slice(0, 1100), slice(0, 1000))[0], layers))
    npt.assert_array_equal(np.stack(read), data)
    asked = sum(end - start for start, end in server.spans)
    assert asked < 1.02 * files["/tiles.tif"].stat().st_size


@pytest.mark.parametrize("name", ["/tiles.tif", "/cog.tif", "/image.jp2"])
def test_threads_may_open_read_and_let_go_as_they_like(name, server, transport, data):
    layers = {}

    def open_one(band: int) -> None:
        layers[band] = RemoteRaster.open(transport, server.url(name), band=band)

    threads = [threading.Thread(target=open_one, args=(band,)) for band in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def check(job: int) -> None:
        rng = np.random.default_rng(job)
        y, x = int(rng.integers(0, 900)), int(rng.integers(0, 800))
        values, _ = layers[1 + job % 3].read(slice(y, y + 200), slice(x, x + 200))
        npt.assert_array_equal(values, data[job % 3, y : y + 200, x : x + 200])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, range(18)))
        pool.submit(layers.clear).result()


@pytest.mark.parametrize("name", ["/cog.tif", "/image.jp2"])
def test_a_failure_amid_decoding_is_an_error_and_the_layer_recovers(name, server, transport, data, monkeypatch):
    layer = RemoteRaster.open(transport, server.url(name), band=3)
    # Nothing is known beforehand, so that GDAL runs into the failure by itself.
    monkeypatch.setattr(type(layer._pixels), "_spans", lambda self, rows, columns: [])
    server.always = faults.status(500)
    with pytest.raises(FetchError, match=r"answered 500 \(tried 6 times\)") as caught:
        layer.read(slice(300, 900), slice(0, 900))
    assert caught.value.__suppress_context__
    server.always = None
    values, _ = layer.read(slice(300, 900), slice(0, 900))
    npt.assert_array_equal(values, data[2, 300:900, :900])


def test_a_signature_that_ends_amid_reading_is_renewed(server, data):
    signed = []

    def sign(href: str) -> SignedUrl:
        signed.append(href)
        return SignedUrl(f"{href}?sig={len(signed)}")

    server.always = faults.needs("sig=1")
    transport = Transport(sign=sign, clock=Clock(sleep=lambda seconds: None))
    layer = RemoteRaster.open(transport, server.url("/cog.tif"))
    server.always = faults.needs("sig=2")
    npt.assert_array_equal(layer.read(slice(600, 900), slice(0, 900))[0], data[0, 600:900, :900])
    assert len(signed) == 2


def test_a_raster_that_is_exchanged_meanwhile_is_an_error(server, transport):
    layer = RemoteRaster.open(transport, server.url("/cog.tif"))
    server.etag = '"two"'
    with pytest.raises(FetchError, match="exchanged while it was read"):
        layer.read(slice(600, 900), slice(0, 900))
    RemoteRaster.open(transport, server.url("/cog.tif")).read(slice(600, 900), slice(0, 900))


@pytest.mark.parametrize(
    ("name", "band", "message"),
    [
        ("/text.tif", 1, "not a readable raster"),
        ("/nowhere.tif", 1, "lies in no CRS"),
        ("/bomb.tif", 1, "unpacks 9600000000 bytes at once"),
        ("/cog.tif", 4, "has 3 bands, so none with number 4"),
    ],
)
def test_what_is_no_usable_raster_is_named(name, band, message, server, transport):
    with pytest.raises(SourceError, match=message) as caught:
        RemoteRaster.open(transport, server.url(f"{name}?sig=S3CRET"), band=band)
    assert server.url(name) in str(caught.value)
    assert "S3CRET" not in str(caught.value)


def test_a_file_that_is_cut_at_its_source_is_damaged(server, transport):
    layer = RemoteRaster.open(transport, server.url("/cut.tif"))
    with pytest.raises(SourceError, match="cut short or damaged"):
        layer.read(slice(0, 1100), slice(0, 1000))


def test_windows_of_many_bytes_are_read_in_pieces(server, data, monkeypatch):
    monkeypatch.setattr("urbandelta.sources.remote._FETCHED_AT_ONCE", 300_000)
    transport = Transport(TransportOptions(cache_bytes=200_000))
    layer = RemoteRaster.open(transport, server.url("/tiles.tif"), band=2)
    held = []
    prefetch = layer._pixels._file.prefetch

    def watched(spans):
        held.append(sum(end - start for start, end in spans))
        prefetch(spans)

    monkeypatch.setattr(layer._pixels._file, "prefetch", watched)
    npt.assert_array_equal(layer.read(slice(3, 1100), slice(5, 990))[0], data[1, 3:, 5:990])
    assert len(held) > 10
    assert max(held) <= 300_000


def test_tiles_of_a_jpeg_2000_are_found(files):
    content = files["/image.jp2"].read_bytes()
    tiles = read_tile_map(lambda start, end: content[start:end], len(content))
    assert tiles is not None
    assert sorted(tiles.parts) == list(range(5 * 4))
    spans = tiles.spans(slice(0, 1100), slice(0, 1000))
    assert sum(end - start for start, end in spans) > 0.9 * len(content)
    assert all(content[start : start + 2] == b"\xff\x90" for start, _ in spans)
    assert len(tiles.spans(slice(255, 257), slice(0, 1))) == 2


@pytest.mark.parametrize("seed", range(40))
def test_damaged_jpeg_2000_headers_are_not_understood_or_followed_but_never_crash(files, seed):
    content = bytearray(files["/image.jp2"].read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, 3000, 8):
        content[place] = rng.integers(0, 256)
    tiles = read_tile_map(lambda start, end: bytes(content[start:end]), len(content))
    if tiles is not None:
        assert isinstance(tiles.spans(slice(0, 300), slice(0, 300)), list)


def test_secrets_are_in_no_log(server, transport, caplog):
    caplog.set_level(logging.DEBUG)
    RemoteRaster.open(transport, server.url("/cog.tif?sig=S3CRET")).read(slice(0, 300), slice(0, 300))
    assert "S3CRET" not in caplog.text


def test_python_may_end_while_rasters_are_open(files):
    code = (
        "from urbandelta.sources.remote import RemoteRaster; from urbandelta.transport import Transport; "
        f"kept = RemoteRaster.open(Transport(), {str(files['/cog.tif'])!r}); kept.read(slice(0, 9), slice(0, 9))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
