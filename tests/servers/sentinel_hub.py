"""A stand-in for Sentinel Hub: tokens, catalogue and process API, strict about what it is asked, failing on purpose.

Requests are checked against the service's documented schema and the published choices; anything else is answered 400
and kept in `problems`. Images are cut from known arrays.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import shapely
from affine import Affine
from rasterio.io import MemoryFile

CLIENT_ID, CLIENT_SECRET = "client-5e1f", "secret-cafe-0451"
TOKEN_PATH = "/auth/realms/main/protocol/openid-connect/token"
OPTICAL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
Fault = Callable[[str, int], str]
"""What goes wrong with a request, by path and how often it was asked: "", 429, 500, 401, cut, shape, text, hang."""


@dataclass
class Granule:
    """One item of the catalogue; `image` are its bands (name to y, x) on the deployment's grid."""

    id: str
    time: str
    platform: str
    image: dict[str, np.ndarray]
    orbit_state: str = ""
    cloud: float | None = None

    @property
    def collection(self) -> str:
        return "sentinel-1-grd" if self.platform.startswith("sentinel-1") else "sentinel-2-l1c"


@dataclass
class Deployment:
    """What the stand-in has, and what it was asked."""

    bounds: tuple[float, float, float, float]
    epsg: int
    pixel: float
    footprint: tuple[float, float, float, float]
    granules: list[Granule] = field(default_factory=list)
    fault: Fault = lambda path, count: ""
    has_clm: bool = True
    token_seconds: int = 3600
    page: int = 2
    tokens: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        self._known(body, {"collections", "datetime", "bbox", "limit", "filter", "filter-lang", "next"})
        low, high = (_moment(text) for text in body["datetime"].split("/"))
        found = [
            granule
            for granule in sorted(self.granules, key=lambda granule: granule.time, reverse=True)
            if granule.collection in body["collections"]
            and low <= _moment(granule.time) <= high
            and shapely.box(*self.footprint).intersects(shapely.box(*body["bbox"]))
        ]
        text = body.get("filter", "")
        if body["collections"] == ["sentinel-1-grd"]:
            for clause in ("sar:instrument_mode='IW'", "s1:polarization='DV'", "s1:resolution='HIGH'"):
                self._check(clause in text, f"filter lacks {clause}: {text}")
            orbit = re.search(r"sat:orbit_state='(ascending|descending)'", text)
            self._check(orbit is not None and body["filter-lang"] == "cql2-text", f"filter without orbit: {text}")
            found = [granule for granule in found if granule.orbit_state == orbit[1]]
        first = int(body.get("next", 0))
        page = found[first : first + self.page]
        more = first + self.page < len(found)
        return {
            "type": "FeatureCollection",
            "features": [self._feature(granule) for granule in page],
            "context": {"limit": body["limit"], "returned": len(page), **({"next": first + self.page} if more else {})},
        }

    def process(self, body: dict[str, Any]) -> bytes:
        self._known(body, {"input", "evalscript", "output"})
        bounds, (data,) = body["input"]["bounds"], body["input"]["data"]
        crs = bounds["properties"]["crs"]
        self._check(crs == f"http://www.opengis.net/def/crs/EPSG/0/{self.epsg}", f"crs {crs}")
        width, height = body["output"]["width"], body["output"]["height"]
        west, south, east, north = bounds["bbox"]
        self._check(max(width, height) <= 2500, f"{width} x {height} is larger than 2500")
        sizes = ((east - west) / width, (north - south) / height)
        self._check(np.allclose(sizes, self.pixel), f"resolution {sizes}")
        (response,) = body["output"]["responses"]
        self._check(response == {"identifier": "default", "format": {"type": "image/tiff"}}, f"response {response}")
        names, units, sample = self._script(body["evalscript"])
        radar = data["type"] == "sentinel-1-grd"
        filters = dict(data["dataFilter"])
        low, high = (_moment(filters["timeRange"][end]) for end in ("from", "to"))
        del filters["timeRange"]
        if radar:
            orbit = filters.pop("orbitDirection")
            self._check(
                filters == {"acquisitionMode": "IW", "polarization": "DV", "resolution": "HIGH"}, f"filter {filters}"
            )
            processing = {"backCoeff": "GAMMA0_ELLIPSOID", "orthorectify": True, "demInstance": "COPERNICUS"}
            self._check(names == ["VV", "VH", "dataMask"] and sample == "FLOAT32", f"bands {names} {sample}")
            self._check(units == ["LINEAR_POWER", "LINEAR_POWER", "DN"], f"units {units}")
        else:
            orbit = ""
            self._check(data["type"] == "sentinel-2-l1c" and not filters, f"data {data['type']} {filters}")
            processing = {"harmonizeValues": True, "upsampling": "NEAREST", "downsampling": "NEAREST"}
            allowed = [[*OPTICAL, "dataMask"], *([[*OPTICAL, "dataMask", "CLM"]] if self.has_clm else [])]
            self._check(names in allowed and sample == "UINT16", f"bands {names} {sample}")
            self._check(set(units) == {"DN"}, f"units {units}")
        self._check(data["processing"] == processing, f"processing {data['processing']}")
        chosen = [
            granule
            for granule in self.granules
            if granule.collection == data["type"]
            and granule.orbit_state == orbit.lower()
            and low <= _moment(granule.time) <= high
        ]
        self._check(bool(chosen), f"no granule in {low} to {high}")
        top, left = round((self.bounds[3] - north) / self.pixel), round((west - self.bounds[0]) / self.pixel)
        window = np.s_[top : top + height, left : left + width]
        image = np.zeros((len(names), height, width), np.float32 if radar else np.uint16)
        for granule in sorted(chosen, key=lambda granule: granule.time):
            seen = granule.image["dataMask"][window] == 1
            for number, name in enumerate(names):
                image[number][seen] = granule.image[name][window][seen]
        return _tiff(image, (west, south, east, north), self.epsg)

    def _script(self, text: str) -> tuple[list[str], list[str], str]:
        self._check(text.startswith("//VERSION=3\n"), "evalscript without version")
        inputs = re.search(r"input: \[\{bands: (\[.*?\]), units: (\[.*?\])\}\]", text)
        output = re.search(r'output: \{id: "default", bands: (\d+), sampleType: "(\w+)"\}', text)
        returned = re.search(r"return \[(.*?)\];", text)
        self._check(None not in (inputs, output, returned), f"evalscript {text}")
        names, units = json.loads(inputs[1]), json.loads(inputs[2])
        self._check(returned[1].split(", ") == [f"sample.{name}" for name in names], f"returns {returned[1]}")
        self._check(int(output[1]) == len(names) == len(units), f"{output[1]} bands of {names} in {units}")
        return names, units, output[2]

    def _feature(self, granule: Granule) -> dict[str, Any]:
        properties: dict[str, Any] = {"datetime": granule.time, "platform": granule.platform}
        if granule.orbit_state:
            properties["sat:orbit_state"] = granule.orbit_state
        if granule.cloud is not None:
            properties["eo:cloud_cover"] = granule.cloud
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": granule.id,
            "collection": granule.collection,
            "geometry": shapely.geometry.mapping(shapely.box(*self.footprint)),
            "properties": properties,
            "assets": {},
            "links": [],
        }

    def _known(self, body: dict[str, Any], keys: set[str]) -> None:
        self._check(set(body) <= keys, f"unknown keys {set(body) - keys}")

    def _check(self, good: bool, problem: str) -> None:
        if not good:
            raise RefusedError(problem)


