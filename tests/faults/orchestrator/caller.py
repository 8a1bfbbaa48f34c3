"""Who begins runs, decides their approvals and follows them, whatever becomes of the orchestrators meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from tests.faults.orchestrator.graph import Plan, workflow

from weft import rpc
from weft.echo.v1 import echo_pb2
from weft.v1 import orchestrator_pb2 as pb
from weft.v1 import orchestrator_pb2_grpc
from weft.v1.identity_pb2 import Identity
from weft.v1.workflow_pb2 import VERDICT_APPROVED, TypedMessage

_BEGINNER = Identity(subject="user:ann", tenant="acme")
_APPROVER = Identity(subject="user:bob", tenant="acme")
_PAUSE = 0.15  # seconds before something is tried again
_LOOK = 0.3  # seconds between looks at what is to be decided
_TRIES = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a caller saw of a run."""

    plan: Plan
    ends: list[pb.Run] = field(default_factory=list)
    """The run, as often as it was seen to have ended."""
    decided: int = 0
    """Answers to decisions of its approval, all of which have to agree."""
    wrong: list[str] = field(default_factory=list)
    """Answers that nobody expects."""


class Caller:
    """Works through runs.

    Args:
        orchestrators: addresses.
        chance: which of them is asked.
    """

    def __init__(self, orchestrators: Sequence[str], chance: random.Random) -> None:
        self._chance = chance
        self._channels = [
            [rpc.Channel(address, identity=who) for address in orchestrators]
            for who in (_BEGINNER, _APPROVER)
        ]
        beginners, approvers = self._channels
        self._begins = [orchestrator_pb2_grpc.OrchestratorServiceStub(each) for each in beginners]
        self._decides = [orchestrator_pb2_grpc.OrchestratorServiceStub(each) for each in approvers]
        self._workflow = workflow()
        self.retries = 0

    async def close(self) -> None:
        """Closes its channels."""
        for channel in itertools.chain(*self._channels):
            await channel.close()

    async def begin(self, seen: Seen) -> None:
        """Returns when the run was accepted."""
        plan, given = seen.plan, seen.plan.input
        message = TypedMessage(type=given.DESCRIPTOR.full_name, binary=given.SerializeToString())
        request = pb.StartRunRequest(id=plan.id, spec=self._workflow, input=message)
        await self._until_answered(self._begins, lambda to: to.StartRun(request, timeout=5))

    async def follow(self, seen: Seen) -> None:
        """Returns when it has ended."""
        request = pb.WaitRunRequest(id=seen.plan.id, binary=True)
        request.timeout.FromSeconds(2)
        while not seen.ends:
            answer = await self._until_answered(
                self._begins, lambda to: to.WaitRun(request, timeout=5)
            )
            self._look_at(seen, answer.run)

    async def look_again(self, seen: Seen) -> None:
        """Sees at every orchestrator what became of it."""
        request = pb.GetRunRequest(id=seen.plan.id, binary=True)
        for each in self._begins:
            answer = await self._until_answered([each], lambda to: to.GetRun(request, timeout=5))
            self._look_at(seen, answer.run)

    async def decide(self, runs: dict[str, Seen]) -> None:
        """Decides what is asked until cancelled; decisions are said again now and then."""
        request = pb.ListApprovalsRequest(page_size=500)
        under_way: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                listed = await self._until_answered(
                    self._decides, lambda to: to.ListApprovals(request, timeout=5)
                )
                for approval in listed.approvals:
                    known = under_way.get(approval.id)
                    if approval.run in runs and (known is None or known.done()):
                        task = asyncio.create_task(self._decide(runs[approval.run], approval))
                        under_way[approval.id] = task
                await asyncio.sleep(_LOOK)
        finally:
            for task in under_way.values():
                task.cancel()
            await asyncio.gather(*under_way.values(), return_exceptions=True)

    async def _decide(self, seen: Seen, approval: pb.Approval) -> None:
        request = pb.DecideApprovalRequest(
            id=approval.id, verdict=VERDICT_APPROVED, digest=approval.digest
        )
        if seen.plan.edited:
            changed = echo_pb2.SayResponse(text=seen.plan.edited)
            request.edited.type = changed.DESCRIPTOR.full_name
            request.edited.binary = changed.SerializeToString()
        for _ in range(self._chance.choice((1, 1, 2))):
            try:
                answer = await self._until_answered(
                    self._decides, lambda to: to.DecideApproval(request, timeout=5)
                )
            except rpc.Error as refused:
                seen.wrong.append(f"its decision is refused: {refused.reason} {refused.message}")
                return
            seen.decided += 1
            if answer.approval.decision.verdict != VERDICT_APPROVED:
                seen.wrong.append(f"its approval is {answer.approval.decision}")

    @staticmethod
    def _look_at(seen: Seen, run: pb.Run) -> None:
        if run.WhichOneof("outcome") is not None:
            seen.ends.append(run)
        elif seen.ends:
            seen.wrong.append(f"it had ended and is {pb.RunState.Name(run.state)} again")

    async def _until_answered(self, stubs: Sequence[Any], call: Callable[[Any], Awaitable[T]]) -> T:
        while True:
            try:
                return await call(self._chance.choice(stubs))
            except grpc.aio.AioRpcError as failed:
                if failed.code() not in _TRIES:
                    raise rpc.error_from_call(failed) from None
                self.retries += 1
            except (rpc.Unavailable, rpc.DeadlineExceeded):
                self.retries += 1
            await asyncio.sleep(_PAUSE * self._chance.uniform(0.5, 1.5))
