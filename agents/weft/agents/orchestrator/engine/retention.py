"""Deletes runs that ended long ago, and forgets what they and others spent."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import timedelta

from weft import rpc
from weft.agents.orchestrator.spending import Purses
from weft.postgres import DRIVER_ERRORS, Database

log = logging.getLogger("weft.agents")

_MOST = 200  # runs a statement deletes
_EVERY = 600.0  # seconds between looks


class Retention:
    """Every orchestrator of a database may have one: no two delete the same run.

    Args:
        database: with the queries of weft.agents.orchestrator.sql.
        purses: what was spent.
        keep: how long runs are kept after their end; None: for ever.
    """

    def __init__(self, database: Database, purses: Purses, keep: timedelta | None) -> None:
        self._database = database
        self._purses = purses
        self._keep = keep

    async def run(self) -> None:
        """Deletes what is too old until cancelled; for a task of its own."""
        while True:
            await asyncio.sleep(_EVERY * random.uniform(0.5, 1))  # noqa: S311 jitter
            try:
                if deleted := await self.forget():
                    log.info("old runs were deleted", extra={"runs": deleted})
            except (rpc.Error, *DRIVER_ERRORS):
                log.warning("old runs cannot be deleted now", exc_info=True)

    async def forget(self) -> int:
        """Deletes what is too old, and says how many runs that were. Raises rpc.Error."""
        deleted = 0
        while self._keep is not None and (
            some := await self._database.execute("forget_runs", _MOST, self._keep)
        ):
            deleted += some
        await self._purses.forget(self._keep)
        return deleted
