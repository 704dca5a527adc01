"""Static catalogues, APIs that answer wrongly, and how archives are reached and signed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import rasterio
from affine import Affine

from urbandelta import archive_access
from urbandelta.archive_access import TokenSigner, opener_for
from urbandelta.errors import FetchError
from urbandelta.sources.archives import ARCHIVES
from urbandelta.sources.catalogue import Query, find_items

QUERY = Query("msi", (0.0, 0.0, 1.0, 1.0), np.datetime64("2020-01-01"), np.datetime64("2021-01-01"))


class Pages:
    """A server made of documents by address."""

    def __init__(self, documents):
        self.documents = documents
        self.asked = []

    def get(self, href):
        self.asked.append(href)
        if href not in self.documents:
            raise FetchError(f"{href}: answered 404")
        document = self.documents[href]
        return document if isinstance(document, bytes) else json.dumps(document).encode()


def item(name, collection="msi"):
    return {"type": "Feature", "id": name, "collection": collection, "properties": {}, "assets": {}}


def links(*pairs):
    return [{"rel": rel, "href": href, "type": "application/geo+json"} for rel, href in pairs]


def test_walks_a_static_catalogue_and_skips_other_collections():
    pages = Pages(
        {
            "http://h/c/catalog.json": {
                "type": "Catalog",
                "id": "root",
                "links": links(("child", "msi/collection.json"), ("child", "radar/collection.json"), ("self", "x")),
            },
            "http://h/c/msi/collection.json": {
                "type": "Collection",
                "id": "msi",
                "links": links(("item", "a.json"), ("item", "b.json"), ("child", "../catalog.json")),
            },
            "http://h/c/msi/a.json": item("a"),
            "http://h/c/msi/b.json": {"type": "FeatureCollection", "features": [item("b"), item("c", "other")]},
            "http://h/c/radar/collection.json": {
                "type": "Collection",
                "id": "radar",
                "links": links(("item", "never.json")),
            },
        }
    )
    found = list(find_items("http://h/c/catalog.json", QUERY, pages))
    assert [(one["id"], href) for one, href in found] == [
        ("a", "http://h/c/msi/a.json"),
        ("b", "http://h/c/msi/b.json"),
    ]
    assert len(pages.asked) == len(set(pages.asked))


@pytest.mark.parametrize("answer", [b"<html>", b"[]", {"type": "Something"}, b"{"])
def test_says_what_is_no_catalogue(answer):
    with pytest.raises(FetchError, match="http://h/"):
        list(find_items("http://h/", QUERY, Pages({"http://h/": answer})))


def test_an_item_that_cannot_be_had_is_no_shorter_catalogue():
    root = {"type": "Catalog", "id": "root", "links": links(("item", "gone.json"))}
    with pytest.raises(FetchError, match="404"):
        list(find_items("http://h/", QUERY, Pages({"http://h/": root})))


class Circle(Pages):
    """An API whose next page is always the same."""

    def get(self, href):
        if "/search" in href:
            page = {"type": "FeatureCollection", "features": [item("a")], "links": links(("next", "http://h/search?x"))}
            return json.dumps(page).encode()
        return super().get(href)


def test_notices_pages_in_circles():
    root = {
        "type": "Catalog",
        "id": "root",
        "description": "",
        "stac_version": "1.0.0",
        "conformsTo": ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"],
        "links": links(("self", "http://h/"), ("root", "http://h/"), ("search", "http://h/search")),
    }
    with pytest.raises(FetchError, match="again and again"):
        list(find_items("http://h/", QUERY, Circle({"http://h/": root, "http://h": root})))


def token_signer(tokens, *, minutes=60):
    def get(url):
        assert url == "https://pc/token/rtc"
        expiry = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
        return json.dumps({"token": f"sig={next(tokens)}", "msft:expiry": expiry}).encode()

    return TokenSigner("https://pc/token/rtc", get, home="pc")


BLOB = "https://account.blob.core.windows.net/container/"


def test_one_token_serves_all_files_until_one_is_refused():
    sign = token_signer(iter(("first", "second", "third")))
    assert sign(BLOB + "a.tif").url == BLOB + "a.tif?sig=first"
    assert sign(BLOB + "b.tif?v=1").url == BLOB + "b.tif?v=1&sig=first"
    assert sign(BLOB + "a.tif").url == BLOB + "a.tif?sig=second"  # asked again: the first was refused
    assert sign(BLOB + "b.tif").url == BLOB + "b.tif?sig=second"


def test_a_token_about_to_end_is_renewed():
    sign = token_signer(iter(("first", "second")), minutes=1)
    assert sign(BLOB + "a.tif").url.endswith("first")
    assert sign(BLOB + "b.tif").url.endswith("second")


def test_other_hosts_never_see_a_token():
    sign = token_signer(iter(()))
    assert sign("https://elsewhere.example/a.tif").url == "https://elsewhere.example/a.tif"


def test_an_answer_without_a_token_is_not_quoted():
    signer = TokenSigner("https://pc/token/rtc", lambda url: b'{"secret": "abc"}', home="pc")
    with pytest.raises(FetchError) as error:
        signer(BLOB + "a.tif")
    assert "abc" not in str(error.value)
    assert error.value.__cause__ is None


def test_reads_rasters_of_a_bucket_with_the_archive_s_row(tmp_path, monkeypatch):
    """The row of the Copernicus Data Space against an S3 server of this machine."""
    moto = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    path = tmp_path / "B02.tif"
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=8, width=8, dtype="uint16",
        crs="EPSG:32631", transform=Affine(10, 0, 0, 0, -10, 0),
    ) as target:  # fmt: skip
        target.write(pixels, 1)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXEXAMPLE")
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket="eodata")
        client.upload_file(str(path), "eodata", "Sentinel-2/B02.tif")
        archive = ARCHIVES["copernicus"]
        layer = opener_for(archive, archive.collections[0])("s3://eodata/Sentinel-2/B02.tif", 1)
        np.testing.assert_array_equal(layer.read(slice(2, 5), slice(0, 8))[0], pixels[2:5])
        assert layer.origin == "s3://eodata/Sentinel-2/B02.tif"
        monkeypatch.setattr(archive_access, "PATIENCE", archive_access.TransportOptions(tries=1, pause_seconds=0.01))
        with pytest.raises(FetchError) as error:
            opener_for(archive, archive.collections[0])("s3://eodata/Sentinel-2/none.tif", 1)
        assert "AKIA" not in str(error.value)
        assert "Signature" not in str(error.value)
    finally:
        server.stop()
