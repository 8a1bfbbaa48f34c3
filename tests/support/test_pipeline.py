"""The pipeline as a workflow: run by an orchestrator, changed as data, and refunds that a person decides on."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from tests.support.test_supervisor import Stage, about_cards, behaving, handle

from weft import embedded, rpc
from weft.agents import Host, support
from weft.agents.llm import Models
from weft.agents.orchestrator.engine.settings import WorkerSettings
from weft.agents.orchestrator.fleet import OrchestratorSettings, orchestrator
from weft.agents.support.supervisor import pipeline
from weft.agents.support.supervisor.conversations import Conversations
from weft.agents.support.supervisor.orchestrated import Orchestrated
from weft.agents.support.supervisor.route import Route
from weft.postgres import Database
from weft.registry import Registry
from weft.rpc.testing import channel_for, wait_until
from weft.support.v1 import (
    quality_pb2,
    solution_pb2,
    supervisor_pb2,
    supervisor_pb2_grpc,
    support_pb2,
)
from weft.support.v1.supervisor_pb2 import GetConversationRequest, HandleRequest, WatchRequest
from weft.v1 import orchestrator_pb2 as pb
from weft.v1 import orchestrator_pb2_grpc, workflow_pb2
from weft.v1.identity_pb2 import Identity
from weft.v1.workflow_pb2 import Verdict, WorkflowSpec

CUSTOMER = Identity(subject="user:ann", tenant="acme")
ELSEWHERE = Identity(subject="user:ann", tenant="other")
CLERK = Identity(subject="user:bob", tenant="acme", scopes=["support.refunds"])
REFUND = "my refund has not arrived"
CARD = "How do I freeze my card?"


@dataclass(frozen=True, kw_only=True)
class House:
    address: str
    supervisor: Any
    runs: Any
    clerk: Any

    async def handled(self, text: str) -> supervisor_pb2.HandleResponse:
        response: supervisor_pb2.HandleResponse
        response = await self.supervisor.Handle(HandleRequest(text=text))
        return response

    async def submit(self, change: Callable[[WorkflowSpec], None]) -> None:
        spec = WorkflowSpec()
        spec.CopyFrom(pipeline.shipped())
        change(spec)
        await self.runs.SubmitWorkflow(pb.SubmitWorkflowRequest(spec=spec))

    async def said(self, conversation_id: str) -> list[supervisor_pb2.Message]:
        request = GetConversationRequest(conversation_id=conversation_id)
        answer = await self.supervisor.GetConversation(request)
        return list(answer.conversation.messages)


@asynccontextmanager
async def house(
    database_url: str,
    redis_url: str,
    *,
    orchestrated: bool = True,
    models: Models | None = None,
) -> AsyncIterator[House]:
    """The fleet and an orchestrator in one mesh, when the supervisor has found it, where it is to."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        registry = await enter(
            Registry(database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0))
        )
        host = await enter(Host(registry=registry.address))
        servicers = await enter(
            support.fleet(
                database_url=database_url,
                redis_url=redis_url,
                stub=host.mesh.stub,
                orchestrated=orchestrated,
                models=models,
            )
        )
        settings = OrchestratorSettings(
            worker=WorkerSettings(stay=timedelta(0), drain=timedelta(seconds=1)),
            contracts={pipeline.NAME: pipeline.CONTRACT},
        )
        service = await enter(
            orchestrator(
                database_url=database_url,
                registry=await enter(rpc.Channel(registry.address)),
                channel=host.mesh.channel,
                settings=settings,
            )
        )
        for servicer in (*servicers, service):
            host.add(servicer)
        await host.start()
        stack.push_async_callback(host.stop)
        mine = await enter(rpc.Channel(host.server.address, identity=CUSTOMER))
        clerks = await enter(rpc.Channel(host.server.address, identity=CLERK))
        made = House(
            address=host.server.address,
            supervisor=supervisor_pb2_grpc.SupervisorServiceStub(mine),
            runs=orchestrator_pb2_grpc.OrchestratorServiceStub(mine),
            clerk=orchestrator_pb2_grpc.OrchestratorServiceStub(clerks),
        )

        async def found() -> bool:
            await made.handled(CARD)
            return bool((await made.runs.ListRuns(pb.ListRunsRequest())).runs)

        if orchestrated:
            await wait_until(found, timeout=timedelta(seconds=40))
        yield made


def asked_for_every_dispute(spec: WorkflowSpec) -> None:
    (way,) = [edge for edge in spec.edges if edge.to == "refund"]
    way.when = "has(draft.answer) && triage.assessment.intent.value == 'payment_dispute'"


