"""The seam between the agent and whatever composes: rules that extract, or a model that writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from weft.support.v1.support_pb2 import Assessment, Finding, Origin, Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """What to answer, and from what.

    Attributes:
        question: the customer's.
        passages: to answer from, best first.
        assessment: what triage found.
        findings: what quality found in the answer to the same brief without findings.
    """

    question: str
    passages: Sequence[Passage]
    assessment: Assessment
    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Sentences that rest on the same words of a passage; `quote` gives the words as they stand there."""

    sentences: tuple[str, ...]
    passage: Passage
    quote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An answer. No runs: there is none, and the confidence is 0."""

    runs: tuple[Run, ...]
    origin: Origin.ValueType
    confidence: float


class Composer(Protocol):
    """Composes answers."""

    async def compose(self, brief: Brief) -> Draft:
        """Composes an answer to a question from passages, and from nothing else."""
        ...
