"""A cache bounded by bytes, in which a value that several threads ask for at once is made once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

V = TypeVar("V")
_ENTRY_BYTES = 256
"""What a key and its place take, so that values without bytes of their own are bounded too."""


class ByteCache(Generic[V]):
    """The values used last, as many as fit into `most_bytes`.

    Parameters
    ----------
    most_bytes : int
        A value larger than a quarter of this is handed over but not kept, so that one giant does not evict all others.
    size : callable
        Bytes of a value.
    """

    def __init__(self, most_bytes: int, size: Callable[[V], int]) -> None:
        self._most, self._size = most_bytes, size
        self._kept: OrderedDict[Hashable, V] = OrderedDict()
        self._making: dict[Hashable, Future[V]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes_kept(self) -> int:
        """Bytes of all values that are kept; never more than `most_bytes`."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether hardly anything more fits."""
        return self._bytes > 0.98 * self._most

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable, make: Callable[[], V], *, evict: bool = True) -> V:
        """The value of a key, made by `make` if it is not there; what `make` raises reaches all who wait for it.

        Without `evict`, what is made is kept only if there is room for it.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            waiting = self._making.get(key)
            if waiting is None:
                mine: Future[V] = Future()
                self._making[key] = mine
        if waiting is not None:
            return waiting.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
            self._keep(key, value, evict=evict)
        mine.set_result(value)
        return value

    def clear(self) -> None:
        """Forget everything that is kept."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _keep(self, key: Hashable, value: V, *, evict: bool) -> None:
        size = self._size(value) + _ENTRY_BYTES
        if size > self._most // 4 or (not evict and self._bytes + size > self._most):
            return
        self._kept[key] = value
        self._bytes += size
        while self._bytes > self._most:
            _, old = self._kept.popitem(last=False)
            self._bytes -= self._size(old) + _ENTRY_BYTES
