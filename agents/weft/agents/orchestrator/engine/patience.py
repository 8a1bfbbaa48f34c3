"""Waits for a database that is away: what was found out must not be lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from weft import rpc
from weft.postgres import DRIVER_ERRORS, REFUSES

log = logging.getLogger("weft.agents")

_TRANSIENT = (rpc.Unavailable, rpc.DeadlineExceeded, rpc.Aborted, rpc.ResourceExhausted)
# SQLSTATEs that say something of what was given: too much for the server, refused by a trigger.
_GIVEN = ("21", "54", "P0")
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 2.0  # seconds

T = TypeVar("T")


def passes(failed: Exception) -> bool:
    """Whether it is the database that is not as it should be: away, coming up, closed to this user for a while.

    What else it says is about what it was given.
    """
    if isinstance(failed, rpc.Error):
        return isinstance(failed, _TRANSIENT) or failed.reason == REFUSES
    if isinstance(failed, asyncpg.PostgresError):
        return not (failed.sqlstate or "").startswith(_GIVEN)
    return isinstance(failed, DRIVER_ERRORS)


async def patiently(act: Callable[[], Awaitable[T]]) -> T:
    """Does something that may be done twice, again and again until the database has done it.

    Raises:
        rpc.Error: it will not be done.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            return await act()
        except Exception as failed:
            if not passes(failed):
                raise
            log.warning("the database is waited for", extra={"cause": str(failed)})
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 jitter
        pause = min(pause * 2, _LAST_PAUSE)
