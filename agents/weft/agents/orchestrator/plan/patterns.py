"""Nodes that are made of parts, as they are compiled: what their composites begin with."""

from __future__ import annotations

from dataclasses import dataclass

from weft.agents.orchestrator.plan.model import CallAction, Expression
from weft.v1.workflow_pb2 import DecisionRule


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantPlan:
    """An agent in a pattern."""

    name: str
    call: CallAction
    opinion: Expression | None
    """Of a weft.v1.Opinion, where `reply` is the response; None: the response is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForEachPlan:
    """Something to be done for each of several."""

    over: Expression | None
    """Of the list; None: every call once."""
    calls: tuple[CallAction, ...]
    at_once: int
    least: int | None
    """How many have to succeed; None: all."""
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DebatePlan:
    """A debate."""

    question: Expression
    participants: tuple[ParticipantPlan, ...]
    rounds: int
    """After the independent one."""
    rule: DecisionRule.ValueType
    """Never UNSPECIFIED."""
    judge: ParticipantPlan | None
    least: int
    seed: int
    """0: the run's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelPlan:
    """A panel."""

    question: Expression
    experts: tuple[ParticipantPlan, ...]
    synthesizer: ParticipantPlan
    least: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationPlan:
    """A verification."""

    question: Expression
    author: ParticipantPlan
    verifier: ParticipantPlan
    enough: float
    revisions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisionPlan:
    """A supervision."""

    question: Expression
    supervisor: ParticipantPlan
    workers: tuple[ParticipantPlan, ...]
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerReviewPlan:
    """A peer review."""

    question: Expression
    participants: tuple[ParticipantPlan, ...]
    reviews: int


PatternPlan = (
    ForEachPlan | DebatePlan | PanelPlan | VerificationPlan | SupervisionPlan | PeerReviewPlan
)
