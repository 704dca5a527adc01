"""Work on a few threads: reading and drawing would stall the event loop, and many at once would fill the memory."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from fastapi import HTTPException, Request

P = ParamSpec("P")
R = TypeVar("R")

CLOSED = 499
"""Answer to a client that has gone; nobody reads it."""


class Workers:
    """A bounded pool of threads behind an asyncio gate."""

    def __init__(self, count: int, *, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._gate = asyncio.Semaphore(count)
        self._asked = 0
        self._moved = asyncio.Event()

    async def run(self, request: Request, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of `work`, done on a thread; not begun if the client has gone before its turn came.

        A map that is dragged or played gives up most of the tiles that it asked for.
        """
        self._asked += 1
        try:
            async with self._gate:
                if await request.is_disconnected():
                    raise HTTPException(CLOSED, "the client has gone")
                call = functools.partial(work, *args, **kwargs)
                return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self._asked -= 1
            self._moved.set()

    async def quiet(self, at_most: float) -> None:
        """Return once nothing is asked for, or after `at_most` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                while self._asked:
                    await self.answered()

    async def answered(self) -> None:
        """Return when the next work has been done."""
        self._moved.clear()
        await self._moved.wait()
