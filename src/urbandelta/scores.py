"""Score stores: the network's answer per window and pixel, filled block by block and resumable after a kill.

Neighbouring blocks overlap where they are blended; their weights sum to 1, so a block's contribution is added to what
is there. Addition and the mark that the block is done are one commit, hence no contribution counts twice or is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, cast

import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.codecs import BloscCodec

from urbandelta.cube_format import nanoseconds, write_grid
from urbandelta.errors import ShapeError, StoreError
from urbandelta.grid import Grid
from urbandelta.repository import Repository, create_repository, icechunk_errors, open_repository, zarr_group
from urbandelta.stream_index import array_of
from urbandelta.types import FloatArray, Window

log = logging.getLogger(__name__)

KIND = "scores"
SPREAD = "spread"
"""Variable of an ensemble's store."""
_EPOCH = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}


class ScoreWriter:
    """Fills a score store; made by `create_scores` and `resume_scores`. One coordinator commits.

    `first` is the window that the first one of each contribution is: a store that grows keeps those before.
    """

    def __init__(self, repository: Repository, *, first: int = 0) -> None:
        self._repository, self._first = repository, first
        self._done = _done(zarr_group(repository, repository.tip()))

    @property
    def url(self) -> str:
        """Where the scores are stored."""
        return self._repository.url

    @property
    def snapshot(self) -> str:
        """Id of the newest snapshot."""
        return self._repository.tip()

    @property
    def done(self) -> frozenset[int]:
        """Ids of the blocks that are committed."""
        return self._done

    def add(self, block_id: int, y: slice, x: slice, contribution: FloatArray, spread: FloatArray | None = None) -> str:
        """Add a block's contribution to the scores, mark the block done, and commit both at once.

        Parameters
        ----------
        block_id : int
            Not negative, and not done before.
        y, x : slice
            Pixels of the grid that the contribution covers.
        contribution : ndarray of float32, shape (window, y, x)
            NaN adds nothing; a pixel to which nothing was added stays NaN.
        spread : ndarray of float32, same shape, optional
            Likewise, for a store that was created with a spread.

        Returns
        -------
        str
            Id of the new snapshot.

        Raises
        ------
        ShapeError
            If the contribution does not fit the windows and the slices.
        StoreError
            If the block is done already; adding it again would count it twice.
        """

        def write(store: Store, _snapshot: str) -> Mapping[str, Any]:
            root = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
            done = _done(root)
            if block_id in done:
                raise StoreError(f"{self.url}: block {block_id} is finished already; it is not added twice")
            _add(array_of(root, "score"), y, x, contribution, first=self._first)
            if spread is not None:
                _add(array_of(root, SPREAD), y, x, spread, first=self._first)
            root.attrs["blocks_done"] = _to_ranges(done | {block_id})
            return {"block": block_id}

        if block_id < 0:
            raise StoreError(f"{self.url}: block ids are not negative, {block_id} is")
        snapshot = str(self._repository.commit(f"block {block_id}", write))
        self._done |= {block_id}
        return snapshot

    def finish(self) -> str:
        """Mark the scores complete and delete superseded chunks; returns the id of the final snapshot.

        Doing it again changes nothing. Readers that opened the store before must open it anew.
        """

        def write(store: Store, _snapshot: str) -> Mapping[str, Any] | None:
            root = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
            if root.attrs.get("complete"):
                return None
            root.attrs["complete"] = True
            return {}

        self._repository.commit("complete", write)
        self._repository.promote()
        # Each block rewrites the chunks that it shares with its neighbours: without this, 3-9 times the bytes.
        self._repository.forget_history()
        return self.snapshot