class RefusedError(Exception):
    """A request that the service would not understand."""


class _Handler(BaseHTTPRequestHandler):
    deployment: Deployment
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        here = self.deployment
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with here.lock:
            count = here.asked[self.path] = here.asked.get(self.path, 0) + 1
        fault = here.fault(self.path, count)
        if fault in ("429", "500", "503"):
            return self._answer(int(fault), b"{}", {"Retry-After": "7"} if fault == "429" else {})
        if fault == "hang":
            time.sleep(1.0)
            return None
        if self.path == TOKEN_PATH:
            return self._token(parse_qs(body.decode()))
        with here.lock:
            known = bool(here.tokens) and self.headers.get("Authorization") == f"Bearer {here.tokens[-1]}"
        if not known or fault == "401":
            if fault == "401":
                with here.lock:
                    here.tokens.append(f"revoked-{len(here.tokens)}")
            return self._answer(401, b'{"error": {"status": 401, "message": "You are not authorized!"}}')
        document = json.loads(body)
        with here.lock:
            here.bodies.append(document)
        try:
            if self.path == "/api/v1/catalog/1.0.0/search":
                return self._answer(200, json.dumps(here.search(document)).encode())
            if self.path == "/api/v1/process":
                if fault == "shape":
                    document["output"]["width"] -= 1
                    document["input"]["bounds"]["bbox"][2] -= here.pixel
                image = here.process(document)
                if fault == "text":
                    image = b"<html>maintenance</html>"
                return self._answer(200, image, cut=fault == "cut", mime="image/tiff")
            raise RefusedError(f"no such path {self.path}")
        except (RefusedError, KeyError, ValueError, TypeError) as problem:
            here.problems.append(f"{type(problem).__name__}: {problem}")
            error = {"error": {"status": 400, "reason": "Bad Request", "message": str(problem)}}
            return self._answer(400, json.dumps(error).encode())

    def _token(self, form: dict[str, list[str]]) -> None:
        wanted = {
            "grant_type": ["client_credentials"],
            "client_id": [CLIENT_ID],
            "client_secret": [CLIENT_SECRET],
        }
        if form != wanted:
            return self._answer(401, json.dumps({"error": "invalid_client", "sent": form}).encode())
        here = self.deployment
        with here.lock:
            here.tokens.append(f"token-deadbeef-{len(here.tokens)}")
            token = here.tokens[-1]
        return self._answer(
            200, json.dumps({"access_token": token, "expires_in": here.token_seconds, "token_type": "Bearer"}).encode()
        )

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        cut: bool = False,
        mime: str = "application/json",
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": mime, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _tiff(image: np.ndarray, bounds: tuple[float, ...], epsg: int) -> bytes:
    count, height, width = image.shape
    profile = {
        "driver": "GTiff",
        "count": count,
        "height": height,
        "width": width,
        "dtype": image.dtype,
        "crs": f"EPSG:{epsg}",
        "transform": Affine(
            (bounds[2] - bounds[0]) / width, 0, bounds[0], 0, (bounds[1] - bounds[3]) / height, bounds[3]
        ),
        "compress": "deflate",
    }
    with MemoryFile() as file:
        with file.open(**profile) as target:
            target.write(image)
        return bytes(file.read())


@contextmanager
def serving(deployment: Deployment) -> Iterator[Deployment]:
    """Serve a deployment on the loopback; its `url` is set meanwhile."""
    handler = type("Handler", (_Handler,), {"deployment": deployment})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    deployment.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield deployment
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
