"""A tiny real fetch from each Sentinel Hub deployment; needs a network and credentials: `pytest -m network`."""

from __future__ import annotations

import os

import numpy as np
import pytest
from command import runner
from hub_scene import monitor_file

from urbandelta.store import open_cube

pytest.importorskip("sentinelhub")
pytestmark = pytest.mark.network


@pytest.mark.parametrize("endpoint", ["sentinel-hub", "cdse"])
@pytest.mark.parametrize("stream", ["s1_asc", "optical"])
def test_a_tiny_area_is_fetched(endpoint, stream, capfd, tmp_path):
    if not (os.environ.get("SH_CLIENT_ID") and os.environ.get("SH_CLIENT_SECRET")):
        pytest.skip("needs SH_CLIENT_ID and SH_CLIENT_SECRET")
    monitor = monitor_file(tmp_path, None, endpoint=endpoint, streams={stream: {}})
    outcome = runner(capfd)("fetch", monitor, "--until", "2020-01-08", "--json")
    document = outcome.document()
    assert document["added"][stream] >= 1
    cube = open_cube(str(tmp_path / "liege" / "cube"))
    values, mask = cube.read_raw(stream, slice(0, 1), slice(0, cube.grid.height), slice(0, cube.grid.width))
    seen = values[mask == 0]
    assert np.isfinite(seen).all()
    assert os.environ["SH_CLIENT_SECRET"] not in outcome.out + outcome.err
