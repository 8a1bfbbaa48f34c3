"""The seam between the agent and whatever composes: rules that extract, or a model that writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from weft.support.v1.support_pb2 import Answer, Assessment, Finding, Origin, Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """What to answer, and from what.

    Attributes:
        question: the customer's.
        passages: to answer from, best first.
        assessment: what triage found.
        findings: what quality found in an earlier answer.
        earlier: that answer; empty: the one that rules make of the same brief without findings.
        extractive: whether sentences are to be taken as they stand, though there is a model.
        expire: when whoever asked stops waiting; None: when the deadline of the call says.
    """

    question: str
    passages: Sequence[Passage]
    assessment: Assessment
    findings: Sequence[Finding]
    earlier: Answer = field(default_factory=Answer)
    extractive: bool = False
    expire: Timestamp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Sentences that rest on the same words of a passage; `quote` gives the words as they stand there."""

    sentences: tuple[str, ...]
    passage: Passage
    quote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An answer. No runs: there is none, and the confidence is 0.

    Attributes:
        model: that wrote it; empty: none did.
        degraded: why it was not made as it should have been, for people; empty: it was.
    """

    runs: tuple[Run, ...]
    origin: Origin.ValueType
    confidence: float
    model: str = ""
    degraded: str = ""


class Composer(Protocol):
    """Composes answers."""

    async def compose(self, brief: Brief) -> Draft:
        """Composes an answer to a question from passages, and from nothing else."""
        ...
