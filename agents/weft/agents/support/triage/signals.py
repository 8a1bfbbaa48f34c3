"""Judging a text by signals: patterns that speak for a class, each with a weight in log-odds.

The weights of all signals found in a text add up, and a softmax turns the sums into probabilities. A class with no
signal keeps its prior. This is a log-linear model whose weights were set by hand, and it is marked as such by
confidences that stay modest unless signals agree.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Class = TypeVar("Class")


@dataclass(frozen=True, slots=True)
class Signal(Generic[Class]):
    """A pattern of lower-case text that speaks for a class."""

    speaks_for: Class
    weight: float
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement(Generic[Class]):
    """The most probable class and its probability."""

    value: Class
    confidence: float


def signal(speaks_for: Class, weight: float, *patterns: str) -> Signal[Class]:
    """A signal that any of the patterns gives; a pattern matches whole words."""
    return Signal(speaks_for, weight, re.compile(rf"\b(?:{'|'.join(patterns)})(?!\w)"))


def judge(
    text: str, priors: Mapping[Class, float], signals: Sequence[Signal[Class]]
) -> Judgement[Class]:
    """Adds up what the signals in `text` say; the first of equals in `priors` wins."""
    lowered = text.lower().replace("\u2019", "'")  # the typographic apostrophe
    scores = dict(priors)
    for one in signals:
        if one.pattern.search(lowered):
            scores[one.speaks_for] += one.weight
    best = max(scores, key=lambda value: scores[value])
    total = sum(math.exp(score - scores[best]) for score in scores.values())
    return Judgement(value=best, confidence=1.0 / total)
