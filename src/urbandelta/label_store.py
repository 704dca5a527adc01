"""Labels per window in their cube's own repository, on the branch `labels.NAME`.

The branch shares nothing with `main`: labelling leaves the cube's snapshot, and so the identity of predictions, as it
is, and labels stay readable whatever is appended later. Blocks are committed in the order of their plan, so a count
says which are done; a block's labels and that count are one commit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.codecs import BloscCodec

from urbandelta.cube_format import nanoseconds, write_grid
from urbandelta.errors import LabelError, ShapeError
from urbandelta.grid import Grid
from urbandelta.repository import Repository, icechunk_errors, zarr_group
from urbandelta.store import Cube, open_cube
from urbandelta.stream_index import array_of
from urbandelta.types import FloatArray, TimeArray, Window

BRANCH = "labels."
_KIND = "labels"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_WINDOWS_A_CHUNK = 16
_EPOCH = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of one name, read at one snapshot; made by `open_labels`. Reading is safe from several threads.

    `windows` count their `first` and `last` in `steps`; those of triplets know the windows before and after.
    `betas` (window, 2) are ENDISI's of the windows before and after, NaN for labels from dates. `attributes` hold how
    the labels were made.
    """

    name: str
    windows: tuple[Window, ...]
    steps: TimeArray
    attributes: Mapping[str, Any]
    snapshot: str
    betas: npt.NDArray[np.float64]
    grid: Grid
    _repository: Repository
    _array: zarr.Array[Any]

    @property
    def complete(self) -> bool:
        """Whether all blocks are labelled."""
        return bool(self.attributes.get("complete"))

    def read(self, window: int | slice, y: slice, x: slice) -> FloatArray:
        """Labels (window, y, x) float32, 0..1; NaN where a pixel does not count. One window gives an axis of 1."""
        if not isinstance(window, slice):
            number = int(window) % len(self.windows) if -len(self.windows) <= window < len(self.windows) else None
            if number is None:
                raise LabelError(f"labels {self.name}: no window {window}; there are {len(self.windows)}")
            window = slice(number, number + 1)
        with icechunk_errors(self._repository.url):
            return np.asarray(self._array[window, y, x], dtype=np.float32)


def open_labels(cube: Cube | str, name: str = "synthetic") -> Labels:
    """Open the newest labels of a name.

    Parameters
    ----------
    cube : Cube or URL
    name : str

    Raises
    ------
    LabelError
        If the cube has no labels of this name.
    StoreError
        If there is no cube.
    """
    opened = cube if isinstance(cube, Cube) else open_cube(cube)
    repository = _branch(opened.repository, name)
    if repository is None:
        others = ", ".join(label_names(opened))
        raise LabelError(
            f"{opened.url}: has no labels named {name}"
            + (f" (there are: {others})" if others else "")
            + "; make them with `urbandelta label`"
        )
    snapshot = repository.tip()
    group = zarr_group(repository, snapshot)
    with icechunk_errors(opened.url):
        steps = np.asarray(array_of(group, "step")[:]).astype("datetime64[ns]")
        spans = np.asarray(array_of(group, "span")[:])
        betas = np.asarray(array_of(group, "beta")[:], np.float64)
    return Labels(
        name=name,
        windows=_windows(steps, spans),
        steps=steps,
        attributes=dict(group.attrs),
        snapshot=snapshot,
        betas=betas,
        grid=opened.grid,
        _repository=repository,
        _array=array_of(group, "label"),
    )


@dataclass(frozen=True)
class LabelSummary:
    """What labels hold: windows, pixels that count and their share, their mean, and the share of them above 0.5."""

    windows: int
    pixels: int
    counted: float
    mean: float
    above: float


