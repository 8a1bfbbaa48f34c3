"""Carries out one run, for as long as its worker holds it.

What happens is told to the interpreter at once, and nothing that follows from it has an effect before it is stored: the
end of a step and the beginning of the next are one entry of the log. Calls without side effects do not wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from weft import rpc
from weft.agents.orchestrator.engine import attempts
from weft.agents.orchestrator.engine.appends import Appends
from weft.agents.orchestrator.engine.bells import Bells
from weft.agents.orchestrator.engine.calls import Caller, Calls
from weft.agents.orchestrator.engine.figures import Figures
from weft.agents.orchestrator.engine.ledger import Ledger, moment
from weft.agents.orchestrator.engine.log import Log
from weft.agents.orchestrator.engine.model import StoredRun
from weft.agents.orchestrator.engine.patience import patiently
from weft.agents.orchestrator.engine.plans import Interpreting, Plans, Stored
from weft.agents.orchestrator.engine.settings import WorkerSettings
from weft.agents.orchestrator.engine.store import RunStore
from weft.agents.orchestrator.engine.waits import Happened, Waits, wait_ends
from weft.agents.orchestrator.plan.model import ExpressionFailed
from weft.agents.orchestrator.run.failures import of_step
from weft.agents.orchestrator.run.turns import (
    Ended,
    OpenApproval,
    OpenCall,
    OpenRun,
    OpenStep,
    OpenTimer,
    OpenWait,
    Turn,
)
from weft.agents.orchestrator.spending import Purses, broke
from weft.agents.orchestrator.typed import wired
from weft.v1.orchestrator_pb2 import (
    RUN_STATE_CANCELLED,
    RUN_STATE_FAILED,
    RUN_STATE_RUNNING,
    RUN_STATE_SUCCEEDED,
    RUN_STATE_WAITING,
    STEP_STATE_FAILED,
    STEP_STATE_RUNNING,
    STEP_STATE_SKIPPED,
    STEP_STATE_SUCCEEDED,
    STEP_STATE_WAITING,
    Run,
    RunEvent,
    RunState,
)
from weft.v1.workflow_pb2 import StepFailure, TypedMessage

log = logging.getLogger("weft.agents")

_CANCELLED = StepFailure(code="CANCELLED", message="The run was cancelled.", reason="CANCELLED")
_TOO_LATE = StepFailure(
    code="DEADLINE_EXCEEDED", message="The run's time is over.", reason="RUN_TOO_LATE"
)
_WAITED = StepFailure(
    code="DEADLINE_EXCEEDED", message="The message did not come in time.", reason="WAITED_TOO_LONG"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every run of a worker is carried out with."""

    store: RunStore
    log: Log
    bells: Bells
    plans: Plans
    calls: Calls
    purses: Purses
    settings: WorkerSettings
    figures: Figures | None = None


