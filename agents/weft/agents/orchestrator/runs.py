"""Runs as their tenants see them: begin, look at, watch, cancel, tell, try again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.message import Message

from weft import rpc
from weft.agents.orchestrator.asked import Asker
from weft.agents.orchestrator.engine.bells import Bells, Feed
from weft.agents.orchestrator.engine.model import StoredRun
from weft.agents.orchestrator.engine.plans import Plans, Stored
from weft.agents.orchestrator.engine.waits import began_event
from weft.agents.orchestrator.engine.worker import Worker
from weft.agents.orchestrator.errors import (
    RunEnded,
    RunExists,
    RunNotEnded,
    RunNotFound,
    TooManyRuns,
)
from weft.agents.orchestrator.plan.model import WaitAction
from weft.agents.orchestrator.taken import taken_over
from weft.agents.orchestrator.typed import read, wired
from weft.postgres import Database
from weft.rpc.paging import page_begin, page_size, page_token
from weft.v1.orchestrator_pb2 import RUN_STATE_QUEUED, Budget, Run, RunEvent
from weft.v1.workflow_pb2 import TypedMessage

_DEFAULT_PAGE, _LARGEST_PAGE = 50, 500
_NEWEST = 2**62
_EVENTS = 200  # read at a time
_LOOK_AGAIN = 10.0  # seconds after which a watcher looks though nobody woke it
_WATCHED = timedelta(seconds=60)  # for which a worker is told that somebody watches


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What a run is begun with.

    Attributes:
        workflow: its workflow.
        asked: what was asked for, as it counts for a second call with the same id.
        input: the message.
        id: empty: one is made.
        longest: how long it may take; None: as the workflow says.
        budget: what it may spend; None: nothing is said.
    """

    workflow: Stored
    asked: str
    input: TypedMessage
    id: str
    longest: timedelta | None = None
    budget: Budget | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """What callers may ask for."""

    most_open: int = 10_000
    """Runs of a caller that have not ended."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A run that is to be stored, as the queries take it, and its first event."""

    values: tuple[object, ...]
    first: bytes