def plain(response: supervisor_pb2.HandleResponse) -> supervisor_pb2.HandleResponse:
    """A response without what is of one call only."""
    bare = supervisor_pb2.HandleResponse()
    bare.CopyFrom(response)
    bare.ClearField("conversation_id")
    bare.ClearField("trace_id")
    for step in bare.route:
        step.ClearField("duration")
    return bare


async def test_an_orchestrator_gives_the_same_answers_and_steps(
    fresh_xds: None, database_url: str, redis_url: str
) -> None:
    async with house(database_url, redis_url) as mesh:
        by_engine = await mesh.handled(CARD)
        asked = WatchRequest(request=HandleRequest(text=CARD))
        *steps, last = [one async for one in mesh.supervisor.Watch(asked)]
        runs = (await mesh.runs.ListRuns(pb.ListRunsRequest(workflow=pipeline.NAME))).runs
        assert {(run.version, run.state) for run in runs} == {(1, pb.RUN_STATE_SUCCEEDED)}
        nothing = await mesh.handled("what is the weather in Paris tomorrow")
    async with support_alone(database_url, redis_url) as here:
        for text, response in (
            (CARD, by_engine),
            ("what is the weather in Paris tomorrow", nothing),
        ):
            alone = plain(await here(text))
            alone.ticket_id = response.ticket_id
            for step in (*alone.route, *response.route):
                step.summary = "" if step.skill == "OpenTicket" else step.summary
            assert plain(response) == alone
    started, ended = support_pb2.STEP_OUTCOME_STARTED, support_pb2.STEP_OUTCOME_OK
    skills = ["Classify", "Search", "Compose", "Review"]
    seen = [(one.step.skill, one.step.outcome) for one in steps]
    assert seen == [(skill, outcome) for skill in skills for outcome in (started, ended)]
    assert plain(last.result) == plain(by_engine)


@asynccontextmanager
async def support_alone(
    database_url: str, redis_url: str
) -> AsyncIterator[Callable[[str], Awaitable[supervisor_pb2.HandleResponse]]]:
    from tests.support import test_fleet

    async with test_fleet.house(database_url, redis_url) as supervisor:
        yield lambda text: test_fleet.handle(supervisor, text)


async def test_a_new_version_is_followed_and_one_of_other_types_refused(
    fresh_xds: None, database_url: str, redis_url: str
) -> None:
    async with house(database_url, redis_url) as mesh:
        other_types = WorkflowSpec()
        other_types.CopyFrom(pipeline.shipped())
        other_types.output = "draft"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await mesh.runs.SubmitWorkflow(pb.SubmitWorkflowRequest(spec=other_types))
        error = rpc.error_from_call(refused.value)
        assert error.reason == "WORKFLOW_INVALID"
        assert "support-handle gives a weft.support.v1.HandleResponse" in error.message
        checked = await mesh.runs.CheckWorkflow(pb.CheckWorkflowRequest(spec=other_types))
        assert [(fault.place, fault.kind) for fault in checked.faults] == [
            ("output", workflow_pb2.FAULT_KIND_TYPE_MISMATCH)
        ]

        await mesh.submit(asked_for_every_dispute)
        response = await mesh.handled(REFUND)
        assert "a person of our help desk decides" in response.answer.text
        assert not response.answer.citations
        last = response.route[-1]
        assert (last.skill, last.outcome) == ("Approve", support_pb2.STEP_OUTCOME_STARTED)
        assert "support.refunds" in last.summary
        listed = await mesh.clerk.ListApprovals(pb.ListApprovalsRequest(mine=True))
        (approval,) = listed.approvals
        # Not by the customer: the scope is missing.
        verdict = {"verdict": Verdict.VERDICT_APPROVED, "digest": approval.digest}
        request = pb.DecideApprovalRequest(id=approval.id, **verdict)
        with pytest.raises(grpc.aio.AioRpcError) as denied:
            await mesh.runs.DecideApproval(request)
        assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await mesh.clerk.DecideApproval(request)

        async def told() -> bool:
            return len(await mesh.said(response.conversation_id)) == 3

        await wait_until(told, timeout=timedelta(seconds=10))
        message = (await mesh.said(response.conversation_id))[-1]
        assert message.role == supervisor_pb2.ROLE_PERSON
        assert message.answer.citations
        assert "10 working days" in message.text


async def test_what_is_handled_again_goes_on_with_its_run(
    fresh_xds: None, database_url: str, redis_url: str
) -> None:
    async with (
        house(database_url, redis_url) as mesh,
        embedded.redis_client(redis_url) as client,
    ):
        way = Orchestrated(mesh.runs, Conversations(client))
        run, came = str(uuid.uuid4()), []

        async def handled() -> bool:
            # Each time with another time to be through.
            request = HandleRequest(text=CARD, question=CARD)
            request.expire_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=10))
            route = Route(lambda _: None)
            within = timedelta(seconds=10)
            outcome = await way.handle(request, run=run, route=route, within=within)
            if outcome is not None:
                came.append(outcome)
            return len(came) == 2

        await wait_until(handled, timeout=timedelta(seconds=15))
        await way.close()
        assert came[0] == came[1]
        assert came[0].response is not None
        assert came[0].response.answer.citations
        runs = (await mesh.runs.ListRuns(pb.ListRunsRequest(workflow=pipeline.NAME))).runs
        assert [each.id for each in runs].count(run) == 1


