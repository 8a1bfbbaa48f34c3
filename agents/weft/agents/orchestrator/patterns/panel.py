"""Experts report each by itself, and one brings the reports together and says on which it rests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from weft.agents.orchestrator.patterns.answers import counts, normal, share
from weft.agents.orchestrator.patterns.asking import Heard, ask, hear, opinion_of, too_few
from weft.agents.orchestrator.patterns.shuffling import shuffled
from weft.agents.orchestrator.plan.model import Scope
from weft.agents.orchestrator.plan.patterns import PanelPlan
from weft.agents.orchestrator.run.composite import Done, Finished, Part
from weft.v1.workflow_pb2 import Opinion, PanelResult, Report, StepFailure

_SYNTHESIS = "synthesis"


class Panel:
    """The composite of panels. Parts: "expert/NAME", then "synthesis"."""

    def __init__(self, plan: PanelPlan) -> None:
        self._plan = plan

    def begin(self, scope: Scope, seed: int) -> _Course:
        """Begins a visit. Raises ExpressionFailed where the question cannot be computed."""
        return _Course(self._plan, self._plan.question.text(scope), seed)


class _Course:
    def __init__(self, plan: PanelPlan, question: str, seed: int) -> None:
        self._plan, self._question, self._seed = plan, question, seed

    def next(self, done: Mapping[str, Done]) -> Sequence[Part] | Finished:
        experts = self._plan.experts
        heard = hear(((each.name, _key(each.name)) for each in experts), done)
        possible = len(heard.opinions) + len(heard.open)
        if possible < self._plan.least:
            return too_few(possible, self._plan.least, heard.failures)
        if heard.open:
            return [ask(each, _key(each.name), self._question) for each in experts]
        # Ids follow a shuffled order of the names: neither they nor the order tell who wrote a report.
        names = shuffled(heard.opinions, f"{self._seed}/reports", str)
        authors = {f"r{place}": name for place, name in enumerate(names, 1)}
        reports = [Report(id=id_, opinion=heard.opinions[name]) for id_, name in authors.items()]
        ended = done.get(_SYNTHESIS)
        if ended is None:
            part = ask(self._plan.synthesizer, _SYNTHESIS, self._question, turn=1, reports=reports)
            return [part]
        synthesis = opinion_of(ended)
        if isinstance(synthesis, StepFailure):
            return Finished(failure=synthesis)
        return _result(synthesis, reports, authors, heard)


def _result(
    synthesis: Opinion, reports: Sequence[Report], authors: Mapping[str, str], heard: Heard
) -> Finished:
    cited = [each.strip().strip("[]") for each in synthesis.evidence if each.strip()]
    if not any(each in authors for each in cited):
        text = f"The synthesis rests on none of the reports {', '.join(authors)}."
        failure = StepFailure(code="FAILED_PRECONDITION", reason="NO_EVIDENCE", message=text)
        return Finished(failure=failure)
    answer = normal(synthesis.answer)
    answers = counts(each.opinion for each in reports)
    given = {each.id: normal(each.opinion.answer) for each in reports}
    return Finished(
        output=PanelResult(
            synthesis=synthesis,
            reports=reports,
            authors=authors,
            dissent=[id_ for id_, other in given.items() if other and other != answer],
            confidence=share(answer, answers) if answer else 0.0,
            unknown_evidence=[each for each in dict.fromkeys(cited) if each not in authors],
            failures=heard.failures,
        )
    )


def _key(name: str) -> str:
    return f"expert/{name}"
