"""What the database, the agents and the round itself know of what happened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg
from tests.faults.orchestrator.agent import Remembered

from weft.v1.orchestrator_pb2 import RunEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A run was taken by a worker, or left. `at` in seconds since 1970."""

    at: float
    fence: int
    taken: bool
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """An event was written by a worker."""

    at: float
    event: int
    fence: int
    """That the run had."""
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What is stored of a run."""

    events: Sequence[RunEvent]
    holds: Sequence[Hold]
    writes: Sequence[Write]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """A worker was killed, or stopped until `end`."""

    worker: str
    begin: float
    end: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time in which nothing could be resumed."""

    begin: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All of it."""

    runs: Mapping[str, Logged]
    remembered: Remembered
    kills: Sequence[Blow]
    stops: Sequence[Blow]
    dark: Sequence[Span]
    """When no orchestrator or no database could serve."""
    lease: float
    slack: float
    """Seconds that a run may lie idle when the lease of its worker has run out."""


async def stored(url: str) -> Mapping[str, Logged]:
    """What the database knows."""
    connection = await asyncpg.connect(url)
    try:
        names = await connection.fetch("select number, id from orchestrator.runs")
        events = await connection.fetch(
            "select run, event from orchestrator.run_events order by run, number"
        )
        holds = await connection.fetch("select * from audit.holds order by run, number")
        writes = await connection.fetch("select * from audit.writes order by run, event")
    finally:
        await connection.close()
    by_run: dict[int, tuple[list[RunEvent], list[Hold], list[Write]]] = defaultdict(
        lambda: ([], [], [])
    )
    for run, raw in events:
        by_run[run][0].append(RunEvent.FromString(raw))
    for row in holds:
        hold = Hold(
            at=row["at"].timestamp(),
            fence=row["fence"],
            taken=row["taken"],
            worker=row["worker"],
        )
        by_run[row["run"]][1].append(hold)
    for row in writes:
        write = Write(
            at=row["at"].timestamp(),
            event=row["event"],
            fence=row["fence"],
            worker=row["worker"],
        )
        by_run[row["run"]][2].append(write)
    return {
        row["id"]: Logged(
            events=by_run[row["number"]][0],
            holds=by_run[row["number"]][1],
            writes=by_run[row["number"]][2],
        )
        for row in names
    }
