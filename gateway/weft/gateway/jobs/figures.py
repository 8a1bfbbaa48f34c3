"""How many jobs there are and what becomes of them, for operators."""

from __future__ import annotations

import asyncio
import logging

from weft import rpc
from weft.gateway.jobs.model import State
from weft.postgres import Database
from weft.telemetry import Instruments

log = logging.getLogger("weft.gateway")

_EVERY = 10.0  # seconds


class Figures:
    """Counts jobs.

    Args:
        database: with the queries of weft.gateway.sql.
        metrics: where they are shown; None: nowhere.
    """

    def __init__(self, database: Database, metrics: Instruments | None) -> None:
        self._database = database
        self._metrics = metrics

    def ended(self, state: State) -> None:
        """A job has ended here."""
        if self._metrics is not None:
            self._metrics.jobs_ended.labels(state.value.lower()).inc()

    def sent(self, state: str) -> None:
        """A webhook was tried, and is now in a state."""
        if self._metrics is not None:
            self._metrics.webhooks.labels(state.lower()).inc()

    async def run(self) -> None:
        """Counts what waits and runs, until cancelled; for a task of its own."""
        if self._metrics is None:
            return
        while True:
            try:
                row = await self._database.fetchrow("count_jobs")
                assert row is not None
                self._metrics.jobs.labels("queued").set(row["queued"])
                self._metrics.jobs.labels("running").set(row["running"])
                self._metrics.jobs_oldest.set(row["oldest"] or 0.0)
                self._metrics.webhooks_pending.set(row["webhooks"])
            except rpc.Error:
                log.warning("jobs cannot be counted now", exc_info=True)
            await asyncio.sleep(_EVERY)
