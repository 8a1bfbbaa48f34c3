"""One exchange with a customer: triage, research, solution, quality, and a person where one is needed.

Every step may fail; what it would have given is then missing, the others go on, and a person is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from weft import rpc
from weft.agents.support.fields import MOST_TEXT
from weft.agents.support.outgoing import Sends
from weft.agents.support.supervisor import wording
from weft.agents.support.supervisor.budget import Budget
from weft.agents.support.supervisor.route import Route
from weft.support.v1 import (
    escalation_pb2,
    escalation_pb2_grpc,
    quality_pb2,
    quality_pb2_grpc,
    research_pb2,
    research_pb2_grpc,
    solution_pb2,
    solution_pb2_grpc,
    support_pb2,
    triage_pb2,
    triage_pb2_grpc,
)

# The conversation so far, triage, research, and two rounds of solution and quality.
STEPS = 7
_PASSAGES = 8
_MOST_QUERY = 2_000
_MOST_REASON = 2_000
_SURE_INTENT = 0.5
_LOW_CONFIDENCE = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Stubs of the agents that the supervisor leads, and the means to send messages, where there are any."""

    triage: triage_pb2_grpc.TriageServiceAsyncStub
    research: research_pb2_grpc.ResearchServiceAsyncStub
    solution: solution_pb2_grpc.SolutionServiceAsyncStub
    quality: quality_pb2_grpc.QualityServiceAsyncStub
    escalation: escalation_pb2_grpc.EscalationServiceAsyncStub
    send: Sends | None = None