def summarise(labels: Labels) -> LabelSummary:
    """Count labels, a few windows at a time; mean and shares are NaN where no pixel counts."""
    pixels = above = 0
    total = 0.0
    for first in range(0, len(labels.windows), _WINDOWS_A_CHUNK):
        part = labels.read(slice(first, first + _WINDOWS_A_CHUNK), slice(None), slice(None))
        known = part[~np.isnan(part)]
        pixels += known.size
        total += float(known.sum(dtype=np.float64))
        above += int((known > 0.5).sum())
    size = len(labels.windows) * labels.grid.height * labels.grid.width
    return LabelSummary(
        windows=len(labels.windows),
        pixels=pixels,
        counted=pixels / size,
        mean=total / pixels if pixels else float("nan"),
        above=above / pixels if pixels else float("nan"),
    )


def label_names(cube: Cube) -> tuple[str, ...]:
    """Names of the labels that a cube has."""
    names = (branch.removeprefix(BRANCH) for branch in cube.repository.branches() if branch.startswith(BRANCH))
    return tuple(sorted(name for name in names if _branch(cube.repository, name) is not None))


class LabelWriter:
    """Fills the labels of one name; made by `start_labels`. One coordinator commits, blocks in their order."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._see(zarr_group(repository, repository.tip()))

    def _see(self, group: zarr.Group) -> None:
        self.sums_done = int(cast(int, group.attrs["sums_done"]))
        """Blocks whose part of the betas is stored."""
        self.blocks_done = int(cast(int, group.attrs["blocks_done"]))
        self.complete = bool(group.attrs["complete"])

    def add_sums(self, block: int, sums: npt.NDArray[np.float64]) -> None:
        """Store a block's part of the betas, (window, 2, 4)."""
        self._commit(f"betas of block {block}", "sums_done", block, lambda root: _put(root, "beta_sums", block, sums))

    def sums(self) -> npt.NDArray[np.float64]:
        """All that `add_sums` stored: (block, window, 2, 4)."""
        group = zarr_group(self._repository, self._repository.tip())
        return np.asarray(array_of(group, "beta_sums")[:], np.float64)

    def add(self, block: int, y: slice, x: slice, labels: FloatArray) -> None:
        """Store a block's labels (window, y, x)."""

        def write(root: zarr.Group) -> None:
            array = array_of(root, "label")
            expected = (array.shape[0], y.stop - y.start, x.stop - x.start)
            if labels.shape != expected:
                raise ShapeError(f"labels of shape {labels.shape} do not fit (window, y, x) = {expected}")
            array[:, y, x] = labels

        self._commit(f"labels of block {block}", "blocks_done", block, write)

    def finish(self, betas: npt.NDArray[np.float64]) -> None:
        """Store the betas (window, 2) and mark the labels complete."""

        def write(root: zarr.Group) -> None:
            array_of(root, "beta")[...] = betas
            root.attrs["complete"] = True

        self._commit("complete", None, 0, write)
        self._repository.collect()

    def _commit(self, message: str, counter: str | None, block: int, change: Any) -> None:
        def write(store: Store, _snapshot: str) -> Mapping[str, Any]:
            root = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
            if counter is not None:
                if root.attrs[counter] != block:
                    raise LabelError(
                        f"{self._repository.url}: another process labels it as well; let one run at a time, "
                        "then run the same command again"
                    )
                root.attrs[counter] = block + 1
            change(root)
            self._see(root)
            return {}

        self._repository.commit(message, write)


