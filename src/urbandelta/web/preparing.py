"""Makes what tiles will need while nobody asks for any, so that the first look at a month is as quick as the second."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from urbandelta.errors import UrbandeltaError
from urbandelta.web.opened import Holder
from urbandelta.web.workers import Workers

log = logging.getLogger(__name__)

WAIT_SECONDS = 0.05
"""How long a piece of work of some 30 ms gives way to tiles: a third of a core, at the most, while all are busy."""


async def prepare(holder: Holder, tiles: Workers) -> None:
    """Prepare what is open, and again whenever that has changed; runs until it is cancelled."""
    done = None
    with ThreadPoolExecutor(1, thread_name_prefix="prepare") as pool:
        loop = asyncio.get_running_loop()
        while True:
            area = holder.current
            if area is done:
                await tiles.answered()
                continue
            try:
                for work in await loop.run_in_executor(pool, area.preparation):
                    await tiles.quiet(WAIT_SECONDS)
                    await loop.run_in_executor(pool, work)
                    if holder.current is not area:
                        break
            except (UrbandeltaError, OSError) as error:
                # What an update replaced meanwhile cannot be read any more; whoever asks for a tile is told.
                log.warning("%s: tiles could not be prepared (%s)", holder.name, error)
            done = area
