"""What workers change of runs, each by one statement that shows the fence.

So nothing stays locked while a worker is stopped, and nothing is changed by one that lost its lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import asyncpg

from weft.agents.orchestrator.engine.model import StoredRun
from weft.agents.orchestrator.engine.patience import patiently
from weft.postgres import Database
from weft.v1.orchestrator_pb2 import Run, RunState

Fresh = tuple[int, Sequence[bytes]]
"""The number of the first event, and the events."""


class LeaseLost(Exception):
    """Another worker has the run."""


class RunStore:
    """The runs that are stored, for workers. Its methods wait as long as the database is away, where nothing else is said.

    Args:
        database: with the queries of weft.agents.orchestrator.sql.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    async def claim(
        self, most: int, lease: timedelta, held: Sequence[int] = ()
    ) -> Sequence[StoredRun]:
        """Leases runs that are due, but for those held. Raises rpc.Error where the database is away."""
        rows = await self.database.fetch("claim_runs", most, lease, held)
        return [StoredRun.from_row(row) for row in rows]

    async def next_due(self) -> float | None:
        """In how many seconds a run is due; None: none is. Raises rpc.Error where the database is away."""
        seconds: float | None = await self.database.fetchval("next_run_due")
        return seconds

    async def logs(self, runs: Sequence[int]) -> Mapping[int, Sequence[bytes]]:
        """The events of runs."""
        rows = await patiently(lambda: self.database.fetch("read_logs", runs))
        logs: dict[int, list[bytes]] = {run: [] for run in runs}
        for run, event in rows:
            logs[run].append(event)
        return logs

    async def renew(self, fences: Mapping[int, int], lease: timedelta) -> Mapping[int, int]:
        """Renews leases; the runs that are still held, and how often something happened to them from outside.

        Raises rpc.Error where the database is away.
        """
        rows = await self.database.fetch("renew_runs", list(fences), list(fences.values()), lease)
        return {row["number"]: row["wakes"] for row in rows}

    async def suspend(self, run: StoredRun, fresh: Fresh, until: datetime, seen: int) -> None:
        """Lets go of a run until a time, unless something happened to it that was not seen.

        Raises:
            LeaseLost: see there.
        """
        first, events = fresh
        numbers = list(range(first, first + len(events)))
        args = (run.number, run.fence, numbers, events, until, seen)
        if not await patiently(lambda: self.database.fetch("suspend_run", *args)):
            raise LeaseLost

    async def release(self, run: StoredRun) -> None:
        """Gives a run back, to be taken at once."""
        await patiently(lambda: self.database.execute("release_run", run.number, run.fence))

    async def end(self, run: StoredRun, fresh: Fresh, ended: Run) -> None:
        """Ends a run.

        Raises:
            LeaseLost: see there.
        """
        first, events = fresh
        numbers = list(range(first, first + len(events)))
        state = RunState.Name(ended.state).removeprefix("RUN_STATE_")
        kind = ended.WhichOneof("outcome")
        output = ended.output.binary if kind == "output" else None
        failure = ended.failure.SerializeToString() if kind == "failure" else None
        args = (
            *(run.number, run.fence, numbers, events, state),
            *(ended.output.type, output, failure),
        )
        if not await patiently(lambda: self.database.execute("end_run", *args)):
            raise LeaseLost

    async def facts(self, run: int) -> tuple[int, bool]:
        """How often something happened to a run from outside, and whether it is to be cancelled."""
        row = await patiently(lambda: self.database.fetchrow("run_facts", run))
        if row is None:
            raise LeaseLost
        return row["wakes"], row["cancelling"]

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Rows of a query that may be run twice."""
        return await patiently(lambda: self.database.fetch(query, *args))

    async def execute(self, query: str, *args: object) -> int:
        """Runs a query that may be run twice, and says how many rows it changed."""
        return await patiently(lambda: self.database.execute(query, *args))