def start_labels(
    cube: Cube,
    name: str,
    *,
    steps: TimeArray,
    windows: Sequence[Window],
    blocks: int,
    block_px: int,
    attributes: Mapping[str, Any],
    overwrite: bool = False,
) -> LabelWriter:
    """Make the branch of a set of labels, or go on with it.

    Parameters
    ----------
    cube : Cube
    name : str
        Lower-case letters, digits, `-` and `_`.
    steps, windows
        As from `cube_steps` and `find_windows`.
    blocks, block_px : int
        Number of blocks, and their size, which is that of a chunk.
    attributes : mapping
        Provenance; `attributes["identity"]` is a mapping that a resumed run must match.
    overwrite : bool
        Begin anew if there are labels of another run.

    Raises
    ------
    LabelError
        If labels of another run have this name and `overwrite` is false.
    """
    check_name(name)
    there = _branch(cube.repository, name)
    if there is not None:
        stored = cast("Mapping[str, Any]", zarr_group(there, there.tip()).attrs.get("identity", {}))
        expected = attributes["identity"]
        differs = [key for key in sorted({*stored, *expected}) if stored.get(key) != expected.get(key)]
        if not differs:
            return LabelWriter(there)
        if not overwrite:
            key = differs[0]
            raise LabelError(
                f"{cube.url}: labels {name} are of another run, whose {key} is {stored.get(key)!r}, not "
                f"{expected.get(key)!r}; give another --name or ask to --overwrite them"
            )
    root = {**attributes, "Conventions": "CF-1.11", "sums_done": 0, "blocks_done": 0, "complete": False}

    def fill(store: Store) -> None:
        group = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
        _create_arrays(group, cube.grid, steps, windows, blocks=blocks, block_px=block_px)

    return LabelWriter(cube.repository.start_branch(BRANCH + name, root, kind=_KIND, fill=fill))


def check_name(name: str) -> None:
    """Raise `LabelError` for what cannot name labels."""
    if not _NAME.fullmatch(name):
        raise LabelError(f"{name!r} cannot name labels; use lower-case letters, digits, - and _")


def _branch(repository: Repository, name: str) -> Repository | None:
    branch = BRANCH + name
    return repository.on_branch(branch) if repository.has_branch(branch) else None


def _create_arrays(
    group: zarr.Group, grid: Grid, steps: TimeArray, windows: Sequence[Window], *, blocks: int, block_px: int
) -> None:
    group.create_array(
        "label",
        shape=(len(windows), *grid.shape),
        dtype="float32",
        chunks=(min(_WINDOWS_A_CHUNK, len(windows)), min(block_px, grid.height), min(block_px, grid.width)),
        fill_value=np.nan,
        compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")],
        dimension_names=("window", "y", "x"),
        attributes={
            "long_name": "label of urban change",
            "units": "1",
            "valid_range": [0.0, 1.0],
            "grid_mapping": "spatial_ref",
        },
    )
    group.create_array(
        "beta_sums",
        shape=(blocks, len(windows), 2, 4),
        dtype="float64",
        chunks=(1, len(windows), 2, 4),
        dimension_names=("block", "window", "side", "sum"),
    )
    _write(group, "step", nanoseconds(steps), ("step",), _EPOCH)
    middle = nanoseconds([window.middle for window in windows])
    _write(group, "time", middle, ("window",), {**_EPOCH, "standard_name": "time", "axis": "T"})
    spans = np.array([[_span(part) for part in (w.previous, w, w.following)] for w in windows], np.int32)
    _write(
        group, "span", spans, ("window", "part", "edge"),
        {"long_name": "first and last step of the window before, the window and the one after; -1 where none"},
    )  # fmt: skip
    _write(group, "beta", np.full((len(windows), 2), np.nan), ("window", "side"), {"long_name": "ENDISI's beta"})
    write_grid(group, grid)


def _span(window: Window | None) -> tuple[int, int]:
    return (-1, -1) if window is None else (window.first, window.last)


def _write(
    group: zarr.Group, name: str, values: Any, dimensions: tuple[str, ...], attributes: Mapping[str, Any]
) -> None:
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=tuple(max(size, 1) for size in values.shape),
        dimension_names=dimensions,
        attributes=dict(attributes),
    )
    array[...] = values


def _put(root: zarr.Group, name: str, at: int, values: npt.NDArray[np.float64]) -> None:
    array_of(root, name)[at] = values


def _windows(steps: TimeArray, spans: npt.NDArray[np.int32]) -> tuple[Window, ...]:
    def window(first: int, last: int, **beside: Window | None) -> Window:
        return Window(steps[first], steps[last], last - first + 1, first, last, **beside)

    def beside(first: int, last: int) -> Window | None:
        return None if first < 0 else window(first, last)

    return tuple(window(*span[1], previous=beside(*span[0]), following=beside(*span[2])) for span in spans.tolist())
