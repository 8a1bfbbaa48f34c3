"""Each answers and reviews the answers of others; who is told of an error revises; the best reviewed answer counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from weft.agents.orchestrator.patterns.answers import counts, normal, share
from weft.agents.orchestrator.patterns.asking import answered, ask, hear, too_few
from weft.agents.orchestrator.patterns.shuffling import shuffled
from weft.agents.orchestrator.patterns.voting import score_of
from weft.agents.orchestrator.plan.model import Scope
from weft.agents.orchestrator.plan.patterns import PeerReviewPlan
from weft.agents.orchestrator.run.composite import Done, Finished, Part
from weft.v1.workflow_pb2 import Opinion, PeerReviewResult, ReviewedAnswer

_LEAST: Final = 2


class PeerReview:
    """The composite of peer reviews.

    Parts: "answer/NAME", "review/NAME/REVIEWER", "revise/NAME", "review_again/NAME/REVIEWER".
    """

    def __init__(self, plan: PeerReviewPlan) -> None:
        self._plan = plan

    def begin(self, scope: Scope, seed: int) -> _Course:
        """Begins a visit. Raises ExpressionFailed where the question cannot be computed."""
        return _Course(self._plan, self._plan.question.text(scope), seed)


@dataclass(slots=True)
class _Paper:
    """An answer on its way."""

    draft: Opinion
    reviews: list[Opinion] = field(default_factory=list)
    revision: Opinion | None = None
    reviews_again: list[Opinion] = field(default_factory=list)

    @property
    def issues(self) -> list[str]:
        named = (error.strip() for each in self.reviews for error in each.errors_named)
        return [error for error in dict.fromkeys(named) if error]

    def best(self) -> tuple[Opinion, float]:
        """The draft or its revision, whichever has the better reviews, and their mean score."""
        score, again = _mean(self.reviews), _mean(self.reviews_again)
        if self.revision is not None and again > score:
            return self.revision, again
        return self.draft, score


class _Course:
    def __init__(self, plan: PeerReviewPlan, question: str, seed: int) -> None:
        self._plan, self._question, self._seed = plan, question, seed
        self._by_name = {each.name: each for each in plan.participants}

    def next(self, done: Mapping[str, Done]) -> Sequence[Part] | Finished:
        names = list(self._by_name)
        heard = hear(((name, f"answer/{name}") for name in names), done)
        papers = {name: _Paper(draft) for name, draft in answered(heard).items()}
        if len(papers) + len(heard.open) < _LEAST:
            return too_few(len(papers) + len(heard.open), _LEAST, heard.failures)
        if heard.open:
            return [self._ask(name, f"answer/{name}", "answer", 0) for name in names]
        pairs = self._pairs(list(papers))
        for name, paper in papers.items():
            paper.reviews = self._reviews("review", name, pairs[name], done) or []
        drafts = {name: each.draft for name, each in papers.items()}
        if parts := self._reviewing("review", drafts, pairs, done, 1):
            return parts
        revised = hear(
            ((name, f"revise/{name}") for name, each in papers.items() if each.issues), done
        )
        if revised.open:
            return [self._revise(name, papers[name]) for name in papers if papers[name].issues]
        revisions = answered(revised)
        for name, revision in revisions.items():
            papers[name].revision = revision
            found = self._reviews("review_again", name, pairs[name], done)
            papers[name].reviews_again = found or []
        if parts := self._reviewing("review_again", revisions, pairs, done, 3):
            return parts
        return Finished(output=_result(papers))

    def _pairs(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Who reviews whom: each the next ones in a circle that chance settles, so that all do as much."""
        circle = shuffled(names, f"{self._seed}/circle", str)
        several = min(self._plan.reviews, len(circle) - 1)
        return {
            name: [circle[(at + step) % len(circle)] for step in range(1, several + 1)]
            for at, name in enumerate(circle)
        }

    def _reviews(
        self, stage: str, name: str, reviewers: Sequence[str], done: Mapping[str, Done]
    ) -> list[Opinion] | None:
        """Reviews of an answer, in an order that does not tell whose they are; None: some have not ended."""
        heard = hear(((each, f"{stage}/{name}/{each}") for each in reviewers), done)
        if heard.open:
            return None
        order = shuffled(heard.opinions, f"{self._seed}/{stage}/{name}", str)
        return [heard.opinions[each] for each in order]

    def _reviewing(
        self,
        stage: str,
        answers: Mapping[str, Opinion],
        pairs: Mapping[str, Sequence[str]],
        done: Mapping[str, Done],
        turn: int,
    ) -> list[Part]:
        """The calls of reviewers; none once all have ended."""
        keys = {
            f"{stage}/{name}/{reviewer}": (reviewer, answer)
            for name, answer in answers.items()
            for reviewer in pairs[name]
        }
        if all(key in done for key in keys):
            return []
        return [
            self._ask(reviewer, key, "review", turn, draft=_unscored(answer))
            for key, (reviewer, answer) in keys.items()
        ]

    def _revise(self, name: str, paper: _Paper) -> Part:
        key = f"revise/{name}"
        return self._ask(name, key, "revise", 2, draft=paper.draft, issues=paper.issues)

    def _ask(
        self,
        name: str,
        key: str,
        stage: str,
        turn: int,
        *,
        draft: Opinion | None = None,
        issues: Sequence[str] = (),
    ) -> Part:
        return ask(
            self._by_name[name],
            key,
            self._question,
            turn=turn,
            stage=stage,
            draft=Opinion() if draft is None else draft,
            issues=list(issues),
        )


def _unscored(answer: Opinion) -> Opinion:
    """An answer without what its author thinks of it."""
    made = Opinion()
    made.CopyFrom(answer)
    made.ClearField("score")
    return made


def _mean(reviews: Sequence[Opinion]) -> float:
    return sum(score_of(each) for each in reviews) / len(reviews) if reviews else 0.0


def _result(papers: Mapping[str, _Paper]) -> PeerReviewResult:
    ends = {name: each.best() for name, each in papers.items()}
    answers = counts(opinion for opinion, _ in ends.values())

    def rank(name: str) -> tuple[float, int, str]:
        """The best reviewed first; of equals the answer of most, then the first in order of text."""
        opinion, score = ends[name]
        answer = normal(opinion.answer)
        return -score, -answers[answer], answer

    best, score = ends[min(ends, key=rank)]
    return PeerReviewResult(
        answer=best,
        score=score,
        confidence=share(normal(best.answer), answers),
        answers=[
            ReviewedAnswer(
                participant=name,
                draft=each.draft,
                revision=each.revision,
                reviews=each.reviews,
                revision_reviews=each.reviews_again,
            )
            for name, each in papers.items()
        ],
    )
