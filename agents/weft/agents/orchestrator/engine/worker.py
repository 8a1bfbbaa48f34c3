"""Takes runs and has them carried out: each process may have one, and each run is held by one of them at a time.

Whoever takes a run gets a lease on it, which it renews, and a fencing token, without which nothing of the run can be
changed: a worker that was slow, not dead, finds that out and drops the run. When a lease runs out, whoever sees it first
takes the run, and goes on with what its log says.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from weft.agents.orchestrator.engine.driver import Driver, Means
from weft.agents.orchestrator.engine.ledger import Ledger
from weft.agents.orchestrator.engine.model import StoredRun
from weft.agents.orchestrator.engine.patience import passes, patiently
from weft.agents.orchestrator.engine.plans import Stored
from weft.agents.orchestrator.engine.store import LeaseLost
from weft.v1.orchestrator_pb2 import RUN_STATE_FAILED
from weft.v1.workflow_pb2 import StepFailure

log = logging.getLogger("weft.agents")

_BATCH = 100
_LEAST_PAUSE = 0.02  # seconds between looks that nobody asked for
_AWAY = 0.5  # seconds before the next look where the database is away
_AFTER_DRAIN = 2.0  # seconds that runs have to be given back whose calls were cut
_BEATS = 4  # in a lease

_BROKEN = StepFailure(
    code="INTERNAL", message="The run cannot be carried out; the log says why.", reason="INTERNAL"
)
_LOST_TOO_OFTEN = StepFailure(
    code="INTERNAL",
    message="Workers were lost again and again while they had this run.",
    reason="WORKERS_LOST",
)


class _Held:
    """A run that is held here."""

    __slots__ = ("driver", "lost", "run", "task")

    task: asyncio.Task[None]

    def __init__(self, run: StoredRun) -> None:
        self.run = run
        self.driver: Driver | None = None
        self.lost = False

    @property
    def leaving(self) -> bool:
        """Whether it is being given back, or was: the statement says whether it was lost before."""
        return self.task.done() or (self.driver is not None and self.driver.leaving)

    def lose(self) -> None:
        """Drops it: another worker has it."""
        self.lost = True
        self.task.cancel()


@dataclass(slots=True)
class Place:
    """Room for a run that is being stored.

    Attributes:
        lease: for how long it is to be held.
        run: the run, with its first event, once it is stored as one that this worker holds.
    """

    lease: timedelta
    run: tuple[StoredRun, bytes] | None = None


class Worker:
    """Carries runs out.

    Args:
        means: what with.
    """

    def __init__(self, means: Means) -> None:
        self._means = means
        self._settings = means.settings
        self._held: dict[int, _Held] = {}
        self._places = 0
        # Runs are nobody's call: not that of whoever begins one, nor within the time that that one has.
        self._context = contextvars.copy_context()
        self._draining = False

    @property
    def held(self) -> int:
        """How many runs it holds."""
        return len(self._held)

    async def run(self) -> None:
        """Works until cancelled; for a task of its own. Calls under way then get a while to end."""
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(self._heartbeats())
            try:
                await self._taking()
            finally:
                await self._drain()
                beating.cancel()

    @contextlib.contextmanager
    def place(self) -> Iterator[Place | None]:
        """Keeps room for a run that is about to be stored, so that it is carried out at once; None: there is none.

        A run that was stored, though nobody heard of it, is taken when its lease has run out.
        """
        if self._draining or self._room() < 1:
            yield None
            return
        place = Place(self._settings.lease)
        self._places += 1
        try:
            yield place
        finally:
            self._places -= 1
            if place.run is not None:
                run, first = place.run
                log: asyncio.Future[Mapping[int, Sequence[bytes]]]
                log = asyncio.get_running_loop().create_future()
                log.set_result({run.number: [first]})
                self._begin(_Held(run), log)
            else:
                self._freed()

    # Taking

    def _room(self) -> int:
        return self._settings.at_once - len(self._held) - self._places

    def _freed(self) -> None:
        if self._room() == 1:
            self._means.bells.due.ring()

    def _begin(self, held: _Held, reading: asyncio.Future[Mapping[int, Sequence[bytes]]]) -> None:
        self._held[held.run.number] = held
        holding, context = self._hold(held, reading), self._context.copy()
        held.task = asyncio.create_task(holding, name=held.run.id, context=context)
        held.task.add_done_callback(self._letting_go(held))

    async def _taking(self) -> None:
        due = self._means.bells.due
        # Of runs that others hold it hears nothing, but looks before the lease of the first of them can have run out.
        longest = self._settings.lease.total_seconds()
        while True:
            pause = longest
            try:
                if (room := min(self._room(), _BATCH)) > 0:
                    if await self._take(room) == room:
                        continue
                    left = await self._means.store.next_due()
                    pause = longest if left is None else left
            except Exception as failed:  # whatever it is, the next look may fare better
                known = {"cause": str(failed)}
                log.warning("runs cannot be taken now", exc_info=not passes(failed), extra=known)
                pause = _AWAY
            await due.wait(min(max(pause, _LEAST_PAUSE), longest))

    async def _take(self, room: int) -> int:
        mine = [number for number, each in self._held.items() if not each.leaving]
        runs = await self._means.store.claim(room, self._settings.lease, mine)
        # What is claimed is held at once: the heartbeat keeps it while its log is read.
        if runs:
            reading = asyncio.create_task(self._means.store.logs([run.number for run in runs]))
            for run in runs:
                if (before := self._held.get(run.number)) is not None:
                    before.lose()  # to this worker itself, which was too slow
                self._begin(_Held(run), reading)
        return len(runs)

    def _letting_go(self, held: _Held) -> Callable[[asyncio.Task[None]], None]:
        def let_go(task: asyncio.Task[None]) -> None:
            if self._held.get(held.run.number) is held:
                del self._held[held.run.number]
            if not task.cancelled() and (failed := task.exception()) is not None:
                log.error("a run cannot be ended", exc_info=failed, extra={"run": held.run.id})
            self._freed()

        return let_go

    # Holding

    async def _hold(
        self, held: _Held, reading: asyncio.Future[Mapping[int, Sequence[bytes]]]
    ) -> None:
        run = held.run
        try:
            logs = await asyncio.shield(reading)
            await self._carry_out(held, logs[run.number])
        except LeaseLost:
            log.warning("a run was lost to another worker", extra={"run": run.id})
        except asyncio.CancelledError:
            if held.lost:
                log.warning("a run was lost to another worker", extra={"run": run.id})
            else:  # its calls were cut since this worker stops
                await self._means.store.release(run)

    async def _carry_out(self, held: _Held, events: Sequence[bytes]) -> None:
        run = held.run
        try:
            if run.losses >= self._settings.losses:
                await self._fail(held, events, _LOST_TOO_OFTEN)
                return
            stored: Stored = await patiently(lambda: self._means.plans.by_number(run.workflow))
            held.driver = Driver(run, stored, events, self._means)
            if self._draining:
                held.driver.drain()
            await held.driver.drive()
        except LeaseLost:
            raise
        except Exception as failed:
            if passes(failed):
                # Whoever takes it when its lease has run out may fare better.
                log.warning("a run is put aside", exc_info=True, extra={"run": run.id})
                return
            # Another worker would fare no better: what a run does follows from its log.
            log.exception("a run cannot be carried out", extra={"run": run.id})
            await self._fail(held, events, _BROKEN)

    async def _fail(self, held: _Held, events: Sequence[bytes], failure: StepFailure) -> None:
        if held.driver is not None:
            await held.driver.fail(failure)
            return
        ledger = Ledger()
        ledger.number = len(events)  # whatever they are
        ended = held.run.shown()
        ended.state = RUN_STATE_FAILED
        ended.failure.CopyFrom(failure)
        ended.end_time.GetCurrentTime()
        ledger.ends(ended)
        await self._means.store.end(held.run, ledger.take_fresh(), ended)
        self._means.bells.ended(held.run.number)

    # Beside

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease.total_seconds() / _BEATS)
            held = dict(self._held)
            if not held:
                continue
            fences = {number: each.run.fence for number, each in held.items()}
            try:
                kept = await self._means.store.renew(fences, self._settings.lease)
            except Exception as failed:  # see _taking
                known = {"cause": str(failed)}
                log.warning(
                    "the leases of runs cannot be renewed now",
                    exc_info=not passes(failed),
                    extra=known,
                )
                continue
            for number, each in held.items():
                if number not in kept and not each.leaving:
                    each.lose()

    async def _drain(self) -> None:
        self._draining = True
        held = dict(self._held)
        for each in held.values():
            if each.driver is not None:
                each.driver.drain()
        if tasks := {each.task for each in held.values()}:
            _, late = await asyncio.wait(tasks, timeout=self._settings.drain.total_seconds())
            for task in late:
                task.cancel()
            if late:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AFTER_DRAIN):
                        await asyncio.gather(*late, return_exceptions=True)
