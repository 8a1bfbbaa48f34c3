"""weft.v1.OrchestratorService: workflows, runs and approvals of the caller's tenant."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc

from weft import rpc
from weft.agents.orchestrator.approvals.desk import Desk, Wanted
from weft.agents.orchestrator.approvals.model import StoredApproval
from weft.agents.orchestrator.asked import (
    Asker,
    asker,
    plain,
    required,
    run_id,
    span,
    version_of,
)
from weft.agents.orchestrator.engine.model import StoredRun
from weft.agents.orchestrator.engine.plans import Plans
from weft.agents.orchestrator.runs import Beginning, Runs
from weft.agents.orchestrator.shown import Shown
from weft.agents.orchestrator.spending import Purses, checked
from weft.agents.orchestrator.workflows import Workflows
from weft.v1 import orchestrator_pb2 as pb
from weft.v1 import orchestrator_pb2_grpc
from weft.v1.workflow_pb2 import VERDICT_APPROVED, VERDICT_REJECTED

Context = grpc.aio.ServicerContext[Any, Any]

_MARGIN = 0.5  # seconds to answer in, of what a caller waits
_UNTIMED = 60.0  # seconds a caller waits who does not say


class Draws(Protocol):
    """Draws workflows and runs."""

    async def draw(self, asker: Asker, request: pb.DrawRequest) -> pb.DrawResponse:
        """Draws what is asked for.

        Raises:
            rpc.Error: it cannot be drawn.
        """
        ...


class OrchestratorService(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Serves workflows.

    Args:
        workflows: those that are stored.
        runs: theirs.
        desk: approvals.
        plans: compiled workflows.
        draws: draws them.
        purses: what runs spend.
    """

    def __init__(
        self,
        *,
        workflows: Workflows,
        runs: Runs,
        desk: Desk,
        plans: Plans,
        draws: Draws,
        purses: Purses,
    ) -> None:
        self._workflows = workflows
        self._runs = runs
        self._purses = purses
        self._desk = desk
        self._plans = plans
        self._draws = draws
        self._shown = Shown(plans)

    # Workflows

    async def SubmitWorkflow(
        self, request: pb.SubmitWorkflowRequest, context: Context
    ) -> pb.SubmitWorkflowResponse:
        """Checks a workflow and stores it."""
        del context
        _given(request.HasField("spec"), "spec")
        workflow = await self._workflows.submit(asker(), request.spec)
        return pb.SubmitWorkflowResponse(workflow=workflow)

    async def CheckWorkflow(
        self, request: pb.CheckWorkflowRequest, context: Context
    ) -> pb.CheckWorkflowResponse:
        """Checks a workflow."""
        del context
        _given(request.HasField("spec"), "spec")
        checked = await self._workflows.check(asker(), request.spec)
        return pb.CheckWorkflowResponse(faults=checked.faults, output_type=checked.output_type)

    async def GetWorkflow(
        self, request: pb.GetWorkflowRequest, context: Context
    ) -> pb.GetWorkflowResponse:
        """Returns a workflow."""
        del context
        name = required(request.name, "name")
        if request.version < 0:
            raise rpc.InvalidArgument("must not be negative", field="version")
        workflow = await self._workflows.get(asker(), name, request.version)
        return pb.GetWorkflowResponse(workflow=workflow)

    async def ListWorkflows(
        self, request: pb.ListWorkflowsRequest, context: Context
    ) -> pb.ListWorkflowsResponse:
        """Lists workflows."""
        del context
        return await self._workflows.page(asker(), request.page_size, request.page_token)

    async def Draw(self, request: pb.DrawRequest, context: Context) -> pb.DrawResponse:
        """Draws a workflow or a run."""
        del context
        return await self._draws.draw(asker(), request)

    # Runs

    async def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.StartRunResponse:
        """Begins a run."""
        del context
        who = asker()
        id_ = run_id(request.id, "id") if request.id else ""
        longest = None
        if request.HasField("max_duration"):
            longest = span(request.max_duration, "max_duration")
        budget = checked(request.budget, "budget") if request.HasField("budget") else None
        asked = _asked(request)
        if id_ and (begun := await self._runs.begun(who, id_, asked, request.input)):
            return pb.StartRunResponse(run=await self._run(begun))
        beginning = Beginning(
            workflow=await self._plans.by_number(await self._subject(who, request)),
            asked=asked,
            input=request.input,
            id=id_,
            longest=longest,
            budget=budget,
        )
        run = await self._shown.run(await self._runs.begin(who, beginning))
        run.events = 1
        return pb.StartRunResponse(run=run)

    async def _subject(self, who: Asker, request: pb.StartRunRequest) -> int:
        if request.WhichOneof("subject") == "spec":
            return await self._workflows.keep(who, request.spec)
        name, version = version_of(request.workflow, "workflow")
        return await self._workflows.number_of(who, name, version)

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """Returns a run."""
        del context
        run = await self._runs.get(asker(), required(request.id, "id"))
        shown = await self._run(run, outputs=request.outputs, binary=request.binary)
        return pb.GetRunResponse(run=shown)

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        """Lists runs."""
        del context
        runs, events, more = await self._runs.page(
            asker(),
            state=_state(request.state),
            workflow=plain(request.workflow, "workflow"),
            size=request.page_size,
            token=request.page_token,
        )
        response = pb.ListRunsResponse(next_page_token=more)
        for run, last in zip(runs, events, strict=True):
            shown = await self._shown.run(run, whole=False)
            shown.events = last
            response.runs.append(shown)
        return response

    async def WaitRun(self, request: pb.WaitRunRequest, context: Context) -> pb.WaitRunResponse:
        """Returns a run when it has ended, or when the time is over."""
        left = context.time_remaining()
        seconds = max(0.0, (_UNTIMED if left is None else left) - _MARGIN)
        if request.HasField("timeout"):
            asked = request.timeout.seconds + request.timeout.nanos / 1e9
            if asked < 0:
                raise rpc.InvalidArgument("must not be negative", field="timeout")
            seconds = min(seconds, asked)
        run = await self._runs.wait(asker(), required(request.id, "id"), seconds)
        return pb.WaitRunResponse(run=await self._run(run, binary=request.binary))

    async def WatchRun(
        self, request: pb.WatchRunRequest, context: Context
    ) -> AsyncIterator[pb.WatchRunResponse]:
        """Streams what happens in a run."""
        del context
        if request.after < 0:
            raise rpc.InvalidArgument("must not be negative", field="after")
        run = await self._runs.get(asker(), required(request.id, "id"))
        events = self._runs.watch(run, request.after)
        async with contextlib.aclosing(events):
            async for event in events:
                shown = await self._shown.event(run, event, binary=request.binary)
                yield pb.WatchRunResponse(event=shown)

    async def CancelRun(
        self, request: pb.CancelRunRequest, context: Context
    ) -> pb.CancelRunResponse:
        """Asks for a run to be cancelled."""
        del context
        run = await self._runs.cancel(asker(), required(request.id, "id"))
        return pb.CancelRunResponse(run=await self._run(run))

    async def RetryRun(self, request: pb.RetryRunRequest, context: Context) -> pb.RetryRunResponse:
        """Begins a run that goes on from another."""
        del context
        new_id = run_id(request.new_id, "new_id") if request.new_id else ""
        step = plain(request.step, "step", most=500)
        budget = checked(request.budget, "budget") if request.HasField("budget") else None
        run = await self._runs.retry(asker(), required(request.id, "id"), step, new_id, budget)
        return pb.RetryRunResponse(run=await self._run(run))

    async def SignalRun(
        self, request: pb.SignalRunRequest, context: Context
    ) -> pb.SignalRunResponse:
        """Gives a run a message."""
        del context
        await self._runs.signal(
            asker(),
            required(request.id, "id"),
            required(request.name, "name"),
            request.message,
            plain(request.key, "key"),
        )
        return pb.SignalRunResponse()

    async def _run(self, run: StoredRun, *, outputs: bool = False, binary: bool = False) -> pb.Run:
        events = await self._runs.events(run)
        shown = await self._shown.run_with_steps(run, events, outputs=outputs, binary=binary)
        shown.events = events[-1].number if events else 0
        if (spending := await self._purses.spending(run)) is not None:
            shown.spending.CopyFrom(spending)
        return shown

    # Approvals

    async def ListApprovals(
        self, request: pb.ListApprovalsRequest, context: Context
    ) -> pb.ListApprovalsResponse:
        """Lists approvals."""
        del context
        if request.state not in pb.ApprovalState.values():
            raise rpc.InvalidArgument("is not a state", field="state")
        state = request.state or pb.APPROVAL_STATE_OPEN
        wanted = Wanted(
            open=state in (pb.APPROVAL_STATE_OPEN, pb.APPROVAL_STATE_ANY),
            ended=state in (pb.APPROVAL_STATE_ENDED, pb.APPROVAL_STATE_ANY),
            run=plain(request.run, "run"),
            mine=request.mine,
        )
        who = asker()
        found, more = await self._desk.page(who, wanted, request.page_size, request.page_token)
        approvals = [await self._approval(who, each) for each in found]
        return pb.ListApprovalsResponse(approvals=approvals, next_page_token=more)

    async def GetApproval(
        self, request: pb.GetApprovalRequest, context: Context
    ) -> pb.GetApprovalResponse:
        """Returns an approval."""
        del context
        who = asker()
        found = await self._desk.get(who, required(request.id, "id"))
        shown = await self._approval(who, found, binary=request.binary)
        return pb.GetApprovalResponse(approval=shown)

    async def DecideApproval(
        self, request: pb.DecideApprovalRequest, context: Context
    ) -> pb.DecideApprovalResponse:
        """Decides an approval."""
        del context
        required(request.id, "id")
        if request.verdict not in (VERDICT_APPROVED, VERDICT_REJECTED):
            wrong = "must be VERDICT_APPROVED or VERDICT_REJECTED"
            raise rpc.InvalidArgument(wrong, field="verdict")
        required(request.digest, "digest")
        plain(request.comment, "comment", most=2_000)
        who = asker()
        decided = await self._desk.decide(who, request)
        return pb.DecideApprovalResponse(approval=await self._approval(who, decided))

    async def WatchApprovals(
        self, request: pb.WatchApprovalsRequest, context: Context
    ) -> AsyncIterator[pb.WatchApprovalsResponse]:
        """Streams approvals."""
        del context
        who = asker()
        approvals = self._desk.watch(who, mine=request.mine)
        async with contextlib.aclosing(approvals):
            async for approval in approvals:
                shown = await self._approval(who, approval)
                yield pb.WatchApprovalsResponse(approval=shown)

    async def _approval(
        self, who: Asker, approval: StoredApproval, *, binary: bool = False
    ) -> pb.Approval:
        run = await self._runs.get(who, approval.run_id)
        return await self._shown.approval(approval, run.workflow, binary=binary)


def _asked(request: pb.StartRunRequest) -> str:
    """What is asked for, as it counts for a second call with the same id."""
    subject = request.WhichOneof("subject")
    _given(subject, "workflow")
    budget = f" for {request.budget.tokens} {request.budget.usd!r}" * request.HasField("budget")
    if subject == "workflow":
        return f"workflow {request.workflow}{budget}"
    raw = request.spec.SerializeToString(deterministic=True)
    return f"spec {hashlib.sha256(raw).hexdigest()}{budget}"


def _given(there: object, field: str) -> None:
    if not there:
        raise rpc.InvalidArgument("is required", field=field)


def _state(given: pb.RunState.ValueType) -> str:
    if given not in pb.RunState.values():
        raise rpc.InvalidArgument("is not a state", field="state")
    return pb.RunState.Name(given).removeprefix("RUN_STATE_") if given else ""
