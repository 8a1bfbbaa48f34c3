"""The way a request takes through the fleet, step by step, as customers and `Watch` see it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import grpc
from google.protobuf.message import Message

from weft.agents.support.supervisor.summaries import summary_of
from weft.support.v1 import supervisor_pb2
from weft.support.v1.support_pb2 import (
    STEP_OUTCOME_FAILED,
    STEP_OUTCOME_OK,
    STEP_OUTCOME_SKIPPED,
    STEP_OUTCOME_STARTED,
    Step,
    StepOutcome,
)
from weft.v1.workflow_pb2 import Node, WorkflowSpec

NO_TIME = "NO_TIME"
"""Reason of the failure of a step that was not begun."""

_MOST_SUMMARY = 200
_TELL = f"{supervisor_pb2.DESCRIPTOR.services_by_name['SupervisorService'].full_name}/Tell"
_SKIPPED = {"Compose": "there is nothing to answer from", "Review": "there is no answer"}
_WORDS = {
    grpc.StatusCode.DEADLINE_EXCEEDED.name: "did not answer in time",
    grpc.StatusCode.UNAVAILABLE.name: "is not available",
}

Skill = tuple[str, str]
"""An agent and the name of its method."""


class Route:
    """Notes the steps of a workflow, and reports each as it begins and ends.

    Args:
        report: told of every step; must not block.
    """

    def __init__(self, report: Callable[[Step], None]) -> None:
        self._report = report
        self._nodes: Mapping[str, Skill] = {}
        self._calls: list[Skill] = []
        self._started: dict[str, float] = {}
        self._seen: set[Skill] = set()
        self.steps: list[Step] = []
        self.missing: list[str] = []
        self.given: dict[type[Message], Message] = {}
        """The newest response of each type."""
        self.failures: dict[str, str] = {}
        """Canonical codes of the newest failures, by the name of the skill."""

    def follow(self, spec: WorkflowSpec) -> None:
        """Says of which workflow the steps are."""
        skills = {node.id: _skill(node) for node in spec.nodes}
        self._nodes = {id_: skill for id_, skill in skills.items() if skill is not None}
        calls = (self._nodes.get(node.id) for node in spec.nodes if node.HasField("call"))
        self._calls = list(dict.fromkeys(skill for skill in calls if skill is not None))

    def tried(self, skill: str) -> bool:
        """Whether a skill was called, by its name."""
        return any(step.skill == skill for step in self.steps)

    def began(self, key: str) -> None:
        """A step began; said again, nothing is noted. Skills that it has overtaken were left out."""
        skill = self._nodes.get(_node(key))
        if skill is None or key in self._started:
            return
        self._overtake(skill)
        self._started[key] = time.monotonic()
        agent, name = skill
        self._report(Step(agent=agent, skill=name, outcome=STEP_OUTCOME_STARTED))

    def gave(self, key: str, given: Message | None) -> None:
        """A step ended well."""
        if given is not None:
            self.given[type(given)] = given
        self._end(key, STEP_OUTCOME_OK, summary_of(given))

    def failed(self, key: str, code: str) -> None:
        """A step failed, with a canonical code."""
        if (skill := self._nodes.get(_node(key))) is not None:
            self.failures[skill[1]] = code
        self._end(key, STEP_OUTCOME_FAILED, what_happened(code))

    def out_of_time(self, key: str) -> None:
        """There was no time to begin a step."""
        if (skill := self._nodes.get(_node(key))) is not None:
            self._overtake(skill)
            self._skip(skill, "no time was left")

    def waits(self, key: str, summary: str) -> None:
        """A step began that a person ends, some day."""
        self.began(key)
        if (skill := self._nodes.get(_node(key))) is not None:
            agent, name = skill
            step = Step(agent=agent, skill=name, outcome=STEP_OUTCOME_STARTED, summary=summary)
            self.steps.append(step)

    def _overtake(self, skill: Skill) -> None:
        if skill in self._calls:
            for earlier in self._calls[: self._calls.index(skill)]:
                if earlier not in self._seen:
                    self._skip(earlier, _SKIPPED.get(earlier[1], "it was not needed"))
        self._seen.add(skill)

    def _skip(self, skill: Skill, why: str) -> None:
        self._seen.add(skill)
        agent, name = skill
        self._note(Step(agent=agent, skill=name, outcome=STEP_OUTCOME_SKIPPED, summary=why))

    def _end(self, key: str, outcome: StepOutcome.ValueType, summary: str) -> None:
        skill = self._nodes.get(_node(key))
        if skill is None:
            return
        self.began(key)
        agent, name = skill
        step = Step(agent=agent, skill=name, outcome=outcome, summary=summary[:_MOST_SUMMARY])
        step.duration.FromTimedelta(timedelta(seconds=time.monotonic() - self._started[key]))
        self._note(step)

    def _note(self, step: Step) -> None:
        self.steps.append(step)
        self._report(step)


def what_happened(code: str) -> str:
    """For people, with nothing of the inside of an agent."""
    return _WORDS.get(code, f"failed ({code})")


def _node(key: str) -> str:
    """The node of a step; of a part of one, none."""
    return "" if "/" in key or "~" in key else key.partition("@")[0]


def _skill(node: Node) -> Skill | None:
    """What customers see of a node; None: nothing."""
    match node.WhichOneof("kind"):
        case "call" if node.call.method == _TELL:
            return None
        case "call":
            return node.call.agent, node.call.method.rpartition("/")[2]
        case "approval":
            return "orchestrator", "Approve"
        case _:
            return None