@dataclass(slots=True, kw_only=True)
class Exchange:
    """A question on its way to an answer.

    Attributes:
        text: what the customer wrote.
        question: the same with the context it needs.
        ticket_request: UUID of the ticket, should one be needed.
        reasons: why a person must look at it.
    """

    fleet: Fleet
    budget: Budget
    route: Route
    conversation_id: str
    text: str
    question: str
    ticket_request: str
    assessment: support_pb2.Assessment | None = None
    verdict: support_pb2.Verdict | None = None
    ticket_id: str = ""
    ticket_sent: bool = False
    reasons: list[str] = field(default_factory=list)

    async def answer(self) -> support_pb2.Answer:
        """Takes all steps and returns what to tell the customer."""
        self.assessment = await self._classify()
        passages = await self._search()
        found = await self._solve(passages)
        reasons = [*self.reasons, *self.route.missing]
        if found is not None and self._critical():
            reasons.append("Money or access is at risk.")
        if found is not None and found.confidence < _LOW_CONFIDENCE and not self.route.missing:
            reasons.append(f"The answer is uncertain: confidence {found.confidence:.2f}.")
        if not reasons:
            assert found is not None, "an answer that is missing has a reason"
            return found
        self.ticket_id = await self._open_ticket(" ".join(reasons)[:_MOST_REASON])
        if found is None:
            return wording.without_answer(ticket=self._somebody_is_told())
        return wording.with_ticket(found, ticket=self._somebody_is_told())

    async def _classify(self) -> support_pb2.Assessment | None:
        response = await self.route.take(
            "support-triage",
            self.fleet.triage.Classify,
            triage_pb2.ClassifyRequest(text=self.text),
            name="Classify",
            within=self.budget.next_share(),
            summary=lambda said: _assessed(said.assessment),
            lost="The request was not classified",
        )
        return response.assessment if response else None

    async def _search(self) -> Sequence[support_pb2.Passage] | None:
        intent = self.assessment.intent if self.assessment else support_pb2.Scored()
        response = await self.route.take(
            "support-research",
            self.fleet.research.Search,
            research_pb2.SearchRequest(
                query=self.question[:_MOST_QUERY],
                limit=_PASSAGES,
                intent=intent.value if intent.confidence >= _SURE_INTENT else "",
            ),
            name="Search",
            within=self.budget.next_share(),
            summary=lambda said: _found(said.passages),
            lost="The knowledge base was not searched",
        )
        return response.passages if response else None

    async def _solve(
        self, passages: Sequence[support_pb2.Passage] | None
    ) -> support_pb2.Answer | None:
        """An answer fit to send, or None and a reason."""
        if not passages:
            if passages is not None:
                self.reasons.append("No article fits the question.")
            self.route.skip("support-solution", "Compose", "there is nothing to answer from")
            self.route.skip("support-quality", "Review", "there is no answer")
            return None
        answer = await self._compose(passages)
        if answer is None:
            self.route.skip("support-quality", "Review", "there is no answer")
            return wording.pointing_at(passages)
        if not answer.text:
            self.reasons.append("No article fits the question.")
            self.route.skip("support-quality", "Review", "there is no answer")
            return None
        return await self._reviewed(passages, answer)

    async def _reviewed(
        self, passages: Sequence[support_pb2.Passage], answer: support_pb2.Answer
    ) -> support_pb2.Answer | None:
        """The answer, revised once if quality asks for it; None if it must not be sent."""
        self.verdict = await self._review(passages, answer)
        if self.verdict is None:
            # Words of the knowledge base as they stand may go out unreviewed; a model's may not.
            return answer if answer.origin == support_pb2.ORIGIN_EXTRACTIVE else None
        if self.verdict.decision == support_pb2.DECISION_REVISE:
            revised = await self._compose(passages, self.verdict.findings)
            if revised is None or not revised.text:
                self.reasons.append(f"Quality: {_findings(self.verdict)}")
                return None
            answer = revised
            self.verdict = await self._review(passages, answer)
        if self.verdict is None or self.verdict.decision != support_pb2.DECISION_PASS:
            self.reasons.append(f"Quality: {_findings(self.verdict)}")
            return None
        return answer

    async def _compose(
        self,
        passages: Sequence[support_pb2.Passage],
        findings: Sequence[support_pb2.Finding] = (),
    ) -> support_pb2.Answer | None:
        response = await self.route.take(
            "support-solution",
            self.fleet.solution.Compose,
            solution_pb2.ComposeRequest(
                question=self.question,
                passages=passages,
                assessment=self.assessment,
                findings=findings,
            ),
            name="Compose",
            within=self.budget.next_share(),
            summary=lambda said: _composed(said.answer),
            lost="No answer was composed",
        )
        return response.answer if response else None

    async def _review(
        self, passages: Sequence[support_pb2.Passage], answer: support_pb2.Answer
    ) -> support_pb2.Verdict | None:
        response = await self.route.take(
            "support-quality",
            self.fleet.quality.Review,
            quality_pb2.ReviewRequest(
                question=self.question,
                answer=answer,
                passages=passages,
                assessment=self.assessment,
            ),
            name="Review",
            within=self.budget.next_share(),
            summary=lambda said: _judged(said.verdict),
            lost="The answer was not reviewed",
        )
        return response.verdict if response else None

    async def _open_ticket(self, reason: str) -> str:
        """The id of a new ticket; empty: it could not be opened now. Then it is sent, and opened later."""
        request = escalation_pb2.OpenTicketRequest(
            request_id=self.ticket_request,
            conversation_id=self.conversation_id,
            question=self.text[:MOST_TEXT],
            reason=reason,
            priority=self.assessment.urgency if self.assessment else support_pb2.URGENCY_NORMAL,
        )
        response = await self.route.take(
            "support-escalation",
            self.fleet.escalation.OpenTicket,
            request,
            name="OpenTicket",
            within=self.budget.for_ticket() / 2 if self.fleet.send else self.budget.for_ticket(),
            summary=lambda said: f"ticket {said.ticket.ticket_id}",
            lost="No ticket was opened yet" if self.fleet.send else "No ticket was opened",
        )
        if response is None:
            self.ticket_sent = await self._send_ticket(request)
        return response.ticket.ticket_id if response else ""

    async def _send_ticket(self, request: escalation_pb2.OpenTicketRequest) -> bool:
        """Leaves the ticket to the broker; whether that worked."""
        if self.fleet.send is None:
            return False
        try:
            with rpc.Deadline.after(self.budget.for_ticket()).applied():
                await self.fleet.send(
                    escalation_pb2_grpc.EscalationServiceServicer.OpenTicket,
                    request,
                    id=f"ticket:{request.request_id}",
                )
        except rpc.Error:
            return False
        return True

    def _somebody_is_told(self) -> bool:
        return bool(self.ticket_id) or self.ticket_sent

    def _critical(self) -> bool:
        return (
            self.assessment is not None and self.assessment.urgency == support_pb2.URGENCY_CRITICAL
        )


def _assessed(assessment: support_pb2.Assessment) -> str:
    urgency = support_pb2.Urgency.Name(assessment.urgency).removeprefix("URGENCY_").lower()
    return f"{assessment.intent.value} ({assessment.intent.confidence:.2f}), {urgency}"


def _found(passages: Sequence[support_pb2.Passage]) -> str:
    if not passages:
        return "no passage"
    return f"{len(passages)} passages, best {passages[0].passage_id}"


def _composed(answer: support_pb2.Answer) -> str:
    if not answer.text:
        return "no passage fits"
    return f"{len(answer.citations)} citations, confidence {answer.confidence:.2f}"


def _judged(verdict: support_pb2.Verdict) -> str:
    decision = support_pb2.Decision.Name(verdict.decision).removeprefix("DECISION_").lower()
    return f"{decision}: {_findings(verdict)}" if verdict.findings else decision


def _findings(verdict: support_pb2.Verdict | None) -> str:
    if verdict is None:
        return "the revised answer was not reviewed."
    return " ".join(f"{finding.check}: {finding.detail}" for finding in verdict.findings)