async def test_a_run_that_is_not_followed_is_cancelled(redis_url: str) -> None:
    cancelled = asyncio.Event()

    class Losing(orchestrator_pb2_grpc.OrchestratorServiceServicer):
        async def ListWorkflows(self, request: Any, context: Any) -> pb.ListWorkflowsResponse:
            return pb.ListWorkflowsResponse()

        async def StartRun(self, request: Any, context: Any) -> pb.StartRunResponse:
            return pb.StartRunResponse(run=pb.Run(id=request.id, workflow=request.workflow))

        async def GetWorkflow(self, request: Any, context: Any) -> pb.GetWorkflowResponse:
            raise rpc.Unavailable

        async def CancelRun(self, request: Any, context: Any) -> pb.CancelRunResponse:
            assert request.id == "mine"
            cancelled.set()
            return pb.CancelRunResponse()

    add = orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server
    async with channel_for(add, Losing()) as channel, embedded.redis_client(redis_url) as client:
        runs = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        way = Orchestrated(runs, Conversations(client))

        async def gone() -> bool:
            within = timedelta(seconds=10)
            route = Route(lambda _: None)
            assert await way.handle(HandleRequest(), run="mine", route=route, within=within) is None
            return cancelled.is_set()

        await wait_until(gone, timeout=timedelta(seconds=10))
        await way.close()


async def test_what_nobody_decides_becomes_a_ticket(
    fresh_xds: None, database_url: str, redis_url: str
) -> None:
    async with house(database_url, redis_url) as mesh:

        def soon(spec: WorkflowSpec) -> None:
            asked_for_every_dispute(spec)
            (node,) = [node for node in spec.nodes if node.id == "refund"]
            node.approval.expires.FromTimedelta(timedelta(seconds=1))

        await mesh.submit(soon)
        response = await mesh.handled(REFUND)
        assert response.ticket_id == ""

        async def told() -> bool:
            return len(await mesh.said(response.conversation_id)) == 3

        await wait_until(told, timeout=timedelta(seconds=10))
        message = (await mesh.said(response.conversation_id))[-1]
        assert message.ticket_id.startswith("T-")
        assert "a person of our help desk will answer you" in message.text


async def test_without_an_orchestrator_a_promise_of_money_is_a_ticket(
    store: Database, redis_url: str
) -> None:
    async def promising(request: Any, context: Any) -> Message:
        answer = support_pb2.Answer(text="We will refund you today.", confidence=0.9)
        return solution_pb2.ComposeResponse(answer=answer)

    async def disputed(request: Any, context: Any) -> Message:
        found = await about_cards(request, context)
        found.assessment.intent.value = "payment_dispute"
        return found  # type: ignore[no-any-return]

    async def passing(request: Any, context: Any) -> Message:
        verdict = support_pb2.Verdict(decision=support_pb2.DECISION_PASS)
        return quality_pb2.ReviewResponse(verdict=verdict)

    stage = Stage(store, redis_url)
    fleet = {"solution": promising, "triage": disputed, "quality": passing}
    async with stage(**{name: behaving(name, does) for name, does in fleet.items()}) as supervisor:
        response = await handle(supervisor)
    (ticket,) = await stage.tickets()
    assert ticket.ticket_id == response.ticket_id
    assert "promises money" in ticket.reason
    assert "We will refund" not in response.answer.text


async def test_in_process_nothing_is_left_to_an_orchestrator(
    fresh_xds: None, database_url: str, redis_url: str
) -> None:
    async with house(database_url, redis_url, orchestrated=False) as mesh:
        for _ in range(3):
            response = await mesh.handled(CARD)
        assert response.answer.citations
        assert not (await mesh.runs.ListRuns(pb.ListRunsRequest())).runs
        assert not (await mesh.runs.ListWorkflows(pb.ListWorkflowsRequest())).workflows
        # What was left to people before is told all the same: the orchestrator is asked.
        unknown = supervisor_pb2.TellRequest(run=str(uuid.uuid4()))
        assert await refused(mesh.supervisor.Tell(unknown)) == ("NOT_FOUND", "UNKNOWN_RUN")


async def refused(call: Awaitable[Any]) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    error = rpc.error_from_call(failed.value)
    return error.code.name, error.reason


