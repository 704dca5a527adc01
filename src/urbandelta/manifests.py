"""Manifests of updates: what a result was made from, so that anybody can make it again and hold both side by side.

A manifest names the resolved configuration, the versions of what computed, the snapshots of cube and scores, the
SHA-256 of the weights, and a digest of every output. `replay` predicts from the named snapshot in one run, makes the
products into a scratch folder, and compares digests; it trusts nothing that the update left behind but the cube.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from urbandelta.errors import MonitorError, StoreError
from urbandelta.types import Progress

if TYPE_CHECKING:
    import xarray as xr

    from urbandelta.monitor import Monitor

__all__ = [
    "Manifest",
    "ReplayReport",
    "latest_manifest",
    "output_digest",
    "read_manifest",
    "replay",
    "scores_digest",
    "write_manifest",
]

VERSION = 1
RUNS_FOLDER = "runs"
PRODUCTS_FOLDER = "products"
_LARGEST_BYTES = 64 * 2**20
_COMPUTING = ("numpy", "scipy", "numba", "openvino", "torch", "xarray", "zarr", "icechunk", "rasterio", "shapely")
"""Libraries whose versions can move a last bit or a file's bytes."""
_SLAB_BYTES = 64 * 2**20

Verdict: TypeAlias = Literal["equal", "different", "missing", "not compared"]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One update, as plain values. `outputs` are digests by path relative to the products."""

    time: str
    base: str
    """Folder of the monitor file, which relative paths of `config` start from."""
    config: Mapping[str, Any]
    until: str | None
    versions: Mapping[str, str]
    seeds: Mapping[str, int]
    """Nothing that an update does is drawn at random; kept for those that will."""
    weights: Mapping[str, str]
    cube: Mapping[str, str]
    scores: Mapping[str, Any]
    """Address, snapshot, digest of all values, counts, and the parameters of the prediction as resolved."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION

    def to_json(self) -> str:
        """As text; the same manifest gives the same text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    """What a replay found: a verdict for the scores and for each output."""

    manifest: Path
    folder: Path
    scores: Verdict
    outputs: Mapping[str, Verdict]
    notes: tuple[str, ...] = ()
    """Differences of the surroundings that may explain differences of bits."""

    @property
    def equal(self) -> bool:
        """Whether the scores and everything that was compared came out the same."""
        return self.scores == "equal" and not {"different", "missing"} & set(self.outputs.values())


def write_manifest(
    monitor: Monitor,
    *,
    moment: datetime,
    until: str | None,
    scores_url: str,
    cube_url: str,
    cube_snapshot: str,
    outputs: Iterable[Path],
    folder: Path | None = None,
) -> Path:
    """Write the manifest of an update to `runs/<UTC time>-<short hash>.json` in the monitor's folder.

    Parameters
    ----------
    monitor : Monitor
    moment : datetime
        When the update took place.
    until : str, optional
        Its `--until`.
    scores_url : str
        Scores that it ended with.
    cube_url, cube_snapshot : str
        Cube that they come from.
    outputs : iterable of path
        Files of the products.
    folder : path, optional
        The monitor's folder, if another.

    Raises
    ------
    StoreError
        If the scores cannot be read.
    MonitorError
        If it cannot be written.
    """
    from urbandelta.scores import open_scores

    root = monitor.folder if folder is None else folder
    scores = open_scores(scores_url)
    moment = moment.astimezone(UTC)
    manifest = Manifest(
        time=moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        base=str(monitor.base),
        config=monitor.model_dump(mode="json"),
        until=until,
        versions=versions(),
        seeds={},
        weights={"name": str(scores.attrs["weights_name"]), "sha256": str(scores.attrs["weights_sha256"])},
        cube={"url": cube_url, "snapshot": cube_snapshot},
        scores={
            "url": scores_url,
            "snapshot": str(scores.attrs["snapshot"]),
            "sha256": scores_digest(scores),
            "windows": scores.sizes["window"],
            "provisional": int(scores["provisional"].values.sum()) if "provisional" in scores.variables else 0,
            "parameters": scores.attrs["parameters"],
        },
        outputs={
            path.relative_to(root / PRODUCTS_FOLDER).as_posix(): output_digest(path) for path in sorted(set(outputs))
        },
    )
    text = manifest.to_json()
    short = hashlib.sha256(text.encode()).hexdigest()[:8]
    path = root / RUNS_FOLDER / f"{moment:%Y%m%dT%H%M%SZ}-{short}.json"
    beside = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise MonitorError(f"{path}: cannot be written ({error.strerror or error}); check folder and disk") from error
    finally:
        beside.unlink(missing_ok=True)
    return path


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises
    ------
    MonitorError
        If it is missing, damaged, or of another version.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise MonitorError(f"{path}: {error.strerror or error}; manifests lie in runs/ of a monitor's store") from error
    try:
        values = json.loads(text)
        if len(text) > _LARGEST_BYTES or not isinstance(values, dict):
            raise ValueError("is not an object of JSON")
        if values.get("version") != VERSION:
            raise ValueError(f"has version {values.get('version')!r}, this urbandelta reads {VERSION}")
        manifest = Manifest(**values)
        wanted = (
            (manifest.config, dict),
            (manifest.weights["sha256"], str),
            (manifest.cube["snapshot"], str),
            (manifest.cube["url"], str),
            (manifest.scores["sha256"], str),
            (manifest.scores["parameters"], dict),
            (manifest.outputs, dict),
            (manifest.base, str),
        )
        if not all(isinstance(value, kind) for value, kind in wanted):
            raise ValueError("has a field of the wrong type")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MonitorError(f"{path}: is no manifest of an update ({' '.join(str(error).split())})") from None
    return manifest


def latest_manifest(folder: Path) -> Manifest | None:
    """The manifest of the last update of the monitor whose folder this is; None if there was none.

    Raises
    ------
    MonitorError
        As `read_manifest`.
    """
    # Their names begin with the time in UTC.
    path = max((folder / RUNS_FOLDER).glob("*.json"), default=None)
    return None if path is None else read_manifest(path)


def replay(path: str | Path, scratch: str | Path, *, progress: Progress | None = None) -> ReplayReport:
    """Make the result of a manifest again, in one run, and compare it by digest.

    Parameters
    ----------
    path : path
        The manifest.
    scratch : path
        Folder for the scores and products of the replay; must be absent or empty, and stays.
    progress : callable, optional

    Raises
    ------
    MonitorError
        If the manifest is damaged, or the scratch folder holds something.
    StoreError
        If the cube, or its snapshot, is no longer there.
    WeightsError, MonitorError
        If the weights are gone, or others lie at their place.
    """
    from urbandelta.infer import predict
    from urbandelta.monitor import parse_monitor
    from urbandelta.monitor_products import make_products
    from urbandelta.scores import open_scores
    from urbandelta.store import open_cube
    from urbandelta.weights import find_weights

    path, scratch = Path(path), Path(scratch)
    manifest = read_manifest(path)
    if scratch.exists() and (not scratch.is_dir() or any(scratch.iterdir())):
        raise MonitorError(f"{scratch}: is not empty; give a replay a folder of its own")
    monitor = parse_monitor(manifest.config, where=Path(manifest.base) / "monitor.yaml")
    weights = find_weights(monitor.weights_path)
    if weights.sha256 != manifest.weights["sha256"]:
        raise MonitorError(
            f"{monitor.weights_path}: has SHA-256 {weights.sha256[:12]}, the manifest names "
            f"{manifest.weights['sha256'][:12]}; put those weights back"
        )
    try:
        cube = open_cube(str(manifest.cube["url"]), snapshot=str(manifest.cube["snapshot"]))
    except StoreError as error:
        raise StoreError(f"{error}; a replay needs the cube as it was") from error
    asked: Mapping[str, Any] = manifest.scores["parameters"]
    predict(
        cube,
        weights,
        start=asked["start"],
        end=asked["end"],
        stride=asked["stride"],
        tile=asked["tile"],
        halo=asked["halo"],
        engine=asked["engine"],
        precision=asked["precision"],
        mask_rule=asked["mask_rule"],
        substitutions=asked["substitutions"],
        accepted=asked["accepted"],
        out=str(scratch / "scores"),
        progress=progress,
    )
    found = scores_digest(open_scores(str(scratch / "scores")))
    products = scratch / PRODUCTS_FOLDER
    make_products(monitor, products, scores_url=str(scratch / "scores"), cube=cube)
    return ReplayReport(
        manifest=path,
        folder=scratch,
        scores="equal" if found == manifest.scores["sha256"] else "different",
        outputs={name: _verdict(products, name, digest) for name, digest in sorted(manifest.outputs.items())},
        notes=tuple(
            f"{name} is {now or 'not installed'}, it was {then}"
            for name, then in sorted(manifest.versions.items())
            if (now := versions().get(name, "")) != then
        ),
    )


def versions() -> dict[str, str]:
    """Versions of what computes: urbandelta, Python, libraries, processor."""
    from urbandelta import __version__

    found = {"urbandelta": __version__, "python": platform.python_version(), "machine": platform.machine()}
    for name in _COMPUTING:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def scores_digest(scores: xr.Dataset) -> str:
    """SHA-256 over windows and values of a score store, whatever its chunks and attributes."""
    digest = hashlib.sha256(str(scores.attrs.get("grid", "")).encode())
    for name in ("window_start", "window_end"):
        digest.update(scores[name].values.astype("datetime64[ns]").tobytes())
    digest.update(scores["n_obs"].values.astype(np.int32).tobytes())
    if "provisional" in scores.variables:
        digest.update(scores["provisional"].values.astype(np.bool_).tobytes())
    for name in ("score", "spread"):
        if name not in scores.variables:
            continue
        values = scores[name].transpose("window", "y", "x")
        each = 4 * values.sizes["y"] * values.sizes["x"]
        count = max(1, _SLAB_BYTES // each)
        for first in range(0, values.sizes["window"], count):
            part = np.array(values[first : first + count].values, np.float32)
            # One NaN of many bit patterns.
            part[np.isnan(part)] = np.nan
            digest.update(part.tobytes())
    return digest.hexdigest()


def output_digest(path: Path) -> str:
    """Digest of what a file says: of rasters their pixels, place and nodata; of others their bytes.

    The tags of a raster name the run that last changed it, which an older file may keep.
    """
    if path.suffix != ".tif":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    import rasterio

    with rasterio.open(path) as source:
        pixels = source.read()
        place = [source.crs.to_wkt(), list(source.transform)[:6], str(source.nodata), pixels.dtype.str, pixels.shape]
    return hashlib.sha256(json.dumps(place).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


_COMPARED = (".tif", ".gpkg", ".parquet", ".geojson", ".csv")
"""Catalogue and page name places and moments of the run itself, so their bytes say nothing about the result."""


def _verdict(folder: Path, name: str, digest: str) -> Verdict:
    path = folder / name
    if path.suffix not in _COMPARED:
        return "not compared"
    if not path.is_file():
        return "missing"
    return "equal" if output_digest(path) == digest else "different"
