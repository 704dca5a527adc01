"""What an engine must be able to do; the rest of the package knows no more of it than this."""

from __future__ import annotations

from typing import Any, Protocol

from urbandelta.network import FoldedNetwork, Path
from urbandelta.types import FloatArray


class Session(Protocol):
    """One network on images of one size, for one thread, with room for the states of `slots` windows.

    A slot holds the hidden and cell state of both paths for one window. Images are (y, x, band) float32 without NaN.
    """

    def encode(self, path: Path, frame: FloatArray) -> Any:
        """Input half of a path's gates for one frame (y, x, band of the path); to be given to `advance`."""

    def clear(self, slot: int) -> None:
        """Start a new window in a slot: h = c = 0."""

    def advance(self, path: Path, gates: Any, first: int, last: int) -> None:
        """One step of the path's ConvLSTM for the windows in slots `first` to `last` - 1."""

    def score(self, slot: int) -> FloatArray:
        """Score (y, x) of the window in a slot, 0..1."""


class Engine(Protocol):
    """A way to compute the network."""

    name: str
    precision: str

    def session(self, network: FoldedNetwork, *, height: int, width: int, slots: int) -> Session:
        """A session on images of `height` x `width` px."""