class Runs:
    """The runs that are stored. Every method raises rpc.Unavailable where the database is away.

    Args:
        database: with the queries of weft.agents.orchestrator.sql.
        bells: what wakes watchers.
        plans: workflows.
        limits: what callers may ask for.
        worker: holds what is begun here, where it has room; others take the rest.
    """

    def __init__(
        self,
        database: Database,
        bells: Bells,
        plans: Plans,
        limits: RunLimits,
        worker: Worker | None = None,
    ) -> None:
        self._database = database
        self._bells = bells
        self._plans = plans
        self._limits = limits
        self._worker = worker

    async def begin(self, asker: Asker, beginning: Beginning) -> StoredRun:
        """Stores a run; a worker takes it as soon as one has room. See `begun`, which comes first.

        Raises:
            InvalidArgument: the input is not of the workflow's type.
            RunExists: the id was taken just now by another run.
            TooManyRuns: see there.
        """
        plan = beginning.workflow.compiled
        given = read(beginning.input, plan.types, plan.plan.input_type, field="input")
        asked = _digest(beginning.asked, given)
        longest = min(beginning.longest or plan.plan.max_duration, plan.plan.max_duration)
        run = Run(id=beginning.id or secrets.token_hex(12), budget=beginning.budget)
        row = self._row(asker, beginning.workflow, run, asked, wired(given), longest)
        if (stored := await self._store(row)) is not None:
            return stored
        if (found := await self._before(asker, run.id, asked)) is not None:
            return found
        await self._let_in(asker)
        raise rpc.Aborted("A run of the same id was begun just now; begin again.")

    async def _store(self, row: _Row) -> StoredRun | None:
        """Stores a run, and has it held here; None: its id is taken, or its caller has too many."""
        most = self._limits.most_open
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(self._worker.place()) if self._worker else None
            lease = place.lease if place is not None else None
            made = await self._database.fetchrow("begin_run", *row.values, most, lease)
            if made is None:
                return None
            stored = StoredRun.from_row(made)
            if place is not None:
                place.run = stored, row.first
        return stored

    async def begun(
        self, asker: Asker, id_: str, asked: str, given: TypedMessage
    ) -> StoredRun | None:
        """The run that was begun with an id; None: there is none.

        Raises:
            RunExists: it was begun with something else.
        """
        row = await self._database.fetchrow("get_run", asker.tenant, id_)
        if row is None:
            return None
        run = StoredRun.from_row(row)
        plan = (await self._plans.by_number(run.workflow)).compiled
        try:
            message = read(given, plan.types, plan.plan.input_type, field="input")
        except rpc.InvalidArgument:
            raise RunExists from None
        if run.asked != _digest(asked, message):
            raise RunExists
        return run

    async def retry(
        self, asker: Asker, id_: str, step: str, new_id: str, budget: Budget | None = None
    ) -> StoredRun:
        """Begins a run that goes on from a step of one that has ended; empty: from those that failed.

        It may spend as much as that one, where no other budget is given.

        Raises:
            RunNotFound, StepNotFound: there is none.
            RunNotEnded: see there.
            RunExists: the new id belongs to another run.
            TooManyRuns: see there.
        """
        old = await self.get(asker, id_)
        if not old.ended:
            raise RunNotEnded
        stored = await self._plans.by_number(old.workflow)
        given = b"\0" + budget.SerializeToString(deterministic=True) if budget is not None else b""
        asked = hashlib.sha256(f"retry\0{old.id}\0{step}".encode() + given).digest()
        if new_id and (before := await self._before(asker, new_id, asked)):
            return before
        log = [RunEvent.FromString(raw) async for raw in self._log(old.number)]
        kept = taken_over(log, step, stored.compiled.plan)
        await self._let_in(asker)
        if budget is None and old.budget is not None:
            budget = Budget.FromString(old.budget)
        run = Run(id=new_id or secrets.token_hex(12), retry_of=old.id, budget=budget)
        longest = min(old.deadline - old.create_time, stored.compiled.plan.max_duration)
        message = TypedMessage.FromString(old.input)
        row = self._row(asker, stored, run, asked, message, longest, old.origin)
        numbers = list(range(2, 2 + len(kept)))
        events: list[bytes] = []
        for number, event in zip(numbers, kept, strict=True):
            event.number = number
            events.append(event.SerializeToString())
        made = await self._database.fetchrow("begin_retry", *row.values, events, numbers)
        if made is None:
            found = await self._before(asker, run.id, asked)
            if found is None:
                raise rpc.Aborted("A run of the same id was begun just now; begin again.")
            return found
        return StoredRun.from_row(made)

    async def get(self, asker: Asker, id_: str) -> StoredRun:
        """A run.

        Raises:
            RunNotFound: see there.
        """
        row = await self._database.fetchrow("get_run", asker.tenant, id_)
        if row is None:
            raise RunNotFound
        return StoredRun.from_row(row)

    async def events(self, run: StoredRun) -> Sequence[RunEvent]:
        """All that happened in a run so far."""
        return [RunEvent.FromString(raw) async for raw in self._log(run.number)]

    async def page(
        self, asker: Asker, *, state: str, workflow: str, size: int, token: str
    ) -> tuple[Sequence[StoredRun], Sequence[int], str]:
        """Runs of a tenant, the newest first, the numbers of their last events, and the token of the next page.

        Raises:
            InvalidArgument: `size` is negative, or `token` is of another list.
        """
        size = page_size(size, default=_DEFAULT_PAGE, most=_LARGEST_PAGE)
        made_for = f"runs {asker.tenant}\0{state}\0{workflow}"
        last = page_begin(token, made_for=made_for, like=(0,))
        args = (asker.tenant, state, workflow, last[0] if last else _NEWEST, size + 1)
        rows = await self._database.fetch("list_runs", *args)
        found = [StoredRun.from_row(row) for row in rows[:size]]
        more = page_token((found[-1].number,), made_for=made_for) if len(rows) > size else ""
        return found, [row["events"] or 0 for row in rows[:size]], more

    async def wait(self, asker: Asker, id_: str, seconds: float) -> StoredRun:
        """A run as it is when it has ended, or after `seconds`.

        Raises:
            RunNotFound: see there.
        """
        until = rpc.Deadline.after_seconds(seconds)
        found = await self.get(asker, id_)
        with self._bells.waiting(found.number) as bell:
            while True:
                found = await self.get(asker, id_)
                if found.ended or until.expired():
                    return found
                await bell.wait(min(_LOOK_AGAIN, until.seconds()))

    async def watch(self, run: StoredRun, after: int) -> AsyncGenerator[RunEvent, None]:
        """What happens in a run behind a number, until it has ended."""
        if run.ended and await self._over(run, after):
            return
        with self._bells.watching(run.number) as feed:
            while True:
                async for raw in self._news(run.number, feed, after):
                    event = RunEvent.FromString(raw)
                    after = event.number
                    yield event
                    if event.WhichOneof("kind") == "ended":
                        return
                if not await feed.wait(_LOOK_AGAIN) and await self._over(run, after):
                    return

    async def _news(self, run: int, feed: Feed, after: int) -> AsyncGenerator[bytes, None]:
        """Events behind a number: those that were stored from here, or what the log has."""
        known = feed.behind(after)
        for raw in known:
            yield raw
        now = asyncio.get_running_loop().time()
        if not self._bells.held(run) and feed.asked + _WATCHED.total_seconds() / 2 < now:
            # Workers elsewhere say what they add as long as somebody watches: see append_events.
            await self._database.execute("watch_run", run, _WATCHED)
            feed.asked = now
        elif known:
            return
        async for raw in self._log(run, after + len(known)):
            yield raw

    async def _over(self, run: StoredRun, after: int) -> bool:
        """Whether a run has ended and nothing is behind a number: it was watched from behind its end."""
        rows = await self._database.fetch("read_events", run.number, after, 1)
        if rows:
            return False
        row = await self._database.fetchrow("get_run", run.tenant, run.id)
        return row is None or (row["end_time"] is not None and row["events"] <= after)

    async def cancel(self, asker: Asker, id_: str) -> StoredRun:
        """Asks for a run to be cancelled; nothing where it has ended.

        Raises:
            RunNotFound: see there.
        """
        await self._database.fetchrow("cancel_run", asker.tenant, id_)
        return await self.get(asker, id_)

    async def signal(
        self, asker: Asker, id_: str, name: str, message: TypedMessage, key: str
    ) -> None:
        """Gives a run a message.

        Raises:
            RunNotFound: see there.
            RunEnded: see there.
            InvalidArgument: no step waits for such a message, or it is of another type.
        """
        run = await self.get(asker, id_)
        stored = await self._plans.by_number(run.workflow)
        actions = [node.action for node in stored.compiled.plan.nodes.values()]
        kinds = [a.type for a in actions if isinstance(a, WaitAction) and a.name == name]
        if not kinds:
            raise rpc.InvalidArgument("no step of this run waits for it", field="name")
        expected = message.type if message.type in kinds else kinds[0]
        wire = wired(read(message, stored.compiled.types, expected, field="message"))
        args = (asker.tenant, id_, name, key, wire.type, wire.binary)
        if await self._database.fetchrow("signal_run", *args) is None:
            # Where it has not ended the key was used before: it is the same message.
            now = await self.get(asker, id_)
            if now.ended:
                raise RunEnded

    # Inside

    async def _log(self, run: int, after: int = 0) -> AsyncGenerator[bytes, None]:
        while rows := await self._database.fetch("read_events", run, after, _EVENTS):
            for row in rows:
                yield row["event"]
            if len(rows) < _EVENTS:
                return
            after = rows[-1]["number"]

    async def _let_in(self, asker: Asker) -> None:
        most = self._limits.most_open
        args = (asker.tenant, asker.subject, most)
        if await self._database.fetchval("count_open_runs", *args) >= most:
            raise TooManyRuns(f"{most} of your runs have not ended.")

    async def _before(self, asker: Asker, id_: str, asked: bytes) -> StoredRun | None:
        row = await self._database.fetchrow("get_run", asker.tenant, id_)
        if row is None:
            return None
        if row["asked"] != asked:
            raise RunExists
        return StoredRun.from_row(row)

    def _row(
        self,
        asker: Asker,
        stored: Stored,
        run: Run,
        asked: bytes,
        given: TypedMessage,
        longest: timedelta,
        origin: str = "",
    ) -> _Row:
        deadline = datetime.now(UTC) + longest
        run.workflow, run.version = stored.name, stored.version
        run.state, run.subject = RUN_STATE_QUEUED, asker.subject
        run.trace_id = asker.traceparent.split("-")[1] if asker.traceparent else ""
        first = began_event(run, deadline)
        values = (
            *(asker.tenant, run.id, stored.number, stored.name, stored.version, asker.subject),
            *(asker.serialized, asker.traceparent, None, "", "", run.retry_of),
            *(asked, given.SerializeToString(), first, deadline, origin or run.id),
            *(run.budget.SerializeToString() if run.HasField("budget") else None, ""),
        )
        return _Row(values, first)


def _digest(asked: str, given: Message) -> bytes:
    message = given.SerializeToString(deterministic=True)
    return hashlib.sha256(asked.encode() + b"\0" + message).digest()
