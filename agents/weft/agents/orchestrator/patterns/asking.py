"""Parts of patterns: calls of participants, and what came of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from weft.agents.orchestrator.plan.patterns import ParticipantPlan
from weft.agents.orchestrator.run.composite import Done, Finished, Part
from weft.v1.workflow_pb2 import Opinion, Position, StepFailure


def ask(
    participant: ParticipantPlan,
    key: str,
    question: str,
    *,
    turn: int = 0,
    peers: Sequence[Position] = (),
    **more: object,
) -> Part:
    """The call of a participant; `more` is what expressions may name in this pattern beside what they always may."""
    return Part(
        key=key,
        call=participant.call,
        variables={"question": question, "round": turn, "peers": list(peers), **more},
        reply=participant.opinion,
    )


@dataclass(slots=True)
class Heard:
    """What several said, by name.

    Attributes:
        opinions: of those who answered.
        failures: of those who failed.
        open: who has not ended.
    """

    opinions: dict[str, Opinion] = field(default_factory=dict)
    failures: dict[str, StepFailure] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)


def hear(names_by_key: Iterable[tuple[str, str]], done: Mapping[str, Done]) -> Heard:
    """What parts gave, by pairs of name and key of part, in this order."""
    heard = Heard()
    for name, key in names_by_key:
        ended = done.get(key)
        if ended is None:
            heard.open.append(name)
            continue
        opinion = opinion_of(ended)
        if isinstance(opinion, Opinion):
            heard.opinions[name] = opinion
        else:
            heard.failures[name] = opinion
    return heard


def opinion_of(done: Done) -> Opinion | StepFailure:
    """What a part that ended gave."""
    if done.failure is not None:
        return done.failure
    if isinstance(done.message, Opinion):
        return done.message
    return StepFailure(code="INTERNAL", reason="BAD_OUTPUT", message="The answer is no opinion.")


def answered(heard: Heard) -> dict[str, Opinion]:
    """Opinions that have an answer: who gives none abstains."""
    return {name: each for name, each in heard.opinions.items() if each.answer.strip()}


def too_few(have: int, least: int, failures: Mapping[str, StepFailure]) -> Finished:
    """A step fails because too few answered."""
    text = f"{least} have to answer, and {have} can."
    for name, failure in sorted(failures.items()):
        text += f" {name}: {failure.code}: {failure.message}"
    failed = StepFailure(code="FAILED_PRECONDITION", reason="TOO_FEW_ANSWERS", message=text)
    for name, failure in failures.items():
        failed.metadata[name] = failure.code
    return Finished(failure=failed)
