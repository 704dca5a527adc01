"""Windows through an engine in time order: encode a frame once, advance every window that is open.

Windows overlap almost wholly, so a frame's encoding serves all windows that are open when it is shown, and nothing is
kept beyond the states of those windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from urbandelta.engines import Engine, engine_named
from urbandelta.engines.base import Session
from urbandelta.errors import ShapeError
from urbandelta.network import FoldedNetwork, NetworkConfig, Path, fold
from urbandelta.types import Array, BoolArray, FloatArray, Window
from urbandelta.weights import Weights

_SMALLEST_NORMAL = np.finfo(np.float32).tiny


def frame_mask(x: Array) -> BoolArray:
    """Which steps the published script processes.

    A step is processed if, at pixel (0, 0), not all bands are -1 (padding) and band 0 is not zero. Zero includes -0 and
    float32 subnormals, NaN counts as valid. So one zero in the ascending VV at a tile's corner drops the frame.

    Parameters
    ----------
    x : ndarray, shape (n, t, y, x, band)

    Returns
    -------
    ndarray of bool, shape (n, t)
    """
    if x.ndim != 5:
        raise ShapeError(f"x has shape {x.shape}, expected (n, t, y, x, band)")
    corner = x[:, :, 0, 0, :]
    return np.asarray(~(corner == -1).all(axis=-1) & ~(np.abs(corner[..., 0]) < _SMALLEST_NORMAL))


def open_windows(windows: Sequence[Window]) -> int:
    """The most windows that are open at one step, ascending in first and last step: the slots that a session needs."""
    most = oldest = 0
    for index, window in enumerate(windows):
        while windows[oldest].last < window.first:
            oldest += 1
        most = max(most, index - oldest + 1)
    return most


class WindowRunner:
    """Feeds one patch's frames to a session, step by step, and hands back each window's score when it is complete.

    `windows` ascend in first and last step. Their states live in a ring of `session` slots, since they open and close
    in the same order.
    """

    def __init__(self, session: Session, windows: Sequence[Window], *, slots: int, paths: Sequence[Path]) -> None:
        self._session = session
        self._windows = windows
        self._slots = slots
        self._frames: dict[Path, FloatArray] = {}
        self._gates: dict[Path, Any] = {}
        self._paths = paths
        self._oldest = 0
        self._newest = 0

    def show(self, path: Path, frame: FloatArray) -> None:
        """From now on a path sees this frame (y, x, band); it is encoded when a window first needs it."""
        self._frames[path] = frame
        self._gates.pop(path, None)

    def step(self, step: int, *, valid: bool = True) -> Iterator[tuple[int, FloatArray]]:
        """Take a step, which changes no state unless valid; yields (index, score) of each window that ends with it."""
        while self._newest < len(self._windows) and self._windows[self._newest].first <= step:
            self._session.clear(self._newest % self._slots)
            self._newest += 1
        if valid and self._oldest < self._newest:
            self._advance()
        while self._oldest < self._newest and self._windows[self._oldest].last <= step:
            yield self._oldest, self._session.score(self._oldest % self._slots)
            self._oldest += 1

    def _advance(self) -> None:
        first, last = self._oldest % self._slots, (self._newest - 1) % self._slots + 1
        runs = [(first, last)] if first < last else [(0, last), (first, self._slots)]
        for path in self._paths:
            if path not in self._gates:
                self._gates[path] = self._session.encode(path, self._frames[path])
            for run in runs:
                self._session.advance(path, self._gates[path], *run)


def score_windows(
    x: Array, valid: BoolArray, weights: Weights, *, engine: str = "auto", precision: str = "fp32", workers: int = 2
) -> FloatArray:
    """Score windows that are given as arrays.

    Parameters
    ----------
    x : ndarray, shape (n, t, y, x, band)
        Windows of carried-forward steps, channels in the era's order, in the units of the weights' contract.
    valid : ndarray of bool, shape (n, t)
        Which steps to process. A step that is not leaves the state alone, so padding may lie anywhere. `frame_mask`
        gives the published rule.
    weights : Weights
    engine : str
        "auto", or a name of `urbandelta.engines.ENGINES`.
    precision : str
        "fp32", or "bf16" in the recurrence.
    workers : int
        Threads; windows are shared out among them.

    Returns
    -------
    ndarray of float32, shape (n, y, x)
        Scores 0..1; 0.5-like constants where no step was valid, as published (h = 0 through the head).

    Raises
    ------
    ShapeError
        If the shapes do not belong together, or a valid step holds NaN.
    """
    config = weights.config
    if x.ndim != 5 or x.shape[4] != config.bands:
        raise ShapeError(f"x has shape {x.shape}; weights {weights.name} need (n, t, y, x, {config.bands} bands)")
    if valid.shape != x.shape[:2]:
        raise ShapeError(f"valid has shape {valid.shape}, x needs {x.shape[:2]}")
    chosen, network = engine_named(engine, precision=precision), fold(weights.parameters, config)
    with ThreadPoolExecutor(max_workers=max(1, min(workers, len(x)))) as pool:
        scores = list(
            pool.map(lambda n: _score_one(x[n], valid[n], network, chosen, origin=f"window {n}"), range(len(x)))
        )
    return np.stack(scores) if scores else np.empty((0, *x.shape[2:4]), np.float32)


def _score_one(x: Array, valid: BoolArray, network: FoldedNetwork, engine: Engine, *, origin: str) -> FloatArray:
    config = network.config
    session = engine.session(network, height=x.shape[1], width=x.shape[2], slots=1)
    if not valid.any():
        session.clear(0)
        return session.score(0)
    steps = np.flatnonzero(valid)
    window = Window(steps[0], steps[-1], len(steps), 0, len(steps) - 1)
    runner = WindowRunner(session, [window], slots=1, paths=config.paths)
    shown: dict[Path, Array] = {}
    for position, step in enumerate(steps):
        for path, frame in _changed(x[step], shown, config).items():
            if not np.isfinite(frame).all():
                raise ShapeError(
                    f"{origin}, step {step}: NaN or infinity in a valid step; fill it or mark it not valid"
                )
            runner.show(path, np.ascontiguousarray(frame, dtype=np.float32))
        for _, score in runner.step(position):
            return score
    raise AssertionError("a window ends at its last step")


def _changed(step: Array, shown: dict[Path, Array], config: NetworkConfig) -> Mapping[Path, Array]:
    """Frames that differ from those shown last; remembers them."""
    changed = {}
    for path in config.paths:
        frame = step[..., config.channels(path)]
        if path not in shown or not np.array_equal(shown[path], frame):
            changed[path] = shown[path] = frame
    return changed
