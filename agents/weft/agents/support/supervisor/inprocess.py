"""Runs the shipped pipeline in this process, where there is no orchestrator: the same interpreter and the same result.

Nothing is durable: what this process began ends with it. There is nobody to ask for a decision either, so an approval
expires at once, and the run goes the way of that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from weft import rpc
from weft.agents.orchestrator.plan.types import pack
from weft.agents.orchestrator.run.interpreter import Interpreter
from weft.agents.orchestrator.run.turns import Ended, OpenApproval, OpenCall, OpenStep
from weft.agents.support.supervisor import pipeline
from weft.agents.support.supervisor.attempts import attempt
from weft.agents.support.supervisor.budget import Budget
from weft.agents.support.supervisor.leading import Fleet
from weft.agents.support.supervisor.outcome import Outcome
from weft.agents.support.supervisor.route import NO_TIME, Route
from weft.support.v1 import escalation_pb2, supervisor_pb2
from weft.v1.orchestrator_pb2 import (
    STEP_STATE_FAILED,
    STEP_STATE_SUCCEEDED,
    Approval,
    RunEvent,
    Step,
)
from weft.v1.workflow_pb2 import RunInfo, StepFailure, TypedMessage, Verdict

Skill = Callable[..., Awaitable[Any]]

_TICKET = "/weft.support.v1.EscalationService/OpenTicket"
_CLASSIFY = "/weft.support.v1.TriageService/Classify"
_COMPOSE = "/weft.support.v1.SolutionService/Compose"
# Those that may ask a model: what part of the time that is left is theirs.
_PARTS = {_CLASSIFY: 5, _COMPOSE: 2}


class InProcess:
    """One run of the shipped pipeline.

    Args:
        fleet: stubs of the agents.
        budget: the time there is.
        route: told of every step.
        run: id of the run, a UUID.
    """

    def __init__(self, fleet: Fleet, *, budget: Budget, route: Route, run: str) -> None:
        self._fleet = fleet
        self._budget = budget
        self._route = route
        self._run = run
        self._skills = _skills(fleet)
        self._unopened: escalation_pb2.OpenTicketRequest | None = None

    async def handle(self, request: supervisor_pb2.HandleRequest) -> Outcome:
        """Carries the pipeline out."""
        plan = pipeline.compiled()
        self._route.follow(pipeline.shipped())
        given = plan.types.unpack(pack(request, pipeline.INPUT_TYPE))
        assert isinstance(given, Message)
        info = RunInfo(id=self._run, workflow=plan.name, version=plan.version)
        info.create_time.FromDatetime(datetime.now(UTC))
        ended = await self._carry_out(Interpreter(plan, info, given))
        if ended.output is None:
            return Outcome(why="The request could not be handled.")
        raw = ended.output.SerializeToString()
        response = supervisor_pb2.HandleResponse.FromString(raw)
        return Outcome(response=response, unopened=self._unopened)

    async def _carry_out(self, interpreter: Interpreter) -> Ended:
        under_way: dict[str, asyncio.Task[RunEvent]] = {}
        try:
            while (ended := (turn := interpreter.turn()).ended) is None:
                if len(turn.open) == 1 and not under_way:  # as nearly always: no task is needed
                    interpreter.apply(await self._step(*turn.open.values()))
                    continue
                for key, step in list(turn.open.items()):
                    if key not in under_way:
                        under_way[key] = asyncio.create_task(self._step(step))
                await asyncio.wait(under_way.values(), return_when=asyncio.FIRST_COMPLETED)
                for key in [key for key, task in under_way.items() if task.done()]:
                    interpreter.apply(under_way.pop(key).result())
            return ended
        finally:
            for task in under_way.values():
                task.cancel()
            await asyncio.gather(*under_way.values(), return_exceptions=True)

    async def _step(self, step: OpenStep) -> RunEvent:
        match step:
            case OpenCall():
                return RunEvent(step=await self._call(step))
            case OpenApproval():
                expired = Approval(step=step.key)
                expired.decision.verdict = Verdict.VERDICT_EXPIRED
                return RunEvent(approval=expired)
            case _:
                raise NotImplementedError(f"the shipped pipeline has no {type(step).__name__}")

    async def _call(self, step: OpenCall) -> Step:
        skill = self._skills.get(step.call.path)
        if skill is None:  # `Tell`: whoever asked is still there, and is answered
            return _gave(step, b"")
        request = _generated(step.request)
        within = self._within(step.call.path)
        failure: StepFailure
        if within <= timedelta(0):
            self._route.out_of_time(step.key)
            failure = StepFailure(code="DEADLINE_EXCEEDED", reason=NO_TIME)
        else:
            self._route.began(step.key)
            try:
                response = await attempt(skill, request, within=within)
            except rpc.Error as failed:
                self._route.failed(step.key, failed.code.name)
                failure = StepFailure(code=failed.code.name, reason=failed.reason)
            else:
                self._route.gave(step.key, response)
                return _gave(step, response.SerializeToString())
        if isinstance(request, escalation_pb2.OpenTicketRequest):
            self._unopened = request
        return Step(key=step.key, state=STEP_STATE_FAILED, failure=failure)

    def _within(self, path: str) -> timedelta:
        if path != _TICKET:
            return self._budget.next_share(_PARTS.get(path))
        whole = self._budget.for_ticket()
        return whole / 2 if self._fleet.send else whole


def _skills(fleet: Fleet) -> dict[str, Skill]:
    return {
        _CLASSIFY: fleet.triage.Classify,
        "/weft.support.v1.ResearchService/Search": fleet.research.Search,
        _COMPOSE: fleet.solution.Compose,
        "/weft.support.v1.QualityService/Review": fleet.quality.Review,
        _TICKET: fleet.escalation.OpenTicket,
    }


def _gave(step: OpenCall, raw: bytes) -> Step:
    output = TypedMessage(type=step.call.response_type, binary=raw)
    return Step(key=step.key, state=STEP_STATE_SUCCEEDED, output=output)


def _generated(message: Message) -> Message:
    """A message of the workflow's types as one of the generated code."""
    found = descriptor_pool.Default().FindMessageTypeByName(message.DESCRIPTOR.full_name)
    made: Message = message_factory.GetMessageClass(found)()
    made.ParseFromString(message.SerializeToString())
    return made
