"""Whom the supervisor leads."""

from __future__ import annotations

from dataclasses import dataclass

from weft.agents.support.outgoing import Sends
from weft.support.v1 import (
    escalation_pb2_grpc,
    quality_pb2_grpc,
    research_pb2_grpc,
    solution_pb2_grpc,
    triage_pb2_grpc,
)
from weft.v1 import orchestrator_pb2_grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Stubs of the agents that the supervisor leads, and the means to send messages, where there are any.

    Attributes:
        orchestrator: runs the pipeline, and says what is true of its runs; None: there is none.
    """

    triage: triage_pb2_grpc.TriageServiceAsyncStub
    research: research_pb2_grpc.ResearchServiceAsyncStub
    solution: solution_pb2_grpc.SolutionServiceAsyncStub
    quality: quality_pb2_grpc.QualityServiceAsyncStub
    escalation: escalation_pb2_grpc.EscalationServiceAsyncStub
    orchestrator: orchestrator_pb2_grpc.OrchestratorServiceAsyncStub | None = None
    send: Sends | None = None
