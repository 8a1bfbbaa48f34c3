"""A supervisor says who does what next, until it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from weft.agents.orchestrator.patterns.asking import ask, opinion_of
from weft.agents.orchestrator.plan.model import Scope
from weft.agents.orchestrator.plan.patterns import SupervisionPlan
from weft.agents.orchestrator.run.composite import Done, Finished, Part
from weft.v1.workflow_pb2 import Contribution, Opinion, StepFailure, SupervisionResult


class Supervision:
    """The composite of supervisions. Parts: "turn0", "task0/NAME", "turn1" and so on."""

    def __init__(self, plan: SupervisionPlan) -> None:
        self._plan = plan

    def begin(self, scope: Scope, seed: int) -> _Course:  # noqa: ARG002  there is no chance in it
        """Begins a visit. Raises ExpressionFailed where the question cannot be computed."""
        return _Course(self._plan, self._plan.question.text(scope))


class _Course:
    def __init__(self, plan: SupervisionPlan, question: str) -> None:
        self._plan, self._question = plan, question
        self._workers = {each.name: each for each in plan.workers}
        self._made: list[Contribution] = []

    def next(self, done: Mapping[str, Done]) -> Sequence[Part] | Finished:
        while True:
            turn = f"turn{len(self._made)}"
            ended = done.get(turn)
            if ended is None:
                return [self._turn(turn)]
            order = opinion_of(ended)
            if isinstance(order, StepFailure):
                return Finished(failure=order)
            name = order.answer.strip()
            if not name:
                return self._result(order.argument, finished=True)
            if len(self._made) >= self._plan.most:
                return self._result("", finished=False)
            made = self._work(name, order.argument, done)
            if isinstance(made, Part):
                return [made]
            self._made.append(made)

    def _turn(self, key: str) -> Part:
        return ask(
            self._plan.supervisor,
            key,
            self._question,
            turn=len(self._made),
            done=list(self._made),
            workers=list(self._workers),
        )

    def _work(self, name: str, task: str, done: Mapping[str, Done]) -> Contribution | Part:
        made = Contribution(worker=name, task=task)
        worker = self._workers.get(name)
        if worker is None:
            text = f"There is no worker {name!r}; there are {', '.join(self._workers)}."
            failure = StepFailure(code="NOT_FOUND", reason="UNKNOWN_WORKER", message=text)
            made.failure.CopyFrom(failure)
            return made
        number = len(self._made)
        key = f"task{number}/{name}"
        ended = done.get(key)
        if ended is None:
            return ask(worker, key, self._question, turn=number, task=task)
        said = opinion_of(ended)
        if isinstance(said, Opinion):
            made.opinion.CopyFrom(said)
        else:
            made.failure.CopyFrom(said)
        return made

    def _result(self, result: str, *, finished: bool) -> Finished:
        output = SupervisionResult(result=result, finished=finished, contributions=self._made)
        return Finished(output=output)
