"""Work on a few threads: reading and drawing would stall the event loop, and many at once would fill the memory."""

from __future__ import annotations

import asyncio
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

    async def run(self, request: Request, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of `work`, done on a thread; not begun if the client has gone before its turn came.

        A map that is dragged or played gives up most of the tiles that it asked for.
        """
        async with self._gate:
            if await request.is_disconnected():
                raise HTTPException(CLOSED, "the client has gone")
            call = functools.partial(work, *args, **kwargs)
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
