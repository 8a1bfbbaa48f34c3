"""Answers that can be compared: equal text, equal answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from weft.v1.workflow_pb2 import Opinion, Position


def normal(answer: str) -> str:
    """The form in which answers are compared: case, space around them and ways to write an accent do not count."""
    return unicodedata.normalize("NFC", answer.strip().casefold())


def grouped(opinions: Iterable[Opinion]) -> dict[str, list[Opinion]]:
    """Opinions by answer, the most frequent first; of equally frequent ones the first in order of their text."""
    groups: dict[str, list[Opinion]] = {}
    for opinion in opinions:
        groups.setdefault(normal(opinion.answer), []).append(opinion)
    return dict(sorted(groups.items(), key=lambda each: (-len(each[1]), each[0])))


def counts(opinions: Iterable[Opinion]) -> dict[str, int]:
    """How many gave each answer."""
    return {answer: len(group) for answer, group in grouped(opinions).items()}


def position(group: Sequence[Opinion]) -> Position:
    """Opinions of one answer as others see them: without who gave them."""
    return Position(
        answer=group[0].answer.strip(),
        votes=len(group),
        arguments=[each.argument for each in group if each.argument],
        errors_named=[error for each in group for error in each.errors_named],
    )


def positions(opinions: Iterable[Opinion]) -> list[Position]:
    """The answers, the most frequent first."""
    return [position(group) for group in grouped(opinions).values()]


def share(answer: str, answers: Mapping[str, int]) -> float:
    """Share of those who gave an answer."""
    total = sum(answers.values())
    return answers.get(answer, 0) / total if total else 0.0
