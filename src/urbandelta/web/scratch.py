"""Bytes put aside on disk, in a file without a name: it goes with the process, however that ends."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import weakref
from typing import IO

log = logging.getLogger(__name__)


class Scratch:
    """A file to put bytes aside in. Safe to use from several threads.

    It lies in the folder for temporary files (`TMPDIR`), and is made when first needed.

    Parameters
    ----------
    most_bytes : int
        It never holds more, nor takes more than half of what is free there; 0 for none at all.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._end = 0
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def put(self, content: bytes) -> int | None:
        """Where the bytes lie now; None if there is no room for them."""
        with self._lock:
            if self._end + len(content) > self._most:
                return None
            try:
                file = self._opened()
                if self._end + len(content) > self._most:
                    return None
                file.seek(self._end)
                # Unbuffered: a full disk is told here. It may have taken a part, which the next bytes overwrite.
                if file.write(content) < len(content):
                    raise OSError("no space left")
            except OSError as error:
                log.warning("no more tiles are put aside on disk (%s); those that are stay in use", error)
                self._most = self._end
                return None
            at = self._end
            self._end += len(content)
            return at

    def get(self, at: int, size: int) -> bytes:
        """Bytes that were put aside."""
        with self._lock:
            assert self._file is not None  # whoever has a place has put something there
            self._file.seek(at)
            return self._file.read(size)

    @property
    def bytes_kept(self) -> int:
        """Bytes of the file."""
        return self._end

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="urbandelta-", buffering=0)  # noqa: SIM115 - closed below
            weakref.finalize(self, self._file.close)
            self._most = min(self._most, shutil.disk_usage(tempfile.gettempdir()).free // 2)
        return self._file
