"""What a run would undo if it ended without a result now: the last step first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from google.protobuf.message import Message

from weft.agents.orchestrator.plan.model import CallAction, ExpressionFailed, Scope
from weft.agents.orchestrator.run import failures
from weft.agents.orchestrator.run.turns import OpenCall
from weft.v1.workflow_pb2 import StepFailure

UNDO = "~undo"


@dataclass(frozen=True, slots=True)
class _Undoable:
    """A step that was done and can be undone."""

    key: str
    call: CallAction
    scope: Scope


class Undoing(Sequence[OpenCall]):
    """The compensations of a run. Their requests are computed when they are looked at, which is seldom."""

    def __init__(self) -> None:
        self._steps: list[_Undoable] = []
        self._made: list[OpenCall] | None = None
        self._unmade: dict[str, StepFailure] = {}

    def add(self, key: str, call: CallAction, scope: Scope) -> None:
        """A step was done."""
        self._steps.append(_Undoable(key, call, scope))
        self._made = None

    def clear(self) -> None:
        """The run has a result: nothing is undone."""
        self._steps.clear()
        self._made = None

    def drop(self, key: str) -> bool:
        """A compensation has ended. Whether it was one that had not."""
        rest = [step for step in self._steps if step.key + UNDO != key]
        dropped = len(rest) < len(self._steps)
        self._steps = rest
        if dropped:
            self._made = None
        return dropped

    def cannot(self) -> dict[str, StepFailure]:
        """Compensations whose requests cannot be computed, by key, and why."""
        self._calls()
        return self._unmade

    def __len__(self) -> int:
        return len(self._calls())

    @overload
    def __getitem__(self, at: int) -> OpenCall: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[OpenCall]: ...
    def __getitem__(self, at: int | slice) -> OpenCall | Sequence[OpenCall]:
        return self._calls()[at]

    def _calls(self) -> list[OpenCall]:
        if self._made is None:
            self._made = []
            self._unmade.clear()
            for step in reversed(self._steps):
                key = step.key + UNDO
                try:
                    request = step.call.request.message(step.scope)
                except ExpressionFailed as failed:
                    self._unmade[key] = failures.of_expression(failed)
                else:
                    self._made.append(open_call(key, step.call, request, step.scope))
        return self._made


def open_call(key: str, call: CallAction, request: Message, scope: Scope) -> OpenCall:
    """A call of a node itself, not of a part of it."""
    return OpenCall(
        key=key,
        call=call,
        request=request,
        retry=call.retry,
        timeout=call.timeout,
        reply=None,
        scope=scope,
    )
