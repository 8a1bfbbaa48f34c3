"""One exchange with a customer: a run of the pipeline, and what the customer is told of it.

The workflow says what is answered and who has to look at it; how that is said is here, and so is what is done where the
workflow comes to no result: a person is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from weft import rpc
from weft.agents.support.fields import MOST_TEXT
from weft.agents.support.supervisor import wording
from weft.agents.support.supervisor.attempts import attempt
from weft.agents.support.supervisor.budget import Budget
from weft.agents.support.supervisor.inprocess import InProcess
from weft.agents.support.supervisor.leading import Fleet
from weft.agents.support.supervisor.orchestrated import Orchestrated
from weft.agents.support.supervisor.outcome import Outcome
from weft.agents.support.supervisor.route import Route, what_happened
from weft.support.v1 import (
    escalation_pb2,
    escalation_pb2_grpc,
    research_pb2,
    solution_pb2,
    supervisor_pb2,
    support_pb2,
)

# The conversation so far, triage, research, and three rounds of solution and quality.
STEPS = 9
_MOST_REASON = 2_000
_TICKET = "OpenTicket"


@dataclass(slots=True, kw_only=True)
class Exchange:
    """A question on its way to an answer.

    Attributes:
        fleet: the agents.
        orchestrated: runs the pipeline where an orchestrator is in service; None: it is run here.
        request: what the customer asked, with its conversation and the context it needs.
        run: UUID of the run, and of the ticket, should one be needed.
    """

    fleet: Fleet
    orchestrated: Orchestrated | None
    budget: Budget
    route: Route
    request: supervisor_pb2.HandleRequest
    run: str
    assessment: support_pb2.Assessment | None = None
    verdict: support_pb2.Verdict | None = None
    ticket_id: str = ""
    deciding: bool = False
    _ticket_sent: bool = False

    async def answer(self) -> support_pb2.Answer:
        """Has the pipeline run and returns what to tell the customer."""
        told_before = bool(self.route.missing)  # the workflow does not know of it
        outcome = await self._run()
        if outcome.deciding:
            self.deciding = True
            return wording.being_decided()
        response = outcome.response or supervisor_pb2.HandleResponse()
        if response.HasField("assessment"):
            self.assessment = response.assessment
        if response.HasField("verdict"):
            self.verdict = response.verdict
        self.ticket_id = response.ticket_id
        self.route.missing += response.missing
        if outcome.why:
            self.route.missing.append(outcome.why)
        found = response.answer if response.HasField("answer") else self._articles()
        tried = self.route.tried(_TICKET)
        if found is not None and not (tried or self.ticket_id or outcome.why or told_before):
            return found
        if not self.ticket_id:
            await self._leave_ticket(outcome)
        told = bool(self.ticket_id) or self._ticket_sent
        if found is None:
            return wording.without_answer(ticket=told)
        return wording.with_ticket(found, ticket=told)

    async def _run(self) -> Outcome:
        if self.orchestrated is not None:
            within = self.budget.for_steps()
            outcome = await self.orchestrated.handle(
                self.request, run=self.run, route=self.route, within=within
            )
            if outcome is not None:
                return outcome
        here = InProcess(self.fleet, budget=self.budget, route=self.route, run=self.run)
        return await here.handle(self.request)

    def _articles(self) -> support_pb2.Answer | None:
        """The articles that were found, where no answer could be composed from them."""
        found = self.route.given.get(research_pb2.SearchResponse)
        composed = solution_pb2.ComposeResponse in self.route.given
        if composed or not self.route.tried("Compose"):
            return None
        if isinstance(found, research_pb2.SearchResponse) and found.passages:
            return wording.pointing_at(found.passages)
        return None

    async def _leave_ticket(self, outcome: Outcome) -> None:
        """Has a person told, where the run did not manage to."""
        request = outcome.unopened or self._ticket()
        if not self.route.tried(_TICKET):
            try:
                opened = await attempt(
                    self.fleet.escalation.OpenTicket, request, within=self._for_ticket()
                )
            except rpc.Error as failed:
                self._lost(failed.code.name)
            else:
                self.ticket_id = opened.ticket.ticket_id
                return
        else:
            self._lost(self.route.failures.get(_TICKET, "UNKNOWN"))
        self._ticket_sent = await self._send_ticket(request)

    def _lost(self, code: str) -> None:
        lost = "No ticket was opened yet" if self.fleet.send else "No ticket was opened"
        self.route.missing.append(f"{lost}: support-escalation {what_happened(code)}.")

    def _for_ticket(self) -> timedelta:
        whole = self.budget.for_ticket()
        return whole / 2 if self.fleet.send else whole

    def _ticket(self) -> escalation_pb2.OpenTicketRequest:
        reason = " ".join(self.route.missing) or "There is no answer."
        return escalation_pb2.OpenTicketRequest(
            request_id=self.run,
            conversation_id=self.request.conversation_id,
            question=self.request.text[:MOST_TEXT],
            reason=reason[:_MOST_REASON],
            priority=self.assessment.urgency if self.assessment else support_pb2.URGENCY_NORMAL,
        )

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