def create_scores(
    url: str,
    *,
    grid: Grid,
    windows: Sequence[Window],
    chunks: tuple[int, int, int],
    attributes: Mapping[str, Any],
    provisional: Sequence[bool] | None = None,
    spread: bool = False,
    overwrite: bool = False,
) -> ScoreWriter:
    """Create a score store without scores.

    Parameters
    ----------
    url : str
    grid : Grid
    windows : sequence of Window
        In the order of the store's `window` axis.
    chunks : (int, int, int)
        Windows, rows and columns of a chunk.
    attributes : mapping
        Provenance, as JSON values; `attributes["identity"]` is a mapping that a resumed run must match.
    provisional : sequence of bool, optional
        Which windows acquisitions to come may still change; none by default.
    spread : bool
        Give it a second variable, `spread`: how far the members of an ensemble differ.
    overwrite : bool
        Replace a store of urbandelta that is there already.

    Raises
    ------
    StoreError
        If something is stored there and `overwrite` is false, or it is not a store of urbandelta.
    """
    root = {**attributes, "Conventions": "CF-1.11", "grid": grid.to_json(), "blocks_done": [], "complete": False}

    def fill(store: Store) -> None:
        group = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
        _create_arrays(group, grid, windows, chunks, spread=spread)
        write_windows(group, windows, provisional)

    return ScoreWriter(create_repository(str(url), root, kind=KIND, overwrite=overwrite, fill=fill))


def resume_scores(url: str, expected_attributes: Mapping[str, Any]) -> ScoreWriter:
    """Open a score store to go on with the same run.

    Raises
    ------
    StoreError
        If there is none, or its `identity` differs from that of `expected_attributes`.
    """
    repository = open_repository(str(url), kind=KIND)
    stored = zarr_group(repository, repository.tip()).attrs.get("identity", {})
    _require_identity(str(url), cast("Mapping[str, Any]", stored), expected_attributes.get("identity", {}))
    return ScoreWriter(repository)


def create_or_resume_scores(
    url: str,
    *,
    grid: Grid,
    windows: Sequence[Window],
    chunks: tuple[int, int, int],
    attributes: Mapping[str, Any],
    provisional: Sequence[bool] | None = None,
    spread: bool = False,
    overwrite: bool = False,
) -> ScoreWriter:
    """The store of the same run to go on with, or a new one; parameters as in `create_scores`.

    Raises
    ------
    StoreError
        If another run's scores, or something else, is stored there and `overwrite` is false.
    """
    if not overwrite:
        try:
            return resume_scores(url, attributes)
        except StoreError:
            if store_exists(url):
                raise
    return create_scores(
        url,
        grid=grid,
        windows=windows,
        chunks=chunks,
        attributes=attributes,
        provisional=provisional,
        spread=spread,
        overwrite=overwrite,
    )


def store_exists(url: str) -> bool:
    """Whether anything lies at a URL that scores would have to replace."""
    try:
        open_repository(url, kind=KIND)
    except StoreError:
        path = FilePath(url)
        return "://" not in url and path.exists() and (not path.is_dir() or any(path.iterdir()))
    return True


def open_scores(url: str) -> xr.Dataset:
    """Open scores as a lazy dataset.

    Returns
    -------
    Dataset
        `score` (window, y, x) float32, NaN where nothing was computed; along `window`: `window_start`, `window_end`,
        `time` (the middle), `time_bounds`, `n_obs`, and `provisional`, whether acquisitions to come may change it; the
        provenance and `complete` in its attributes. Scores of an ensemble also have `spread` (window, y, x), the
        standard deviation of its members.

    Raises
    ------
    StoreError
        If there is no score store.
    """
    repository = open_repository(str(url), kind=KIND)
    snapshot = repository.tip()
    with icechunk_errors(str(url)):
        data: xr.Dataset = xr.open_zarr(repository.reader(snapshot), consolidated=False, chunks=None)
    data.attrs["snapshot"] = snapshot
    if not data.attrs.get("complete"):
        log.warning("%s: scores are incomplete; run the same prediction again to finish them", url)
    return data


def _create_arrays(
    group: zarr.Group, grid: Grid, windows: Sequence[Window], chunks: tuple[int, int, int], *, spread: bool
) -> None:
    shape = (len(windows), *grid.shape)

    def create(name: str, attributes: Mapping[str, Any]) -> None:
        group.create_array(
            name,
            shape=shape,
            dtype="float32",
            chunks=tuple(max(1, min(chunk, size)) for chunk, size in zip(chunks, shape, strict=True)),
            fill_value=np.nan,
            compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")],
            dimension_names=("window", "y", "x"),
            attributes={
                **attributes,
                "units": "1",
                "grid_mapping": "spatial_ref",
                "coordinates": "time window_start window_end n_obs provisional spatial_ref",
            },
        )

    create("score", {"long_name": "urban change score", "valid_range": [0.0, 1.0]})
    if spread:
        create(SPREAD, {"long_name": "standard deviation of the members' scores"})
    write_grid(group, grid)


