from __future__ import annotations

import sys
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import boto3
import numpy as np
import numpy.testing as npt
import pytest
import rasterio
from affine import Affine
from moto.server import ThreadedMotoServer

from urbandelta.errors import ConfigError, FetchError
from urbandelta.s3_links import VALID_FOR, S3Links
from urbandelta.sources.remote import RemoteRaster
from urbandelta.transport import Clock, Transport

SECRETS = ("AKIDEXAMPLE", "S3CRET", "T0KEN")


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def environment(monkeypatch, endpoint, tmp_path):
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_NO_SIGN_REQUEST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRETS[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS[1])
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRETS[2])
    return monkeypatch


@pytest.fixture
def stored(environment, endpoint, tmp_path):
    data = np.random.default_rng(2).integers(0, 4000, (1, 300, 200)).astype("uint16")
    path = tmp_path / "a scene.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 300, "width": 200, "dtype": "uint16", "crs": "EPSG:32631"}
    with rasterio.open(path, "w", **profile, transform=Affine(10, 0, 5e5, 0, -10, 5e6), compress="deflate") as file:
        file.write(data)
    client = boto3.client("s3")
    client.create_bucket(Bucket="scenes", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    client.upload_file(str(path), "scenes", "2024/a scene+1.tif")
    yield data[0]
    client.delete_object(Bucket="scenes", Key="2024/a scene+1.tif")
    client.delete_bucket(Bucket="scenes")


def test_objects_of_a_bucket_are_read_by_links_and_no_secret_is_told(stored, caplog):
    caplog.set_level("DEBUG")
    caplog.set_level("ERROR", "werkzeug")  # the other side
    transport = Transport(clock=Clock(sleep=lambda seconds: None))
    layer = RemoteRaster.open(transport, "s3://scenes/2024/a%20scene+1.tif")
    npt.assert_array_equal(layer.read(slice(10, 290), slice(0, 200))[0], stored[10:290])
    with pytest.raises(FetchError, match=r"^s3://scenes/2024/none\.tif: is not there") as caught:
        transport.open("s3://scenes/2024/none.tif")
    told = caplog.text + str(caught.value) + repr(transport) + repr(layer) + repr(transport._signed)
    assert not [line[:200] for line in told.splitlines() if any(secret in line for secret in SECRETS)]
    transport.close()


def test_a_link_says_when_it_ends_and_who_pays(environment, endpoint):
    link, headers, expires = S3Links(requester_pays=True).link("s3://scenes/a/b.jp2")
    parts = urlsplit(link)
    query = parse_qs(parts.query)
    assert link.startswith(f"{endpoint}/scenes/a/b.jp2?")
    assert query["X-Amz-Expires"] == ["900"]
    assert headers == {"x-amz-request-payer": "requester"}
    assert query["X-Amz-SignedHeaders"] == ["host;x-amz-request-payer"]
    assert abs(expires - datetime.now(UTC) - VALID_FOR).total_seconds() < 30


def test_public_buckets_need_no_credentials(environment, endpoint):
    environment.setenv("AWS_NO_SIGN_REQUEST", "YES")
    environment.delenv("AWS_ACCESS_KEY_ID")
    environment.delenv("AWS_SECRET_ACCESS_KEY")
    assert S3Links().link("s3://scenes/a/b.jp2")[0] == f"{endpoint}/scenes/a/b.jp2"


def test_what_lacks_is_named(environment):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        environment.delenv(name)
    with pytest.raises(FetchError, match=r"cannot be signed .*set AWS_ACCESS_KEY_ID"):
        S3Links().link("s3://scenes/a/b.jp2")
    with pytest.raises(FetchError, match="names no object of a bucket"):
        S3Links().link("s3://scenes")
    environment.setenv("AWS_ENDPOINT_URL", "no address")
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL is no address"):
        S3Links().link("s3://scenes/a")
    environment.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError, match="need the extra s3"):
        S3Links().link("s3://scenes/a")
