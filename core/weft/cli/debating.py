"""The workflow of a debate that the command line asks for.

Debaters are called by their contract. Of the skill of another agent it is settled here which field takes the question, and
which gives the answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from weft.cli import failures
from weft.cli.debaters import Debater
from weft.v1.workflow_pb2 import (
    Call,
    Debate,
    DecisionRule,
    Fields,
    Node,
    Participant,
    WorkflowSpec,
)

if TYPE_CHECKING:
    from weft.cli.catalog import Skill

_QUESTIONS = ("question", "text", "query", "prompt", "message", "input", "content")
_ANSWERS = ("answer", "text", "reply", "result", "output", "content", "message")
_SHOWN = 4  # answers of others that a question tells of
_OPINION, _POSITION = "weft.v1.Opinion", "weft.v1.Position"
_INPUT = "google.protobuf.Empty"


def spec_of(
    question: str,
    debaters: Sequence[Debater],
    *,
    rule: str,
    rounds: int | None,
    judge: Debater | None,
) -> WorkflowSpec:
    """The workflow of a debate.

    Args:
        question: what it is about.
        debaters: who takes part.
        rule: how it is decided.
        rounds: after the independent one; None: as the orchestrator does.
        judge: who decides ties.

    Raises:
        WrongSetting: nobody can tell where a skill takes a question, or gives an answer.
    """
    names = _names([each.agent for each in debaters])
    debate = Debate(
        question=json.dumps(question, ensure_ascii=False),
        participants=[_participant(name, each) for name, each in zip(names, debaters, strict=True)],
        rule=DecisionRule.Value(f"DECISION_RULE_{rule.upper()}"),
    )
    if rounds is not None:
        debate.rounds = rounds or -1
    if judge is not None:
        debate.judge.CopyFrom(_participant("judge", judge, others="positions"))
    node = Node(id="debate", debate=debate)
    return WorkflowSpec(name="debate", input_type=_INPUT, nodes=[node])


def _names(agents: Sequence[str]) -> list[str]:
    names: list[str] = []
    for agent in agents:
        count = sum(name == agent or name.startswith(f"{agent}-") for name in names)
        names.append(agent if not count else f"{agent}-{count + 1}")
    return names


def _participant(name: str, debater: Debater, others: str = "peers") -> Participant:
    agent, skill = debater.agent, debater.skill
    if skill is None:
        return Participant(name=name, call=Call(agent=agent))
    call = Call(agent=agent, method=skill.path.lstrip("/"), fields=Fields())
    call.fields.by_path.update(_request(skill, agent, others))
    return Participant(name=name, call=call, opinion=_opinion(skill, agent))


def _request(skill: Skill, agent: str, others: str) -> dict[str, str]:
    kind = skill.method.input_type
    texts = [field.name for field in kind.fields if _is_text(field)]
    field = next((name for name in _QUESTIONS if name in texts), texts[0] if texts else None)
    if field is None:
        raise failures.WrongSetting(
            f"{agent}.{skill.method.name} takes no text; write a graph instead: docs/workflows.md."
        )
    listed = next((each.name for each in kind.fields if _is_positions(each)), None)
    if listed is not None:
        return {field: "question", listed: others}
    told = " + ".join(
        f"(size({others}) > {at} ? '\\n- ' + {others}[{at}].answer : '')" for at in range(_SHOWN)
    )
    heard = f"(size({others}) > 0 ? '\\n\\nAnswers so far:' : '')"
    return {field: f"question + {heard} + {told}"}


def _opinion(skill: Skill, agent: str) -> str:
    kind = skill.method.output_type
    if kind.full_name == _OPINION:
        return ""
    path = next(_answers(kind), None)
    if path is None:
        raise failures.WrongSetting(
            f"{agent}.{skill.method.name} gives no text; write a graph instead: docs/workflows.md."
        )
    return f"{_OPINION}{{answer: reply.{path}}}"


def _answers(kind: Descriptor, depth: int = 2) -> Iterator[str]:
    """Paths of texts that may be the answer, the likeliest first."""
    texts = [field.name for field in kind.fields if _is_text(field)]
    yield from (name for name in _ANSWERS if name in texts)
    if depth > 1:
        for field in kind.fields:
            if field.message_type is not None and not field.is_repeated:
                yield from (f"{field.name}.{path}" for path in _answers(field.message_type, 1))
        yield from texts


def _is_text(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated


def _is_positions(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return field.is_repeated and kind is not None and kind.full_name == _POSITION
