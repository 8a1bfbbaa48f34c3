"""What a run waits for, and how it hears of it: approvals, messages, times, runs that are steps of it.

Each is made once for its step, however often that is asked for, so a worker that is lost in between does no harm.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from weft import rpc
from weft.agents.orchestrator.approvals.announcing import announce
from weft.agents.orchestrator.approvals.model import StoredApproval, digest_of, stands
from weft.agents.orchestrator.engine.attempts import failure_of
from weft.agents.orchestrator.engine.ledger import Ledger, moment
from weft.agents.orchestrator.engine.model import StoredRun, stamp
from weft.agents.orchestrator.engine.patience import patiently
from weft.agents.orchestrator.engine.plans import Plans, Stored
from weft.agents.orchestrator.engine.store import LeaseLost, RunStore
from weft.agents.orchestrator.errors import ApprovalNotYours
from weft.agents.orchestrator.plan.model import ApprovalAction
from weft.agents.orchestrator.run.turns import (
    OpenApproval,
    OpenRun,
    OpenStep,
    OpenTimer,
    OpenWait,
)
from weft.agents.orchestrator.typed import wired
from weft.v1.orchestrator_pb2 import (
    RUN_STATE_QUEUED,
    STEP_STATE_WAITING,
    Approval,
    Run,
    RunEvent,
)
from weft.v1.workflow_pb2 import StepFailure, TypedMessage

Came = TypedMessage | StepFailure
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """What happened to a run from outside."""

    wakes: int
    cancelling: bool
    decided: Sequence[Approval] = ()
    ended: Sequence[tuple[str, Came]] = field(default_factory=list)
    """Steps that ended, by key, with what came of them."""


class Waits:
    """The waits of a run.

    Args:
        run: the run.
        ledger: its log.
        store: where everything is.
        plans: workflows.
    """

    def __init__(self, run: StoredRun, ledger: Ledger, store: RunStore, plans: Plans) -> None:
        self._run = run
        self._ledger = ledger
        self._store = store
        self._plans = plans
        self.until: dict[str, datetime] = {}
        """When waits are over, by key."""

    # Beginning

    async def ask(self, step: OpenApproval, apply: Callable[[RunEvent], None]) -> bool:
        """Asks people; whether they had been asked before.

        Raises:
            LeaseLost: see there.
        """
        run, action, key = self._run, step.action, step.key
        known = self._ledger.steps.get(key)
        began = moment(known.began) if known is not None else datetime.now(UTC)
        expires = began + action.expires if action.expires is not None else None
        shown = wired(step.shown)
        rows = await self._store.fetch(
            "ask_approval",
            *(secrets.token_hex(12), run.tenant, run.number, run.id, run.name, key, step.title),
            *(shown.type, shown.binary, digest_of(shown.binary), action.scope, action.own),
            *(run.subject, max(action.quorum, 1), action.editable, expires, action.webhook_url),
            run.fence,
        )
        fresh = bool(rows)
        if not rows:
            rows = await self._store.fetch("approvals_of_steps", run.number, [key])
        if not rows:
            raise LeaseLost
        approval = StoredApproval.from_row(rows[0])
        if known is None or known.approval != approval.id:
            await patiently(lambda: announce(self._store.database, approval))
            apply(self._ledger.step(key, STEP_STATE_WAITING, approval=approval.id))
            if approval.verdict is None:
                apply(self._ledger.approval(approval.message()))
        if approval.expire_time is not None:
            self.until[key] = approval.expire_time
        return not fresh

    async def begin_child(
        self, step: OpenRun, apply: Callable[[RunEvent], None]
    ) -> StepFailure | None:
        """Begins the run that a step is; why it cannot be begun.

        Raises:
            LeaseLost: see there.
        """
        run, key = self._run, step.key
        known = self._ledger.steps.get(key)
        if known is not None and known.child_run:
            return None
        try:
            stored = await self._child_workflow(step)
        except rpc.Error as failed:
            return failure_of(failed)
        rows = await self._store.fetch("begin_child", *self._child(step, stored), run.fence)
        if not rows:
            rows = await self._store.fetch("find_child", run.number, key)
        if not rows:
            raise LeaseLost
        apply(self._ledger.step(key, STEP_STATE_WAITING, child=rows[0]["id"]))
        return None

    async def _child_workflow(self, step: OpenRun) -> Stored:
        action = step.action

        async def find() -> Stored:
            return await self._plans.by_version(self._run.tenant, action.workflow, action.version)

        return await patiently(find)

    def _child(self, step: OpenRun, stored: Stored) -> tuple[object, ...]:
        run, id_ = self._run, secrets.token_hex(12)
        longest = datetime.now(UTC) + stored.compiled.plan.max_duration
        deadline = min(run.deadline, longest)
        began = began_event(
            Run(
                id=id_,
                workflow=stored.name,
                version=stored.version,
                state=RUN_STATE_QUEUED,
                subject=run.subject,
                parent=run.id,
            ),
            deadline,
        )
        given = wired(step.input).SerializeToString()
        return (
            *(run.tenant, id_, stored.number, stored.name, stored.version, run.subject),
            *(run.identity, run.traceparent, run.number, run.id, step.key, ""),
            *(hashlib.sha256(given).digest(), given, began, deadline, id_),
            *(None, run.payer or run.id),
        )

    async def cancel_child(self, key: str) -> None:
        """Has the run cancelled that is a step."""
        known = self._ledger.steps.get(key)
        if known is not None and known.child_run:
            await self._store.execute("cancel_run", self._run.tenant, known.child_run)

    # Hearing

    async def look(self, steps: Mapping[str, OpenStep]) -> Happened:
        """Looks at what happened to open steps."""
        number = self._run.number
        wakes, cancelling = await self._store.facts(number)
        decided: list[Approval] = []
        ended: list[tuple[str, Came]] = []
        approvals = {k: s.action for k, s in steps.items() if isinstance(s, OpenApproval)}
        if approvals:
            await self._decisions(approvals, decided, ended)
        for key, step in steps.items():
            if isinstance(step, OpenWait):
                args = (number, step.action.name, key, self._run.fence)
                rows = await self._store.fetch("take_signal", *args)
                ended += [(key, TypedMessage(type=r["type"], binary=r["message"])) for r in rows]
        if children := [key for key, step in steps.items() if isinstance(step, OpenRun)]:
            for row in await self._store.fetch("ended_children", number, children):
                if row["failure"] is None:
                    came: Came = TypedMessage(type=row["output_type"], binary=row["output"] or b"")
                else:
                    came = StepFailure.FromString(row["failure"])
                ended.append((row["parent_step"], came))
        return Happened(wakes=wakes, cancelling=cancelling, decided=decided, ended=ended)

    async def _decisions(
        self,
        steps: Mapping[str, ApprovalAction],
        decided: list[Approval],
        ended: list[tuple[str, Came]],
    ) -> None:
        now = datetime.now(UTC)
        number = self._run.number
        if late := [key for key in steps if self.until.get(key, _NEVER) <= now]:
            await self._store.execute("expire_approvals", number, late)
        for row in await self._store.fetch("approvals_of_steps", number, list(steps)):
            approval = StoredApproval.from_row(row)
            if approval.verdict is None:
                continue
            if approval.verdict == "EXPIRED":
                await patiently(lambda one=approval: announce(self._store.database, one))  # type: ignore[misc]
            action = steps[approval.step]
            if approval.verdict != "APPROVED" or stands(
                approval, scope=action.scope, own=action.own, quorum=action.quorum
            ):
                decided.append(approval.message())
            else:
                ended.append((approval.step, failure_of(ApprovalNotYours())))


def wait_ends(step: OpenWait | OpenTimer, began: datetime) -> datetime | None:
    """When a wait is over; None: not before its run is."""
    if isinstance(step, OpenWait):
        return began + step.action.timeout if step.action.timeout is not None else None
    return _reached(step.at, step.action.pause or timedelta(), began)


def _reached(at: Message | None, pause: timedelta, began: datetime) -> datetime:
    try:
        if isinstance(at, Timestamp):
            return at.ToDatetime(UTC)
        if isinstance(at, Duration):
            return began + at.ToTimedelta()
    except (OverflowError, ValueError):
        return _NEVER
    return began + pause


def began_event(run: Run, deadline: datetime) -> bytes:
    """The first event of a run."""
    run.create_time.GetCurrentTime()
    stamp(run.deadline, deadline)
    event = RunEvent(number=1, run=run)
    event.time.CopyFrom(run.create_time)
    raw: bytes = event.SerializeToString()
    return raw
