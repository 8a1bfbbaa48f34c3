"""Steps of a workflow and the ways between them, as Python writes them: `a >> b`, `a.when("...") >> c`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, overload

from weft.v1.workflow_pb2 import Edge, Node

Put: TypeAlias = Callable[[Edge], None]


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Several steps beside each other: `a >> flow.all_of(b, c) >> d`."""

    steps: tuple[Step, ...]

    @overload
    def __rshift__(self, other: Step) -> Step: ...
    @overload
    def __rshift__(self, other: Steps) -> Steps: ...
    def __rshift__(self, other: Step | Steps) -> Step | Steps:
        for step in self.steps:
            step >> other
        return other


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """A way that is still to lead somewhere: `triage.when("triage.urgent") >> escalate`."""

    put: Put = field(repr=False)
    edge: Edge

    @overload
    def __rshift__(self, other: Step) -> Step: ...
    @overload
    def __rshift__(self, other: Steps) -> Steps: ...
    def __rshift__(self, other: Step | Steps) -> Step | Steps:
        for step in _each(other):
            edge = Edge()
            edge.CopyFrom(self.edge)
            edge.to = step.id
            self.put(edge)
        return other


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A step. Its id names what it gave in expressions."""

    id: str
    node: Node = field(repr=False)
    put: Put = field(repr=False)

    @overload
    def __rshift__(self, other: Step) -> Step: ...
    @overload
    def __rshift__(self, other: Steps) -> Steps: ...
    def __rshift__(self, other: Step | Steps) -> Step | Steps:
        return Way(self.put, _edge(self.id)) >> other

    def when(self, expression: str) -> Way:
        """The way that is taken where an expression, a bool, is true; the first of a step's that holds."""
        return Way(self.put, _edge(self.id, when=expression))

    @property
    def otherwise(self) -> Way:
        """The way that is taken where no condition of the step's other ways holds."""
        return Way(self.put, _edge(self.id, otherwise=True))

    @property
    def failed(self) -> Way:
        """The way that is taken where the step failed, retries and all."""
        return Way(self.put, _edge(self.id, failed=True))

    def __and__(self, other: Step) -> Steps:
        """Both, beside each other: `a >> (b & c) >> d`."""
        return Steps((self, other))


def _edge(source: str, **condition: Any) -> Edge:
    edge = Edge(**condition)
    setattr(edge, "from", source)  # a word of Python
    return edge


def _each(given: Step | Steps) -> Sequence[Step]:
    return given.steps if isinstance(given, Steps) else (given,)
