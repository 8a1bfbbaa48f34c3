"""What a process with thousands of callers that stay asks of the kernel and of Python: a gateway, a registry."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import resource
import time
from collections.abc import AsyncIterator

_LEAST, _MOST = 10.0, 600.0  # seconds between two full collections
_SHARE = 0.01  # of the time, for full collections
_WORTH = 1_000  # objects that one must find for the next to come as soon
_NEVER = 1_000_000_000


def raise_files() -> None:
    """Lets this process open as many files at a time as it is allowed: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.asynccontextmanager
async def collecting() -> AsyncIterator[None]:
    """Makes full garbage collections rare while the block runs.

    Python begins one whenever a quarter more objects have stayed, and looks at each. Every caller that stays is 140 of
    them: while 10,000 connect, everything stood still for a second, several times, and a third of the time went there.
    Here a full collection takes at most a hundredth of the time, and fewer come where there is nothing to find.
    What is short-lived is collected as ever.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()  # what was made up to here stays: there is no need to look at it again
    gc.set_threshold(before[0], before[1], _NEVER)
    collecting = asyncio.create_task(_collect(), name="garbage")
    try:
        yield
    finally:
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
        gc.set_threshold(*before)
        gc.unfreeze()


async def _collect() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    pause = _LEAST
    while True:
        await asyncio.sleep(pause)
        began = time.perf_counter()
        found = gc.collect()
        took = time.perf_counter() - began
        slower = pause * 2 if found < _WORTH else 0.0
        pause = min(_MOST, max(_LEAST, took / _SHARE, slower))
        if trim is not None:
            await asyncio.to_thread(trim, 0)  # what callers that left had in memory goes back
