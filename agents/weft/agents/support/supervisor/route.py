"""The way a request takes through the fleet, step by step, and what is missing from its answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from weft import rpc
from weft.agents.support.supervisor.attempts import attempt
from weft.support.v1.support_pb2 import (
    STEP_OUTCOME_FAILED,
    STEP_OUTCOME_OK,
    STEP_OUTCOME_SKIPPED,
    STEP_OUTCOME_STARTED,
    Step,
    StepOutcome,
)

Response = TypeVar("Response")
_MOST_SUMMARY = 200


class Route:
    """Takes steps and reports each as it begins and ends.

    Args:
        report: told of every step; must not block.
    """

    def __init__(self, report: Callable[[Step], None]) -> None:
        self._report = report
        self.steps: list[Step] = []
        self.missing: list[str] = []

    async def take(
        self,
        agent: str,
        skill: Callable[..., Awaitable[Response]],
        request: object,
        *,
        name: str,
        within: timedelta,
        summary: Callable[[Response], str],
        lost: str,
    ) -> Response | None:
        """Calls an idempotent skill of an agent; None when it failed or there was no time.

        Args:
            agent: name of the agent.
            skill: method of its stub.
            request: for it.
            name: of the skill.
            within: how long it may take.
            summary: what came out, in a few words.
            lost: what the answer lacks without it.
        """
        if within <= timedelta(0):
            self.missing.append(f"{lost}: there was no time left.")
            self.skip(agent, name, "no time was left")
            return None
        self._report(Step(agent=agent, skill=name, outcome=STEP_OUTCOME_STARTED))
        started = time.monotonic()
        try:
            response = await attempt(skill, request, within=within)
        except rpc.Error as failed:
            self.missing.append(f"{lost}: {agent} {_what_happened(failed)}.")
            self._end(agent, name, STEP_OUTCOME_FAILED, started, _what_happened(failed))
            return None
        self._end(agent, name, STEP_OUTCOME_OK, started, summary(response))
        return response

    def skip(self, agent: str, skill: str, why: str) -> None:
        """Notes a step that was left out."""
        self._note(Step(agent=agent, skill=skill, outcome=STEP_OUTCOME_SKIPPED, summary=why))

    def _end(
        self, agent: str, skill: str, outcome: StepOutcome.ValueType, started: float, summary: str
    ) -> None:
        step = Step(agent=agent, skill=skill, outcome=outcome, summary=summary[:_MOST_SUMMARY])
        step.duration.FromTimedelta(timedelta(seconds=time.monotonic() - started))
        self._note(step)

    def _note(self, step: Step) -> None:
        self.steps.append(step)
        self._report(step)


def _what_happened(failed: rpc.Error) -> str:
    """For people, with nothing of the inside of an agent."""
    if isinstance(failed, rpc.DeadlineExceeded):
        return "did not answer in time"
    if isinstance(failed, rpc.Unavailable):
        return "is not available"
    return f"failed ({failed.code.name})"
