"""Cubes on an S3 server of this machine (moto)."""

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta import store
from urbandelta.errors import StoreError
from urbandelta.grid import Grid
from urbandelta.types import Acquisition

moto = pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")

GRID = Grid.from_bounds((500000, 5000000, 500100, 5000100), "EPSG:32631", (10, 10))


def acquisition(day):
    return Acquisition(
        time=np.datetime64("2020-01-01", "ns") + np.timedelta64(day, "D"),
        values=np.full((10, 10, 2), day, np.float32),
        mask=np.zeros((10, 10), np.uint8),
        bands=("VV", "VH"),
    )


@pytest.fixture(scope="module")
def bucket():
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bucket")
        yield "s3://bucket"
    server.stop()


def test_cube_on_s3(bucket):
    url = f"{bucket}/cubes/one"
    with pytest.raises(StoreError, match="not a readable"):
        store.open_cube(url)
    cube = store.create_cube(url, era="s12", grid=GRID)
    assert cube.append("s1_asc", [acquisition(2), acquisition(1)]).added == 2
    values, _ = store.open_cube(url).read("s1_asc", slice(None), slice(0, 1), slice(0, 1))
    npt.assert_array_equal(values[:, 0, 0, 0], [1, 2])
    assert cube.bytes_stored() is None
    with pytest.raises(StoreError, match="exists already"):
        store.create_cube(url, era="s12", grid=GRID)
    assert store.create_cube(url, era="s12", grid=GRID, overwrite=True).streams == ()


def test_a_commit_in_between_is_not_lost(bucket, monkeypatch):
    url = f"{bucket}/cubes/two"
    mine, theirs = store.create_cube(url, era="s12", grid=GRID), store.open_cube(url, "a")
    append_frame, written = store.append_frame, []

    def interrupted(*args, **options):
        append_frame(*args, **options)
        if not written:
            written.append(True)
            theirs.append("s1_asc", [acquisition(5)])

    monkeypatch.setattr(store, "append_frame", interrupted)
    assert mine.append("s1_asc", [acquisition(1), acquisition(5)]) == store.AppendReport(1, 1, mine.snapshot)
    npt.assert_array_equal(mine.times("s1_asc"), [acquisition(1).time, acquisition(5).time])
    values, _ = store.open_cube(url).read("s1_asc", slice(None), slice(0, 1), slice(0, 1))
    npt.assert_array_equal(values[:, 0, 0, 0], [1, 5])


def test_unreachable_bucket_is_named_in_one_line(bucket):
    with pytest.raises(StoreError, match="s3://nobucket/cube") as caught:
        store.open_cube("s3://nobucket/cube")
    assert "\n" not in str(caught.value)
