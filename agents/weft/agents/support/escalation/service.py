"""The agent support-escalation."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import grpc

from weft import rpc
from weft.agents.support import fields
from weft.agents.support.escalation.desk import Desk, Place, Ticket
from weft.agents.support.outgoing import Sends
from weft.postgres import Database
from weft.rpc import paging
from weft.support.v1 import escalation_pb2, escalation_pb2_grpc, mailbox_pb2, support_pb2
from weft.support.v1.mailbox_pb2_grpc import MailboxServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger("weft.agents")

_REMINDING = timedelta(seconds=1)
_MOST_NAME = 200
_MOST_REASON = 2_000
_MOST_ID = 64
_PLACE = (0, 0, "", "")


class EscalationAgent(escalation_pb2_grpc.EscalationServiceServicer):
    """Keeps the help desk's tickets.

    Args:
        database: where tickets are.
        send: sends durable messages; None: this mesh has none, and nobody is reminded or written to.
    """

    def __init__(self, database: Database, send: Sends | None = None) -> None:
        self._desk = Desk(database)
        self._send = send

    async def OpenTicket(
        self, request: escalation_pb2.OpenTicketRequest, context: Context
    ) -> escalation_pb2.OpenTicketResponse:
        """Opens a ticket for a person to answer."""
        del context
        fields.check(
            fields.uuid_text("request_id", request.request_id),
            fields.text("conversation_id", request.conversation_id, _MOST_ID),
            fields.text("question", request.question),
            fields.text("reason", request.reason, _MOST_REASON),
            fields.member("priority", request.priority, support_pb2.Urgency.DESCRIPTOR),
        )
        ticket = await self._desk.open(
            UUID(request.request_id),
            conversation_id=request.conversation_id,
            question=request.question,
            reason=request.reason,
            priority=request.priority or support_pb2.URGENCY_NORMAL,
        )
        try:
            with rpc.Deadline.after(_REMINDING).applied():
                await self._remind(ticket)
        except rpc.Error:
            # The ticket is there; that nobody will be reminded of it is no reason to say it is not.
            log.warning("no reminder was sent", extra={"ticket": ticket.ticket_id})
        return escalation_pb2.OpenTicketResponse(ticket=_message(ticket))

    async def Remind(
        self, request: escalation_pb2.RemindRequest, context: Context
    ) -> escalation_pb2.RemindResponse:
        """Raises the priority of a ticket that is due and not answered."""
        del context
        fields.check(fields.text("ticket_id", request.ticket_id, _MOST_ID))
        ticket = await self._desk.remind(request.ticket_id)
        await self._remind(ticket)
        return escalation_pb2.RemindResponse(ticket=_message(ticket))

    async def GetTicket(
        self, request: escalation_pb2.GetTicketRequest, context: Context
    ) -> escalation_pb2.GetTicketResponse:
        """Returns one ticket."""
        del context
        fields.check(fields.text("ticket_id", request.ticket_id, _MOST_ID))
        return escalation_pb2.GetTicketResponse(
            ticket=_message(await self._desk.get(request.ticket_id))
        )

    async def ListTickets(
        self, request: escalation_pb2.ListTicketsRequest, context: Context
    ) -> escalation_pb2.ListTicketsResponse:
        """Lists tickets, the most pressing first."""
        del context
        size = paging.page_size(request.page_size, default=50, most=500)
        fields.check(
            fields.member("state", request.state, escalation_pb2.TicketState.DESCRIPTOR),
            fields.optional_text("conversation_id", request.conversation_id, _MOST_ID),
        )
        made_for = f"tickets {request.state} {request.conversation_id}"
        found = await self._desk.tickets(
            state=request.state,
            conversation_id=request.conversation_id,
            behind=_behind(request.page_token, made_for),
            limit=size + 1,
        )
        response = escalation_pb2.ListTicketsResponse(tickets=map(_message, found[:size]))
        if len(found) > size:
            response.next_page_token = _token(found[size - 1], made_for)
        return response

    async def ClaimTicket(
        self, request: escalation_pb2.ClaimTicketRequest, context: Context
    ) -> escalation_pb2.ClaimTicketResponse:
        """Claims a ticket for a person."""
        del context
        fields.check(
            fields.text("ticket_id", request.ticket_id, _MOST_ID),
            fields.text("assignee", request.assignee, _MOST_NAME),
        )
        ticket = await self._desk.claim(request.ticket_id, request.assignee)
        return escalation_pb2.ClaimTicketResponse(ticket=_message(ticket))

    async def AnswerTicket(
        self, request: escalation_pb2.AnswerTicketRequest, context: Context
    ) -> escalation_pb2.AnswerTicketResponse:
        """Answers a ticket in the customer's conversation."""
        del context
        fields.check(
            fields.text("ticket_id", request.ticket_id, _MOST_ID),
            fields.text("assignee", request.assignee, _MOST_NAME),
            fields.text("answer", request.answer),
        )
        ticket = await self._desk.answer(request.ticket_id, request.assignee, request.answer)
        if self._send is not None:
            # For the customer's box, if the conversation has one. Answered again, it is the same mail.
            mail_id = str(uuid5(ticket.request_id, "answer"))
            await self._send(
                MailboxServiceServicer.Deliver,
                mailbox_pb2.DeliverRequest(mail=_mail(ticket, mail_id)),
                id=f"mail:{mail_id}",
                key=ticket.conversation_id,
            )
        return escalation_pb2.AnswerTicketResponse(ticket=_message(ticket))

    async def _remind(self, ticket: Ticket) -> None:
        """Sends a reminder for when the ticket is due. Opened or reminded again, it is the same reminder."""
        left = ticket.due_time - datetime.now(UTC)
        if self._send is None or ticket.state == escalation_pb2.TICKET_STATE_ANSWERED:
            return
        await self._send(
            escalation_pb2_grpc.EscalationServiceServicer.Remind,
            escalation_pb2.RemindRequest(ticket_id=ticket.ticket_id),
            id=f"remind:{ticket.ticket_id}:{int(ticket.due_time.timestamp())}",
            delay=max(left, timedelta(0)),
        )


def _mail(ticket: Ticket, mail_id: str) -> mailbox_pb2.Mail:
    return mailbox_pb2.Mail(
        mail_id=mail_id,
        subject=f"Your request {ticket.ticket_id}",
        text=ticket.answer,
        conversation_id=ticket.conversation_id,
        ticket_id=ticket.ticket_id,
    )


def _token(last: Ticket, made_for: str) -> str:
    place = (last.state, last.priority, last.due_time.isoformat(), last.ticket_id)
    return paging.page_token(place, made_for=made_for)


def _behind(token: str, made_for: str) -> Place | None:
    position = paging.page_begin(token, made_for=made_for, like=_PLACE)
    if position is None:
        return None
    state, priority, due_time, ticket_id = position
    try:
        return Place.of(state, priority, due_time, ticket_id)
    except ValueError:
        raise rpc.InvalidArgument("is not a token of this list", field="page_token") from None


def _message(ticket: Ticket) -> escalation_pb2.Ticket:
    message = escalation_pb2.Ticket(
        ticket_id=ticket.ticket_id,
        conversation_id=ticket.conversation_id,
        question=ticket.question,
        reason=ticket.reason,
        priority=ticket.priority,
        state=ticket.state,
        assignee=ticket.assignee,
        answer=ticket.answer,
    )
    message.create_time.FromDatetime(ticket.create_time)
    message.due_time.FromDatetime(ticket.due_time)
    if ticket.answer_time is not None:
        message.answer_time.FromDatetime(ticket.answer_time)
    return message
