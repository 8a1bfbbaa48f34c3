"""What came out of a step, in a few words for people."""

from __future__ import annotations

from google.protobuf.message import Message

from weft.support.v1 import (
    escalation_pb2,
    quality_pb2,
    research_pb2,
    solution_pb2,
    support_pb2,
    triage_pb2,
)


def summary_of(given: Message | None) -> str:
    """A few words on a response of a skill; what is not of the fleet is not told."""
    match given:
        case triage_pb2.ClassifyResponse():
            return _assessed(given.assessment)
        case research_pb2.SearchResponse():
            best = given.passages[0].passage_id if given.passages else ""
            return f"{len(given.passages)} passages, best {best}" if best else "no passage"
        case solution_pb2.ComposeResponse():
            return _composed(given.answer)
        case quality_pb2.ReviewResponse():
            return _judged(given.verdict)
        case escalation_pb2.OpenTicketResponse():
            return f"ticket {given.ticket.ticket_id}"
        case _:
            return "done"


def _assessed(assessment: support_pb2.Assessment) -> str:
    urgency = support_pb2.Urgency.Name(assessment.urgency).removeprefix("URGENCY_").lower()
    found = f"{assessment.intent.value} ({assessment.intent.confidence:.2f}), {urgency}"
    return found + _made(f", by {assessment.model}" * bool(assessment.model), assessment.degraded)


def _composed(answer: support_pb2.Answer) -> str:
    if not answer.text:
        return "no passage fits" + _made("", answer.degraded)
    by = f", by {answer.model}" if answer.model else ", sentences as they stand"
    found = f"{len(answer.citations)} citations, confidence {answer.confidence:.2f}"
    return found + _made(by, answer.degraded)


def _made(by: str, degraded: str) -> str:
    return f"{by}. {degraded}" if degraded else by


def _judged(verdict: support_pb2.Verdict) -> str:
    decision = support_pb2.Decision.Name(verdict.decision).removeprefix("DECISION_").lower()
    found = " ".join(f"{finding.check}: {finding.detail}" for finding in verdict.findings)
    return f"{decision}: {found}" if found else decision