async def test_only_what_was_decided_in_a_run_is_told_and_to_its_customer(
    fresh_xds: None, database_url: str, redis_url: str
) -> None:
    async with house(database_url, redis_url) as mesh:
        (over, *_) = (await mesh.runs.ListRuns(pb.ListRunsRequest())).runs
        await mesh.submit(asked_for_every_dispute)
        response = await mesh.handled(REFUND)
        listed = await mesh.clerk.ListApprovals(pb.ListApprovalsRequest(mine=True))
        run = listed.approvals[0].run
        tell = mesh.supervisor.Tell
        forged = support_pb2.Answer(text="We pay you a million.")
        request = supervisor_pb2.TellRequest(run=run, answer=forged)
        assert await refused(tell(request)) == ("FAILED_PRECONDITION", "NOT_DECIDED")
        assert await refused(tell(supervisor_pb2.TellRequest(run=over.id))) == (
            "FAILED_PRECONDITION",
            "RUN_OVER",
        )
        unknown = supervisor_pb2.TellRequest(run="6f1c0e6e-2c3e-4a57-9f1c-0d7a5f3a9b11")
        assert await refused(tell(unknown)) == ("NOT_FOUND", "UNKNOWN_RUN")
        for identity, error in (
            (CLERK, ("PERMISSION_DENIED", "RUN_NOT_YOURS")),
            (ELSEWHERE, ("NOT_FOUND", "UNKNOWN_RUN")),
        ):
            async with rpc.Channel(mesh.address, identity=identity) as channel:
                stub = supervisor_pb2_grpc.SupervisorServiceStub(channel)
                assert await refused(stub.Tell(request)) == error
        assert len(await mesh.said(response.conversation_id)) == 2


@asynccontextmanager
async def telling(redis_url: str, run: pb.Run) -> AsyncIterator[tuple[Any, Conversations]]:
    """A supervisor on an orchestrator that knows one run."""

    class Knowing(orchestrator_pb2_grpc.OrchestratorServiceServicer):
        async def GetRun(self, request: Any, context: Any) -> pb.GetRunResponse:
            return pb.GetRunResponse(run=run)

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        add = orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server
        runs = orchestrator_pb2_grpc.OrchestratorServiceStub(
            await enter(channel_for(add, Knowing()))
        )
        unused: Any = None
        fleet = support.Fleet(
            triage=unused,
            research=unused,
            solution=unused,
            quality=unused,
            escalation=unused,
            orchestrator=runs,
        )
        client = await enter(embedded.redis_client(redis_url))
        supervisor = support.SupervisorAgent(fleet, client)
        stack.push_async_callback(supervisor.close)
        served = channel_for(
            supervisor_pb2_grpc.add_SupervisorServiceServicer_to_server, supervisor
        )
        yield (
            supervisor_pb2_grpc.SupervisorServiceStub(await enter(served)),
            Conversations(client),
        )


async def test_of_those_who_tell_at_once_the_first_decides(redis_url: str) -> None:
    answer = support_pb2.Answer(text="We refund you 12 euros.")
    step = pb.Step(key="refund@1", approval="1", state=pb.STEP_STATE_SUCCEEDED)
    step.output.type = support_pb2.Answer.DESCRIPTOR.full_name
    step.output.binary = answer.SerializeToString()
    run = pb.Run(workflow=pipeline.NAME, state=pb.RUN_STATE_RUNNING, steps=[step])
    approved = supervisor_pb2.TellRequest(run=str(uuid.uuid4()), answer=answer)
    rejected = supervisor_pb2.TellRequest(run=approved.run, ticket_id="T-1")
    async with telling(redis_url, run) as (supervisor, conversations):
        assert await refused(supervisor.Tell(approved)) == ("ABORTED", "NOBODY_WAITS")
        await conversations.expect(approved.run, "", "talk")
        calls = [supervisor.Tell(each) for each in (approved, rejected) * 10]
        came = await asyncio.gather(*calls, return_exceptions=True)
        (said,) = await conversations.read("talk")
        first = approved if said.text == answer.text else rejected
        for request, outcome in zip((approved, rejected) * 10, came, strict=True):
            if request is first:
                assert isinstance(outcome, supervisor_pb2.TellResponse)
            else:
                assert isinstance(outcome, grpc.aio.AioRpcError)
                assert rpc.error_from_call(outcome).reason == "TOLD_OTHERWISE"


async def test_without_an_orchestrator_there_is_nothing_to_tell(
    store: Database, redis_url: str
) -> None:
    async with Stage(store, redis_url)() as supervisor:
        request = supervisor_pb2.TellRequest(run="6f1c0e6e-2c3e-4a57-9f1c-0d7a5f3a9b11")
        assert await refused(supervisor.Tell(request)) == ("NOT_FOUND", "UNKNOWN_RUN")
