"""The intent model: a linear support vector machine over TF-IDF, with confidences fitted on held-out examples.

Of the linear models tried on short customer texts this one was the most accurate for a training of a few seconds.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from weft.agents.support.triage.features import features
from weft.agents.support.triage.lesson import Example, Guess

_FOLDS = 5  # one of them is held out to fit the confidences
_LEAST_INTENTS = 2
_DEFAULT_TEMPERATURE = 0.25  # where there are too few examples to hold any out
_MOST_ITERATIONS = 2_000

Scores = NDArray[np.float32]


class IntentModel:
    """A trained model. Never changes, so any number of threads may ask it."""

    def __init__(
        self,
        *,
        intents: tuple[str, ...],
        examples: int,
        linear: _Linear,
        temperature: float,
    ) -> None:
        self.intents = intents
        self.examples = examples
        self._linear = linear
        self._temperature = temperature

    @classmethod
    def train(cls, examples: Sequence[Example]) -> Self:
        """Trains on examples of two intents or more. Takes seconds for thousands: call it off the event loop.

        Raises:
            ValueError: fewer than two intents.
        """
        intents = tuple(sorted({example.intent for example in examples}))
        if len(intents) < _LEAST_INTENTS:
            raise ValueError("a model needs examples of two intents or more")
        number = {intent: position for position, intent in enumerate(intents)}
        labels = np.array([number[example.intent] for example in examples])
        vectorizer = TfidfVectorizer(analyzer=features, sublinear_tf=True, dtype=np.float32)
        matrix = vectorizer.fit_transform([example.text for example in examples])
        return cls(
            intents=intents,
            examples=len(examples),
            linear=_Linear.fit(vectorizer, matrix, labels),
            temperature=_fit_temperature(vectorizer, matrix, labels),
        )

    def guesses(self, text: str, most: int = 5) -> list[Guess]:
        """The most probable intents of a text, best first."""
        scores = self._linear.scores(self._linear.vectorizer.transform([text]))[0]
        odds = np.exp((scores - scores.max()) / self._temperature)
        probabilities = odds / odds.sum()
        best = np.argsort(-probabilities, kind="stable")[:most]
        return [
            Guess(intent=self.intents[index], confidence=float(probabilities[index]))
            for index in best
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Linear:
    """One linear function of the features for each class."""

    vectorizer: TfidfVectorizer
    weights: Scores
    bias: Scores

    @classmethod
    def fit(cls, vectorizer: TfidfVectorizer, matrix: Any, labels: NDArray[np.int64]) -> Self:
        # The dual form, whatever the numbers: its time grows with the examples and hardly with the features.
        machine = LinearSVC(C=1.0, dual=True, max_iter=_MOST_ITERATIONS, random_state=0)
        with warnings.catch_warnings():
            # Contradicting labels never converge; the best found so far is then right.
            warnings.simplefilter("ignore", ConvergenceWarning)
            machine.fit(matrix, labels)
        weights, bias = machine.coef_, machine.intercept_
        if (
            len(machine.classes_) == _LEAST_INTENTS
        ):  # of two classes scikit-learn keeps only the second
            weights, bias = np.vstack([-weights, weights]), np.concatenate([-bias, bias])
        return cls(
            vectorizer=vectorizer,
            weights=np.ascontiguousarray(weights.T, dtype=np.float32),
            bias=bias.astype(np.float32),
        )

    def scores(self, matrix: Any) -> Scores:
        scores: Scores = matrix @ self.weights + self.bias
        return scores


def _fit_temperature(vectorizer: TfidfVectorizer, matrix: Any, labels: NDArray[np.int64]) -> float:
    """The softmax temperature under which held-out examples are least surprising (Guo et al. 2017)."""
    held_out = _held_out(labels)
    train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    known = np.unique(labels[train])
    if len(known) < _LEAST_INTENTS or len(test) < len(known):
        return _DEFAULT_TEMPERATURE
    scores = _Linear.fit(vectorizer, matrix[train], labels[train]).scores(matrix[test])
    truth = np.searchsorted(known, labels[test])

    def surprise(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        total = np.log(np.exp(scaled).sum(axis=1))
        return float((total - scaled[np.arange(len(truth)), truth]).mean())

    best = minimize_scalar(surprise, bounds=(np.log(0.02), np.log(5.0)), method="bounded")
    return float(np.exp(best.x))


def _held_out(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Marks every fifth example of each class, beginning with the second: a class of one is never held out."""
    seen: defaultdict[int, int] = defaultdict(int)
    marked = np.zeros(len(labels), dtype=bool)
    for position, label in enumerate(labels.tolist()):
        marked[position] = seen[label] % _FOLDS == 1
        seen[label] += 1
    return marked
