"""From opinions to an answer: the rules of votes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from weft.agents.orchestrator.patterns.answers import counts, normal
from weft.v1.workflow_pb2 import DecisionRule, Opinion

_EQUAL = 1e-9  # points that differ by less are equal


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a vote gave.

    Attributes:
        winner: the answer, normalised; empty: there is none.
        tied: answers that none of is before the others; empty where there is a winner, or where nobody decides between
            answers.
    """

    winner: str = ""
    tied: tuple[str, ...] = ()


def vote(rule: DecisionRule.ValueType, opinions: Sequence[Opinion]) -> Outcome:
    """The outcome by a rule; by JUDGE all answers are tied, for the judge decides between them."""
    answers = counts(opinions)
    if len(answers) == 1:
        return Outcome(winner=next(iter(answers)))
    match rule:
        case DecisionRule.DECISION_RULE_UNANIMITY:
            return Outcome()
        case DecisionRule.DECISION_RULE_JUDGE:
            return Outcome(tied=tuple(sorted(answers)))
        case DecisionRule.DECISION_RULE_RANKED:
            return _best(_borda(opinions))
        case DecisionRule.DECISION_RULE_WEIGHTED:
            return _best(_weighted(opinions))
        case _:
            return _best({answer: float(votes) for answer, votes in answers.items()})


def _best(points: dict[str, float]) -> Outcome:
    most = max(points.values(), default=0.0)
    first = sorted(answer for answer, has in points.items() if has >= most - _EQUAL)
    return Outcome(winner=first[0]) if len(first) == 1 else Outcome(tied=tuple(first))


def _borda(opinions: Sequence[Opinion]) -> dict[str, float]:
    """Points by rank, among answers that somebody gave: of m answers the first gets m-1, the last none.

    Who ranks some of them only leaves to the rest, each, the mean of the points that remain: nobody gains by keeping
    silent of others.
    """
    points = dict.fromkeys(counts(opinions), 0.0)
    for opinion in opinions:
        ballot = dict.fromkeys(normal(each) for each in (opinion.answer, *opinion.ranking))
        ranked = [answer for answer in ballot if answer in points]
        rest = points.keys() - ranked
        for place, answer in enumerate(ranked):
            points[answer] += len(points) - 1 - place
        for answer in rest:
            points[answer] += (len(rest) - 1) / 2
    return points


def _weighted(opinions: Sequence[Opinion]) -> dict[str, float]:
    """Votes that weigh as scores say; one without a score weighs as the others do in the mean."""
    scores = [score_of(each) for each in opinions]
    said = [score for score in scores if score > 0]
    mean = sum(said) / len(said) if said else 1.0
    points = dict.fromkeys(counts(opinions), 0.0)
    for opinion, score in zip(opinions, scores, strict=True):
        points[normal(opinion.answer)] += score or mean
    return points


def score_of(opinion: Opinion) -> float:
    """A score within 0 to 1; what is no number is 0."""
    return 0.0 if math.isnan(opinion.score) else min(max(opinion.score, 0.0), 1.0)
