"""Steps that are made of parts, such as a debate: what is next is a pure function of what is done.

A visit is a `Course`, so that what costs something (a list of thousands, say) is computed once and not at every part.

So a composite resumes as everything does: from what the log says of its parts. It never depends on the order in which
parts ended, has no clock and no chance but the seed it is given, and can be tried without any agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import Message

from weft.agents.orchestrator.plan.model import CallAction, Expression, Scope
from weft.v1.workflow_pb2 import StepFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A call that is a part of a step.

    Attributes:
        key: below the step's key, such as "round0/anna"; letters, digits, "/", "-" and "_".
        call: the skill.
        variables: what the expressions of the call may name beside the run's scope.
        reply: what of the response counts, an expression that may name `reply`; None: the response.
    """

    key: str
    call: CallAction
    variables: Scope = field(default_factory=dict)
    reply: Expression | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a part ended, retries and all: with a message or a failure."""

    message: Message | None = None
    failure: StepFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The step is over.

    Attributes:
        output: what it gives: a message, or messages where the step gives a list.
        failure: why it failed; None: it did not.
    """

    output: Message | Sequence[Message] | None = None
    failure: StepFailure | None = None


class Course(Protocol):
    """One visit of a step made of parts. What it keeps follows from what it was begun with and `done`, which only grows."""

    def next(self, done: Mapping[str, Done]) -> Sequence[Part] | Finished:
        """What is to be done.

        Args:
            done: the parts that ended, by key.

        Returns:
            All parts that may be under way now (those in `done` may be among them, and are left out by the caller), or
            how it ended.

        Raises:
            ExpressionFailed: an expression of the step cannot be computed: the step fails.
        """
        ...


class Composite(Protocol):
    """A step made of parts."""

    def begin(self, scope: Scope, seed: int) -> Course:
        """Begins a visit.

        Args:
            scope: what expressions may name, as it is now; it stays so.
            seed: of the run and the step: the same at every replay.

        Raises:
            ExpressionFailed: an expression of the step cannot be computed: the step fails.
        """
        ...
