"""How many runs there are and how they end, for operators."""

from __future__ import annotations

import asyncio
import logging

from weft import rpc
from weft.agents.orchestrator.engine.model import StoredRun
from weft.postgres import DRIVER_ERRORS, Database
from weft.telemetry import Instruments
from weft.v1.orchestrator_pb2 import Run, RunState

log = logging.getLogger("weft.agents")

_EVERY = 10.0  # seconds
_INLINE = "inline"


class Figures:
    """Counts runs.

    Args:
        database: with the queries of weft.agents.orchestrator.sql.
        metrics: where they are shown.
    """

    def __init__(self, database: Database, metrics: Instruments) -> None:
        self._database = database
        self._metrics = metrics

    def ended(self, run: StoredRun, ended: Run) -> None:
        """A run has ended here."""
        # Whoever gives a workflow with its run names it as they like: a label for each would never end.
        name = run.name if run.version else _INLINE
        state = RunState.Name(ended.state).removeprefix("RUN_STATE_").lower()
        took = ended.end_time.ToNanoseconds() / 1e9 - run.create_time.timestamp()
        self._metrics.run_seconds.labels(name, state).observe(max(0.0, took))

    async def run(self) -> None:
        """Counts what has not ended, until cancelled; for a task of its own."""
        metrics = self._metrics
        while True:
            try:
                row = await self._database.fetchrow("count_runs")
                assert row is not None
                for state in ("queued", "running", "waiting"):
                    metrics.runs.labels(state).set(row[state])
                metrics.runs_overdue.set(row["overdue"] or 0.0)
                metrics.approvals.set(row["approvals"])
            except (rpc.Error, *DRIVER_ERRORS) as failed:
                log.debug("runs cannot be counted now", exc_info=failed)
            await asyncio.sleep(_EVERY)
