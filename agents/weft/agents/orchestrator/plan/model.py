"""A workflow that was checked and compiled: what its runs follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import Message

from weft.agents.orchestrator.plan.graph import Graph
from weft.agents.orchestrator.plan.types import MessageTypes

if TYPE_CHECKING:
    from weft.agents.orchestrator.run.composite import Composite

Scope = Mapping[str, object]
"""What an expression may name, by name: messages, lists of messages, maps, plain values."""


class ExpressionFailed(Exception):
    """An expression could not be computed, or gave something else than its place needs."""

    def __init__(self, message: str, *, source: str) -> None:
        super().__init__(message)
        self.source = source


class Expression(Protocol):
    """A compiled CEL expression of a known type. Its methods raise ExpressionFailed; an error is never a value."""

    @property
    def source(self) -> str:
        """The expression, as it is written."""
        ...

    def truth(self, scope: Scope) -> bool:
        """Of an expression of a bool."""
        ...

    def text(self, scope: Scope) -> str:
        """Of an expression of a string."""
        ...

    def message(self, scope: Scope) -> Message:
        """Of an expression of a message."""
        ...

    def items(self, scope: Scope) -> Sequence[object]:
        """Of an expression of a list."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPlan:
    """When a step is tried again."""

    attempts: int
    first_pause: timedelta
    max_pause: timedelta
    codes: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAction:
    """Calls a skill."""

    agent: str
    """Name; empty: found by `tags` and `labels` when it is called."""
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    path: str
    """The method, "/package.Service/Method"."""
    request: Expression
    response_type: str
    streams: bool
    """Whether it answers with a stream, of which the last message counts."""
    timeout: timedelta
    """Of an attempt: as the node says, else as the skill does."""
    retry: RetryPlan
    """When it is tried again: as the node says, else by what the skill promises."""
    effects: bool = True
    """Whether it may have side effects: the skill does not promise that it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeAction:
    """Computes a message."""

    message: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeAction:
    """Does several things of which one after the other is found out: for-each nodes and patterns."""

    composite: Composite


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalAction:
    """Asks people."""

    title: Expression
    show: Expression
    scope: str
    own: bool
    quorum: int
    editable: bool
    expires: timedelta | None
    webhook_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitAction:
    """Waits for a message from outside."""

    name: str
    type: str
    timeout: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerAction:
    """Waits for a time."""

    pause: timedelta | None
    at: Expression | None
    """Of a Timestamp or a Duration, as a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAction:
    """Runs another workflow."""

    workflow: str
    version: int
    input: Expression


Action = (
    CallAction
    | ComputeAction
    | CompositeAction
    | ApprovalAction
    | WaitAction
    | TimerAction
    | RunAction
)


class EdgeKind(Enum):
    """When a way is taken."""

    ALWAYS = "always"
    WHEN = "when"
    OTHERWISE = "otherwise"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEdge:
    """A way from a node to another."""

    number: int
    """Its place among the workflow's ways, and in `Plan.graph`."""
    source: str
    target: str
    kind: EdgeKind
    condition: Expression | None
    back: bool
    """Whether it leads back (`Graph.back`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanNode:
    """A step."""

    id: str
    number: int
    """Its place among the workflow's nodes, and in `Plan.graph`."""
    action: Action
    needed: int | None
    """How many of its ways in have to be taken, of those that do not lead back; None: all have to be known, and one taken."""
    max_visits: int | None
    """How often it may be visited; None: as often as the loops around it go round."""
    timeout: timedelta | None
    """Of an attempt, where the workflow says one."""
    compensation: CallAction | None
    ways_in: tuple[PlanEdge, ...]
    ways_out: tuple[PlanEdge, ...]
    output_type: str
    """Full name of the message type it gives; "list(NAME)" of for-each nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A compiled workflow."""

    name: str
    version: int
    digest: str
    """SHA-256 of what was submitted, in hexadecimal digits."""
    types: MessageTypes
    """Messages of all types that runs of it meet."""
    graph: Graph
    """How its ways lie."""
    nodes: Mapping[str, PlanNode]
    begin: tuple[str, ...]
    """Nodes to which no way leads, in the order of the workflow."""
    input_type: str
    output: Expression | None
    output_type: str
    max_duration: timedelta
