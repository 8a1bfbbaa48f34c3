"""One answers, another verifies, the first revises; the draft with the best score counts, not the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from weft.agents.orchestrator.patterns.asking import ask, opinion_of
from weft.agents.orchestrator.patterns.changes import names_error
from weft.agents.orchestrator.patterns.voting import score_of
from weft.agents.orchestrator.plan.model import Scope
from weft.agents.orchestrator.plan.patterns import VerificationPlan
from weft.agents.orchestrator.run.composite import Done, Finished, Part
from weft.v1.workflow_pb2 import Opinion, StepFailure, VerificationResult


class Verification:
    """The composite of verifications. Parts: "draft0", "verdict0", "draft1", "verdict1" and so on."""

    def __init__(self, plan: VerificationPlan) -> None:
        self._plan = plan

    def begin(self, scope: Scope, seed: int) -> _Course:  # noqa: ARG002  there is no chance in it
        """Begins a visit. Raises ExpressionFailed where the question cannot be computed."""
        return _Course(self._plan, self._plan.question.text(scope))


class _Course:
    def __init__(self, plan: VerificationPlan, question: str) -> None:
        self._plan, self._question = plan, question

    def next(self, done: Mapping[str, Done]) -> Sequence[Part] | Finished:
        drafts: list[Opinion] = []
        verdicts: list[Opinion] = []
        while not (stopped := self._stopped(verdicts)):
            number = len(verdicts)
            part = self._part(drafts, verdicts)
            ended = done.get(part.key)
            if ended is None:
                return [part]
            said = opinion_of(ended)
            if isinstance(said, StepFailure):
                if not verdicts:
                    return Finished(failure=said)
                stopped = "failed"
                break
            (drafts if len(drafts) == number else verdicts).append(said)
        return Finished(output=self._result(stopped, drafts, verdicts))

    def _part(self, drafts: Sequence[Opinion], verdicts: Sequence[Opinion]) -> Part:
        plan, number = self._plan, len(verdicts)
        if len(drafts) == number:
            issues = list(verdicts[-1].errors_named) if verdicts else []
            draft = drafts[-1] if drafts else Opinion()
            key = f"draft{number}"
            return ask(plan.author, key, self._question, turn=number, issues=issues, draft=draft)
        # The author's reasons and its opinion of itself would be believed: the verifier sees the answer only.
        draft = Opinion()
        draft.CopyFrom(drafts[-1])
        draft.ClearField("argument")
        draft.ClearField("score")
        key = f"verdict{number}"
        return ask(plan.verifier, key, self._question, turn=number, draft=draft)

    def _stopped(self, verdicts: Sequence[Opinion]) -> str:
        """Why there is no further draft; empty: there is one."""
        if not verdicts:
            return ""
        scores = [score_of(each) for each in verdicts]
        if scores[-1] >= self._plan.enough:
            return "verified"
        if len(scores) > 1 and scores[-1] <= max(scores[:-1]):
            return "no gain"
        if len(scores) > self._plan.revisions:
            return "revisions"
        # Revising what nobody found an error in makes answers worse as often as better (2310.01798).
        return "" if names_error(verdicts[-1]) else "no gain"

    def _result(
        self, stopped: str, drafts: Sequence[Opinion], verdicts: Sequence[Opinion]
    ) -> VerificationResult:
        scores = [score_of(each) for each in verdicts]
        best = scores.index(max(scores))
        return VerificationResult(
            answer=drafts[best],
            verified=scores[best] >= self._plan.enough,
            score=scores[best],
            issues=verdicts[best].errors_named,
            drafts=drafts,
            verdicts=verdicts,
            stopped=stopped,
        )
