"""Has the pipeline run by the orchestrator of the mesh: durably, in the version that is the newest of the caller's tenant."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from weft import rpc
from weft.agents.support.supervisor import pipeline
from weft.agents.support.supervisor.conversations import Conversations
from weft.agents.support.supervisor.outcome import Outcome
from weft.agents.support.supervisor.route import Route
from weft.support.v1 import supervisor_pb2
from weft.v1 import orchestrator_pb2 as pb
from weft.v1 import orchestrator_pb2_grpc
from weft.v1.workflow_pb2 import TypedMessage, WorkflowSpec

log = logging.getLogger("weft.agents")

_LOOK_AGAIN = 5.0  # seconds between looks for an orchestrator that is not there
_LOOK = 2.0  # seconds a look may take
_BEGIN = 1.0  # seconds an orchestrator has to begin a run
_PAUSE = 0.1  # seconds before a stream that broke is made again
_SPECS = 64  # versions that are kept
_LATE = "The answer was not found in time."


class Orchestrated:
    """The way to the orchestrator. Handling never waits for one that is not there.

    Args:
        orchestrator: its stub.
        conversations: where it is kept who waits for a decision.
    """

    def __init__(
        self,
        orchestrator: orchestrator_pb2_grpc.OrchestratorServiceAsyncStub,
        conversations: Conversations,
    ) -> None:
        self._stub = orchestrator
        self._conversations = conversations
        self._there = False
        self._looked = -_LOOK_AGAIN
        self._looking: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._specs: dict[tuple[str, int], WorkflowSpec] = {}

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = [*self._ending, *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def handle(
        self, request: supervisor_pb2.HandleRequest, *, run: str, route: Route, within: timedelta
    ) -> Outcome | None:
        """Begins a run, follows it until it has ended or asks a person, and notes its steps.

        Returns:
            What came of it; None: there is no orchestrator, or it did not begin the run.
        """
        if not self._there:
            self._look()
            return None
        until = rpc.Deadline.after(within)
        settled = False
        try:
            begun = await self._begin(request, run)
            route.follow(await self._spec(begun))
            outcome = await self._follow(begun, route, until)
            if outcome.deciding:
                await self._conversations.expect(run, _tenant(), request.conversation_id)
            settled = outcome.deciding or not outcome.why
        except grpc.aio.AioRpcError as failed:
            self._lost(failed)
            return None
        else:
            return outcome
        finally:
            if not settled:  # it may have begun though nobody heard of it
                self._cancel(run)

    # Whether it is there

    def _look(self) -> None:
        if self._looked + _LOOK_AGAIN > time.monotonic():
            return
        self._looked = time.monotonic()
        self._looking = asyncio.create_task(self._find(), name="look for an orchestrator")

    async def _find(self) -> None:
        try:
            await self._stub.ListWorkflows(pb.ListWorkflowsRequest(page_size=1), timeout=_LOOK)
        except grpc.aio.AioRpcError:
            return
        self._there = True

    def _lost(self, failed: grpc.aio.AioRpcError) -> None:
        log.warning(
            "the pipeline is run without the orchestrator", extra={"code": failed.code().name}
        )
        if failed.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            self._there, self._looked = False, time.monotonic()

    # Runs

    async def _begin(self, request: supervisor_pb2.HandleRequest, run: str) -> pb.Run:
        given = TypedMessage(type=pipeline.INPUT_TYPE, binary=request.SerializeToString())
        start = pb.StartRunRequest(workflow=pipeline.NAME, input=given, id=run)
        try:
            return (await self._stub.StartRun(start, timeout=_BEGIN)).run
        except grpc.aio.AioRpcError as failed:
            if failed.code() is grpc.StatusCode.ALREADY_EXISTS:
                # A mail that was handled before, up to a point: its time and its context are others now.
                return (await self._stub.GetRun(pb.GetRunRequest(id=run), timeout=_BEGIN)).run
            if failed.code() is not grpc.StatusCode.NOT_FOUND:
                raise
        # The first of its tenant.
        submit = pb.SubmitWorkflowRequest(spec=pipeline.shipped())
        await self._stub.SubmitWorkflow(submit, timeout=_BEGIN)
        return (await self._stub.StartRun(start, timeout=_BEGIN)).run

    async def _spec(self, run: pb.Run) -> WorkflowSpec:
        tenant = _tenant()
        known = self._specs.get((tenant, run.version))
        if known is None:
            asked = pb.GetWorkflowRequest(name=run.workflow, version=run.version)
            answer = await self._stub.GetWorkflow(asked, timeout=_BEGIN)
            known = self._specs[tenant, run.version] = answer.workflow.spec
            if len(self._specs) > _SPECS:
                del self._specs[next(iter(self._specs))]
        return known

    async def _follow(self, run: pb.Run, route: Route, until: rpc.Deadline) -> Outcome:
        with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError):
            async with asyncio.timeout(until.seconds()):
                async for event in self._events(run.id):
                    match event.WhichOneof("kind"):
                        case "step":
                            _note(event.step, route)
                        case "approval" if not event.approval.HasField("decision"):
                            scope = event.approval.scope
                            route.waits(event.approval.step, f"a person with {scope} decides")
                            return Outcome(deciding=True)
                        case "ended":
                            return _outcome(event.ended)
        return Outcome(why=_LATE)

    async def _events(self, run: str) -> AsyncIterator[pb.RunEvent]:
        after = 0
        while True:
            request = pb.WatchRunRequest(id=run, after=after, binary=True)
            call = self._stub.WatchRun(request)
            try:
                async for response in call:
                    after = response.event.number
                    yield response.event
            except grpc.aio.AioRpcError as failed:
                if failed.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            finally:
                call.cancel()
            await asyncio.sleep(_PAUSE)

    def _cancel(self, run: str) -> None:
        """Ends a run that nobody waits for any more."""
        task = asyncio.create_task(self._end(run), name=f"cancel {run}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, run: str) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._stub.CancelRun(pb.CancelRunRequest(id=run), timeout=_LOOK)


def _tenant() -> str:
    call = rpc.current_call()
    return call.identity.tenant if call is not None and call.identity is not None else ""


def _note(step: pb.Step, route: Route) -> None:
    match step.state:
        case pb.STEP_STATE_RUNNING:
            route.began(step.key)
        case pb.STEP_STATE_SUCCEEDED:
            route.gave(step.key, _message(step.output))
        case pb.STEP_STATE_FAILED:
            route.failed(step.key, step.failure.code)


def _message(output: TypedMessage) -> Message | None:
    """What a step gave; None: it is of a type that is not the fleet's."""
    try:
        found = descriptor_pool.Default().FindMessageTypeByName(output.type)
        made: Message = message_factory.GetMessageClass(found)()
        made.ParseFromString(output.binary)
    except (KeyError, DecodeError):
        return None
    return made


def _outcome(ended: pb.Run) -> Outcome:
    given = _message(ended.output) if ended.HasField("output") else None
    if isinstance(given, supervisor_pb2.HandleResponse):
        return Outcome(response=given)
    return Outcome(why="The request could not be handled.")
