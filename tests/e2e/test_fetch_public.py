"""One tiny fetch from each public archive, where there is a network: `pytest -m network`."""

from __future__ import annotations

import os

import numpy as np
import pytest

from urbandelta.fetching import fetch
from urbandelta.monitor import parse_monitor
from urbandelta.store import open_cube

pytestmark = pytest.mark.network

# A few hundred metres of Liège.
BBOX = [5.565, 50.640, 5.571, 50.644]
needs_s3 = pytest.mark.skipif(not os.environ.get("AWS_ACCESS_KEY_ID"), reason="needs S3 credentials")


@pytest.mark.parametrize(
    ("archive", "stream", "options"),
    [
        ("planetary-computer", "s1_asc", {}),
        ("planetary-computer", "optical", {}),
        ("earth-search", "optical", {"collection": "sentinel-2-l2a", "offset_check": "warn"}),
        ("earth-search", "optical", {"collection": "sentinel-2-c1-l2a", "offset_check": "warn"}),
        pytest.param("earth-search", "optical", {"collection": "sentinel-2-l1c"}, marks=needs_s3),
        pytest.param("copernicus", "optical", {"collection": "sentinel-2-l1c"}, marks=needs_s3),
    ],
)
def test_a_fortnight_of_a_public_archive(tmp_path, archive, stream, options):
    document = {
        "version": 1,
        "name": "liege",
        "aoi": {"bbox": BBOX},
        "start": "2023-06-01",
        "end": "2023-06-15",
        "store": "store",
        "source": {"kind": "stac", "archive": archive, "streams": {stream: options}},
    }
    monitor = parse_monitor(document, where=tmp_path / "monitor.yaml")
    report = fetch(monitor)
    assert report.complete, report.missing
    assert report.added[stream] > 0
    cube = open_cube(monitor.cube_url)
    values, mask = cube.read(stream, slice(0, None), slice(0, cube.grid.height), slice(0, cube.grid.width))
    assert np.isfinite(values[mask == 0]).all()
    assert set(cube.acquisitions(stream)["relative_orbit"].values) != {-1}
