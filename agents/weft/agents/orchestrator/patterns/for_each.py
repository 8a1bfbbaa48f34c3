"""A skill called for each item of a list, or several skills beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.message import Message

from weft.agents.orchestrator.plan.model import Scope
from weft.agents.orchestrator.plan.patterns import ForEachPlan
from weft.agents.orchestrator.run.composite import Done, Finished, Part
from weft.v1.workflow_pb2 import StepFailure


class ForEach:
    """The composite of for-each nodes. Parts have the places of their items as keys: "0", "1" and so on.

    It waits for all items, and fails as soon as too many have failed for `least` to succeed.
    """

    def __init__(self, plan: ForEachPlan) -> None:
        self._plan = plan

    def begin(self, scope: Scope, seed: int) -> _Course:  # noqa: ARG002  there is no chance in it
        """Begins a visit. Raises ExpressionFailed where the list cannot be computed."""
        plan = self._plan
        if plan.over is None:
            return _Course(plan, [Part(key=str(at), call=c) for at, c in enumerate(plan.calls)])
        call = plan.calls[0]
        items = plan.over.items(scope)
        if len(items) > plan.most:
            text = f"The list has {len(items):,} items; at most {plan.most:,} are allowed."
            return _Course(plan, [], _failure("OUT_OF_RANGE", "TOO_MANY_ITEMS", text))
        parts = [
            Part(key=str(at), call=call, variables={"item": item, "index": at})
            for at, item in enumerate(items)
        ]
        return _Course(plan, parts)


class _Course:
    """A visit: which parts are under way, and how many failed. Both follow from what is done."""

    def __init__(
        self, plan: ForEachPlan, parts: Sequence[Part], failure: StepFailure | None = None
    ) -> None:
        self._parts = parts
        self._at_once = plan.at_once
        self._least = len(parts) if plan.least is None else plan.least
        self._begun = 0
        self._under_way: list[Part] = []
        self._failed = 0
        self._failure = failure
        if failure is None and self._least > len(parts):
            text = f"{self._least} have to succeed, and there are {len(parts)} items."
            self._failure = _failure("FAILED_PRECONDITION", "TOO_FEW_ITEMS", text)

    def next(self, done: Mapping[str, Done]) -> Sequence[Part] | Finished:
        if self._failure is not None:
            return Finished(failure=self._failure)
        self._take(done)
        while len(self._under_way) < self._at_once and self._begun < len(self._parts):
            self._under_way.append(self._parts[self._begun])
            self._begun += 1
            if self._under_way[-1].key in done:
                self._take(done)
        if len(self._parts) - self._failed < self._least:
            return Finished(failure=self._first_failure(done))
        if not self._under_way:
            return Finished(output=self._given(done))
        return self._under_way

    def _take(self, done: Mapping[str, Done]) -> None:
        rest: list[Part] = []
        for part in self._under_way:
            ended = done.get(part.key)
            if ended is None:
                rest.append(part)
            elif ended.failure is not None:
                self._failed += 1
        self._under_way = rest

    def _first_failure(self, done: Mapping[str, Done]) -> StepFailure:
        for part in self._parts:
            ended = done.get(part.key)
            if ended is not None and ended.failure is not None:
                failure = StepFailure()
                failure.CopyFrom(ended.failure)
                failure.message = f"Item {part.key}: {failure.message}"
                return failure
        raise AssertionError("no part failed")

    def _given(self, done: Mapping[str, Done]) -> list[Message]:
        ended = (done[part.key].message for part in self._parts)
        return [message for message in ended if message is not None]


def _failure(code: str, reason: str, message: str) -> StepFailure:
    return StepFailure(code=code, reason=reason, message=message)