def write_windows(group: zarr.Group, windows: Sequence[Window], provisional: Sequence[bool] | None = None) -> None:
    """Write the coordinates of the windows, in place of any that are there."""
    start, end = (nanoseconds([getattr(window, edge) for window in windows]) for edge in ("start", "end"))
    middle = nanoseconds([window.middle for window in windows])
    _write(group, "window_start", start, {**_EPOCH, "long_name": "first step of the window"})
    _write(group, "window_end", end, {**_EPOCH, "long_name": "last step of the window"})
    _write(group, "time", middle, {**_EPOCH, "standard_name": "time", "axis": "T", "bounds": "time_bounds"})
    # CF: bounds take units and calendar from the variable that they bound.
    _write(group, "time_bounds", np.stack([start, end], axis=-1), {})
    counts = np.array([window.count for window in windows], dtype=np.int32)
    _write(group, "n_obs", counts, {"units": "1", "long_name": "steps of the window"})
    flags = np.zeros(len(windows), np.bool_) if provisional is None else np.asarray(provisional, np.bool_)
    _write(group, "provisional", flags, {"long_name": "whether acquisitions to come may change the window"})


def _write(group: zarr.Group, name: str, values: Any, attributes: Mapping[str, Any]) -> None:
    array = group.create_array(
        name,
        overwrite=True,
        shape=values.shape,
        dtype=values.dtype,
        chunks=tuple(max(size, 1) for size in values.shape),
        dimension_names=("window", "bounds")[: values.ndim],
        attributes=dict(attributes),
    )
    array[...] = values


def _add(score: zarr.Array[Any], y: slice, x: slice, contribution: FloatArray, *, first: int = 0) -> None:
    windows, height, width = score.shape
    rows, columns = slice(*y.indices(height)), slice(*x.indices(width))
    expected = (windows - first, rows.stop - rows.start, columns.stop - columns.start)
    if contribution.shape != expected:
        raise ShapeError(f"contribution of shape {contribution.shape} does not fit (window, y, x) = {expected}")
    slab, chunk_rows, chunk_columns = score.chunks
    hull_y, hull_x = _aligned(rows, chunk_rows, height), _aligned(columns, chunk_columns, width)
    inner = (
        slice(None),
        slice(rows.start - hull_y.start, rows.stop - hull_y.start),
        slice(columns.start - hull_x.start, columns.stop - hull_x.start),
    )
    # Whole chunks, a few windows at a time: each touched chunk is read and written once, and memory stays small.
    for begin in range(first // slab * slab, windows, slab):
        part = slice(max(begin, first), min(begin + slab, windows))
        stored = np.array(score[part, hull_y, hull_x])
        stored[inner] = _sum(stored[inner], contribution[part.start - first : part.stop - first])
        score[part, hull_y, hull_x] = stored


def _sum(stored: FloatArray, added: FloatArray) -> FloatArray:
    """Sum in which NaN is "nothing yet": it counts as 0, and stays NaN only where both are."""
    total = np.nan_to_num(stored, nan=0.0) + np.nan_to_num(added, nan=0.0)
    total[np.isnan(stored) & np.isnan(added)] = np.nan
    return total.astype(np.float32, copy=False)


def _aligned(part: slice, chunk: int, size: int) -> slice:
    return slice(part.start // chunk * chunk, min(-(-part.stop // chunk) * chunk, size))


def _done(group: zarr.Group) -> frozenset[int]:
    ranges = cast("list[list[int]]", group.attrs.get("blocks_done", []))
    return frozenset(block for first, last in ranges for block in range(first, last + 1))


def _to_ranges(ids: frozenset[int]) -> list[list[int]]:
    """Ids as sorted [first, last] pairs: short, since blocks are committed in order."""
    ranges: list[list[int]] = []
    for block in sorted(ids):
        if ranges and ranges[-1][1] == block - 1:
            ranges[-1][1] = block
        else:
            ranges.append([block, block])
    return ranges


def _require_identity(url: str, stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for key in sorted({*stored, *expected}):
        if stored.get(key) != expected.get(key):
            raise StoreError(
                f"{url}: holds scores of another run, whose {key} is {stored.get(key)!r}, not {expected.get(key)!r}; "
                "give another output or ask to overwrite it"
            )