class Driver:
    """A run that is held here.

    Args:
        run: the run, as it was when it was claimed.
        stored: its workflow.
        events: its log.
        means: what it is carried out with.
    """

    def __init__(
        self, run: StoredRun, stored: Stored, events: Sequence[bytes], means: Means
    ) -> None:
        self._run = run
        self._compiled = stored.compiled
        self._means = means
        self._deadline = run.deadline.timestamp()
        payer = run.payer or run.id
        self._caller = Caller(identity=run.identity, traceparent=run.traceparent, run=payer)
        self._broke: StepFailure | None = None
        self._ledger = Ledger()
        self._interpreter = self._replayed(stored, events)
        self._waits = Waits(run, self._ledger, means.store, means.plans)
        self._open: dict[str, OpenStep] = {}
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._to_call: list[OpenCall] = []
        self._pauses: dict[str, datetime] = {}
        self._came: list[tuple[str, TypedMessage | StepFailure]] = []
        self._woken = asyncio.Event()
        self._appends = Appends(means.log, run, self._woken.set)
        self._look = run.cancelling or self._ledger.anything_open
        self._seen = run.wakes
        self._cancelling = run.cancelling
        self._draining = False
        self.leaving = False
        """Whether it is being given back."""
        self._stopped = self._ledger.cancelled

    def _replayed(self, stored: Stored, events: Sequence[bytes]) -> Interpreting:
        run, compiler = self._run, self._means.plans.compiler
        given = self._compiled.types.unpack(TypedMessage.FromString(run.input))
        assert isinstance(given, Message)
        interpreter = compiler.interpreter(stored.compiled, run, given)
        for event in self._ledger.replay(events):
            interpreter.apply(event)
            self._count(event)
        return interpreter

    def _count(self, event: RunEvent) -> None:
        """Takes note that a step could not be paid."""
        step = event.step
        if step.state == STEP_STATE_FAILED and broke(self._run, step.failure):
            self._broke = of_step(step.key, step.failure)

    # From outside

    def wake(self) -> None:
        """Something happened to the run from outside."""
        self._look = True
        self._woken.set()

    def drain(self) -> None:
        """Nothing is begun any more; the run is given back as soon as its calls have ended."""
        self._draining = True
        self._woken.set()

    # The loop

    async def drive(self) -> None:
        """Carries the run out until it has ended or is given back.

        Raises:
            LeaseLost: another worker has it.
        """
        bells, number = self._means.bells, self._run.number
        bells.hold(number, self.wake)
        try:
            await patiently(lambda: self._means.purses.limit(self._run))
            if self._ledger.number > 1:
                self._ledger.run(self._shown(RUN_STATE_RUNNING))
            await self._loop()
        finally:
            bells.let_go(number, self.wake)
            await self._drop(list(self._calls))

    async def _loop(self) -> None:
        while True:
            if self._look:
                await self._look_around()
            turn = self._interpreter.turn()
            self._tell(turn)
            if turn.ended is None and (why := self._cut_short()) is not None:
                self._stop_short(why)
                continue
            if turn.ended is not None:
                await self._finish(turn, turn.ended)
                return
            await self._reconcile(turn.open)
            await self._append()
            if any(step.call.effects for step in self._to_call):
                await self._appends.stored()
            self._begin_calls()
            if await self._rest():
                return
            self._take_in()

    def _tell(self, turn: Turn) -> None:
        for step in turn.told:
            self._ledger.told(step)

    def _cut_short(self) -> StepFailure | None:
        """Why the run ends though its workflow does not."""
        if self._cancelling:
            return _CANCELLED
        if self._broke is not None:
            return self._broke
        return _TOO_LATE if self._deadline <= time.time() else None

    def _stop_short(self, why: StepFailure) -> None:
        """Settles that the run ends: whoever goes on with it goes on with that."""
        self._stopped = self._cancelling
        settled = self._shown(RUN_STATE_RUNNING)
        settled.cancelling = self._cancelling
        settled.failure.CopyFrom(why)
        self._apply(self._ledger.run(settled))

    async def _append(self) -> None:
        """Has stored what is new, whenever that is."""
        if self._ledger.fresh:
            await self._appends.add(self._ledger.take_fresh())

    async def _store(self) -> None:
        """Waits until all that happened is stored."""
        await self._append()
        await self._appends.stored()

    # What is under way

    async def _reconcile(self, wanted: Mapping[str, OpenStep]) -> None:
        """Has under way what is to be, and nothing else."""
        if gone := [key for key in self._open if key not in wanted]:
            await self._give_up(gone)
        new = [(key, step) for key, step in wanted.items() if key not in self._open]
        if any(isinstance(step, OpenApproval | OpenRun) for _, step in new):
            await self._store()  # what is asked for, or begun, follows from it
        for key, step in new:
            if not self._draining:
                self._open[key] = step
                await self._begin(key, step)

    async def _give_up(self, keys: Sequence[str]) -> None:
        """Drops steps that are not needed any more."""
        await self._drop([key for key in keys if key in self._calls])
        if any(isinstance(self._open[key], OpenRun) for key in keys):
            await self._store()  # why they are not
        for key in keys:
            step = self._open.pop(key)
            self._pauses.pop(key, None)
            self._waits.until.pop(key, None)
            if isinstance(step, OpenRun):
                await self._waits.cancel_child(key)
            if (known := self._ledger.steps.get(key)) and not known.ended:
                self._apply(self._ledger.step(key, STEP_STATE_SKIPPED))
        self._came = [(key, came) for key, came in self._came if key in self._open]

    async def _begin(self, key: str, step: OpenStep) -> None:
        if isinstance(step, OpenCall):
            self._begin_attempt(key, step)
        elif isinstance(step, OpenApproval):
            self._look = await self._waits.ask(step, self._apply) or self._look
        elif isinstance(step, OpenRun):
            self._look = self._look or key in self._ledger.steps
            if (failure := await self._waits.begin_child(step, self._apply)) is not None:
                self._end(key, failure)
        else:
            self._wait(key, step)

    def _wait(self, key: str, step: OpenWait | OpenTimer) -> None:
        known = self._ledger.steps.get(key)
        if known is None or known.state != STEP_STATE_WAITING:
            self._apply(self._ledger.step(key, STEP_STATE_WAITING))
        began = moment(self._ledger.steps[key].began)
        ends = wait_ends(step, began)
        if ends is not None:
            self._waits.until[key] = ends
        self._look = self._look or isinstance(step, OpenWait)

    def _begin_attempt(self, key: str, step: OpenCall) -> None:
        known = self._ledger.steps.get(key)
        if known is None:
            self._apply(self._ledger.step(key, STEP_STATE_RUNNING, attempts=1))
        elif known.state == STEP_STATE_WAITING:  # it was to be tried again
            pause = attempts.pause(step.retry, self._seed(key), known.attempts, known.asked)
            at = moment(known.since) + pause
            if at > datetime.now(UTC):
                self._pauses[key] = at
                return
            tried = known.attempts + 1
            self._apply(self._ledger.step(key, STEP_STATE_RUNNING, attempts=tried))
        # Else it began before, and whoever had the run was lost: it is the same attempt still.
        self._to_call.append(step)

    def _begin_calls(self) -> None:
        for step in self._to_call:
            if step.key in self._open:
                task = asyncio.create_task(self._call(step), name=step.key)
                self._calls[step.key] = task
        self._to_call.clear()

    async def _call(self, step: OpenCall) -> None:
        """One attempt."""
        left = self._deadline - time.time()
        came = await self._attempt(step, min(step.timeout.total_seconds(), max(left, 0.0)))
        self._calls.pop(step.key, None)
        self._came.append((step.key, came))
        self._woken.set()

    async def _attempt(self, step: OpenCall, seconds: float) -> TypedMessage | StepFailure:
        request = step.request.SerializeToString(deterministic=True)
        try:
            raw = await self._means.calls.make(
                self._caller, step.call, request, f"{self._run.id}/{step.key}", seconds
            )
            return self._reply(step, raw)
        except rpc.Error as failed:
            return attempts.failure_of(failed)
        except ExpressionFailed as failed:
            wrong = rpc.FailedPrecondition(str(failed), reason="EXPRESSION_FAILED")
            return attempts.failure_of(wrong)

    def _reply(self, step: OpenCall, raw: bytes) -> TypedMessage:
        name = step.call.response_type
        if step.reply is None:
            return TypedMessage(type=name, binary=raw)
        kind = self._compiled.types.message_class(name)
        try:
            if kind is None:
                raise rpc.Internal(f"{name} is not known.", reason="UNKNOWN_TYPE")
            reply = kind.FromString(raw)
        except DecodeError:
            raise rpc.Internal(f"It answered with no {name}.", reason="MALFORMED") from None
        return wired(step.reply.message({**step.scope, "reply": reply}))

    async def _drop(self, keys: Sequence[str]) -> None:
        tasks = [self._calls.pop(key) for key in keys]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    # What came

    def _take_in(self) -> None:
        came, self._came = self._came, []
        for key, what in came:
            step = self._open.get(key)
            if isinstance(step, OpenCall):
                self._settle(key, step, what)
        if not self._pauses and not self._waits.until:
            return
        now = datetime.now(UTC)
        for key in [key for key, at in self._pauses.items() if at <= now]:
            del self._pauses[key]
            step = self._open[key]
            assert isinstance(step, OpenCall)
            if not self._draining:
                self._begin_attempt(key, step)
        for key in [key for key, at in self._waits.until.items() if at <= now]:
            step = self._open[key]
            if isinstance(step, OpenApproval):
                self._look = True
            elif isinstance(step, OpenTimer):
                reached = Timestamp()
                reached.FromDatetime(self._waits.until[key])
                self._end(key, wired(reached))
            else:
                self._end(key, _WAITED)

    def _settle(self, key: str, step: OpenCall, came: TypedMessage | StepFailure) -> None:
        known = self._ledger.steps[key]
        if not isinstance(came, StepFailure) or not attempts.again(
            step.retry, known.attempts, came
        ):
            self._end(key, came)
            return
        self._apply(self._ledger.step(key, STEP_STATE_WAITING, failure=came))
        self._begin_attempt(key, step)

    def _end(self, key: str, came: TypedMessage | StepFailure) -> None:
        self._open.pop(key, None)
        self._waits.until.pop(key, None)
        if isinstance(came, StepFailure):
            self._apply(self._ledger.step(key, STEP_STATE_FAILED, failure=came))
        else:
            self._apply(self._ledger.step(key, STEP_STATE_SUCCEEDED, output=came))

    def _apply(self, event: RunEvent) -> None:
        self._interpreter.apply(event)
        self._count(event)

    async def _look_around(self) -> None:
        """Takes in what happened from outside."""
        self._look = False
        if any(isinstance(step, OpenWait) for step in self._open.values()):
            await self._store()  # what is waited for is taken from others
        happened: Happened = await self._waits.look(self._open)
        self._seen = happened.wakes
        self._cancelling = self._cancelling or happened.cancelling
        for approval in happened.decided:
            self._apply(self._ledger.approval(approval))
            self._open.pop(approval.step, None)
            self._waits.until.pop(approval.step, None)
        for key, came in happened.ended:
            self._end(key, came)

    # Resting

    async def _rest(self) -> bool:
        """Waits until there is something to do; whether the run was given back instead."""
        if self._came or self._look:
            return False
        self._woken.clear()
        self._appends.check()
        at, ends = self._run.deadline, self._deadline
        if self._waits.until or self._pauses:
            at = min(at, *self._waits.until.values(), *self._pauses.values())
            ends = at.timestamp()
        left = ends - time.time()
        if not self._calls:
            if self._draining:
                await self._release()
                return True
            if left > self._means.settings.stay.total_seconds():
                await self._suspend(at)
                return True
        if left > 0:
            timer = asyncio.get_running_loop().call_later(left, self._woken.set)
            try:
                await self._woken.wait()
            finally:
                timer.cancel()
        return False

    async def _release(self) -> None:
        await self._store()
        self.leaving = True
        await self._means.store.release(self._run)

    async def _suspend(self, until: datetime) -> None:
        await self._appends.stored()
        self._ledger.run(self._shown(RUN_STATE_WAITING))
        self.leaving = True
        fresh = self._ledger.take_fresh()
        await self._means.store.suspend(self._run, fresh, until, self._seen)
        self._means.bells.changed(self._run.number, *fresh)
        self._means.bells.due.ring()  # to be taken again when it is

    # Ending

    async def _finish(self, turn: Turn, end: Ended) -> None:
        await self._drop(list(self._calls))
        self._open.clear()
        if end.failure is not None and turn.undo:
            await self._store()
        while end.failure is not None and turn.undo:
            if not await self._undo(turn.undo[0]):
                await self._release()
                return
            turn = self._interpreter.turn()
            self._tell(turn)
        await self._conclude(end.output, end.failure)

    async def _undo(self, step: OpenCall) -> bool:
        """Undoes what a step did; whether that was tried to the end, and not given back."""
        key = step.key
        known = self._ledger.steps.get(key)
        tried = known.attempts if known is not None else 0
        waits = known is None or known.state == STEP_STATE_WAITING
        while not self._draining:
            if waits:
                tried += 1
                self._ledger.step(key, STEP_STATE_RUNNING, attempts=tried)
                await self._store()
            came = await self._attempt(step, step.timeout.total_seconds())
            if not isinstance(came, StepFailure):
                self._apply(self._ledger.step(key, STEP_STATE_SUCCEEDED, output=came))
                return True
            if not attempts.again(step.retry, tried, came):
                log.error("a step cannot be undone", extra={"run": self._run.id, "step": key})
                self._apply(self._ledger.step(key, STEP_STATE_FAILED, failure=came))
                return True
            waits = True
            self._ledger.step(key, STEP_STATE_WAITING, failure=came)
            await self._store()
            asked = attempts.asked_pause(came)
            await self._pause_undo(attempts.pause(step.retry, self._seed(key), tried, asked))
        return False

    async def _pause_undo(self, pause: timedelta) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause.total_seconds()):
                while not self._draining:
                    self._woken.clear()
                    await self._woken.wait()

    async def _conclude(self, output: Message | None, failure: StepFailure | None) -> None:
        state: RunState.ValueType
        if failure is None:
            state = RUN_STATE_SUCCEEDED
        else:
            state = RUN_STATE_CANCELLED if self._stopped else RUN_STATE_FAILED
        ended = self._shown(state)
        if failure is not None:
            ended.failure.CopyFrom(failure)
        elif output is not None:
            ended.output.CopyFrom(wired(output))
        ended.end_time.GetCurrentTime()
        await self._appends.stored()
        self._ledger.ends(ended)
        self.leaving = True
        fresh = self._ledger.take_fresh()
        await self._means.store.end(self._run, fresh, ended)
        if self._means.figures is not None:
            self._means.figures.ended(self._run, ended)
        self._means.bells.ended(self._run.number, *fresh)

    async def fail(self, failure: StepFailure) -> None:
        """Ends a run that cannot be carried out.

        Raises:
            LeaseLost: another worker has it.
        """
        await self._appends.over()
        self._skip_open()
        await self._conclude(None, failure)

    def _skip_open(self) -> None:
        for key, step in list(self._ledger.steps.items()):
            if not step.ended:
                self._ledger.step(key, STEP_STATE_SKIPPED)

    def _shown(self, state: RunState.ValueType) -> Run:
        run = self._run.shown()
        run.state = state
        run.cancelling = False
        return run

    def _seed(self, key: str) -> str:
        return f"{self._run.tenant}\0{self._run.id}\0{key}"
