"""How sure an answer is, from how far independent participants agree.

What participants say of their own certainty does not count: it is too high, and adds close to nothing (2404.09127). Votes
that came after participants saw each other's answers do not count either: they say how far participants conform. Raw
shares of votes are too high where few vote or errors are shared. So the independent votes are read as draws with a
beta-binomial distribution: how often a participant is right differs from question to question, and votes that are
correlated are worth fewer (the design effect of cluster samples, 1 + (n - 1) * CORRELATION). The confidence is the
posterior probability of the answer among those that were given and at least one that nobody gave.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, lgamma, log
from typing import Final

# These were fitted to the simulation of benchmarks/debate.py, with another seed than it is reported with.
RIGHT: Final = 6.0
WRONG: Final = 3.0
"""Participants are right as often as Beta(RIGHT, WRONG) says: in the mean two of three times."""
CORRELATION: Final = 0.3
"""Of two participants' votes."""
FEWEST: Final = 3
"""Answers that are thought possible at least, those that nobody gave among them."""


def confidence(answer: str, independent: Mapping[str, int]) -> float:
    """How sure an answer is, 0 to 1.

    Args:
        answer: the answer, normalised; empty: there is none, and nothing is sure.
        independent: how many gave each answer before they saw any other.
    """
    if not answer:
        return 0.0
    votes = {answer: 0, **independent}
    each_worth = 1 / (1 + (sum(votes.values()) - 1) * CORRELATION)
    total = sum(votes.values()) * each_worth
    possible = max(len(votes) + 1, FEWEST)
    likelihoods = {
        each: _likelihood(has * each_worth, total, possible) for each, has in votes.items()
    }
    unseen = (possible - len(votes)) * _likelihood(0.0, total, possible)
    return likelihoods[answer] / (sum(likelihoods.values()) + unseen)


def _likelihood(votes: float, total: float, possible: int) -> float:
    """Of so many votes for the right answer, and the rest spread over the wrong ones."""
    wrong = total - votes
    right = lgamma(RIGHT + votes) + lgamma(WRONG + wrong) - lgamma(RIGHT + WRONG + total)
    return exp(right - wrong * log(possible - 1))
