"""The help desk's tickets in PostgreSQL, and the rules of who may do what with one.

OPEN --claim--> CLAIMED --answer--> ANSWERED
  `------------answer-----------------^
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self
from uuid import UUID

import asyncpg

from weft import rpc
from weft.postgres import Database
from weft.support.v1 import support_pb2
from weft.support.v1.escalation_pb2 import (
    TICKET_STATE_ANSWERED,
    TICKET_STATE_CLAIMED,
    TICKET_STATE_OPEN,
    TicketState,
)

_DUE: Mapping[support_pb2.Urgency.ValueType, timedelta] = {
    support_pb2.URGENCY_CRITICAL: timedelta(hours=1),
    support_pb2.URGENCY_HIGH: timedelta(hours=4),
    support_pb2.URGENCY_NORMAL: timedelta(hours=24),
    support_pb2.URGENCY_LOW: timedelta(hours=72),
}


class UnknownTicket(rpc.NotFound):
    """There is no ticket of this id."""

    reason = "UNKNOWN_TICKET"


class TicketTaken(rpc.FailedPrecondition):
    """Somebody else holds the ticket."""

    reason = "TICKET_TAKEN"


class TicketAnswered(rpc.FailedPrecondition):
    """The ticket is answered already."""

    reason = "TICKET_ANSWERED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A request a person must answer."""

    ticket_id: str
    request_id: UUID
    conversation_id: str
    question: str
    reason: str
    priority: support_pb2.Urgency.ValueType
    state: TicketState.ValueType
    create_time: datetime
    due_time: datetime
    assignee: str
    answer: str
    answer_time: datetime | None

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """A ticket as it is stored."""
        return cls(**row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a ticket stands in a list, the most pressing first."""

    state: int
    priority: int
    due_time: datetime
    ticket_id: str

    @classmethod
    def of(cls, state: object, priority: object, due_time: object, ticket_id: object) -> Self:
        """A place as it was told.

        Raises:
            ValueError: there is no such place.
        """
        due = datetime.fromisoformat(str(due_time))
        known = state in TicketState.values() and priority in support_pb2.Urgency.values()
        if (
            not isinstance(state, int)
            or not isinstance(priority, int)
            or not known
            or not due.tzinfo
        ):
            raise ValueError("no ticket stands there")
        return cls(state=state, priority=priority, due_time=due, ticket_id=str(ticket_id))


class Desk:
    """Tickets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(
        self,
        request_id: UUID,
        *,
        conversation_id: str,
        question: str,
        reason: str,
        priority: support_pb2.Urgency.ValueType,
    ) -> Ticket:
        """Opens a ticket, or returns the one that was opened with the same request id."""
        now = datetime.now(UTC)
        row = await self._database.fetchrow(
            "open_ticket",
            *(request_id, conversation_id, question, reason, priority, TICKET_STATE_OPEN),
            *(now, now + _DUE[priority]),
        )
        if row is None:
            row = await self._database.fetchrow("ticket_of_request", request_id)
        assert row is not None, "tickets are never deleted"
        return Ticket.of(row)

    async def get(self, ticket_id: str) -> Ticket:
        """A ticket.

        Raises:
            UnknownTicket: there is none of this id.
        """
        return _found(await self._database.fetchrow("get_ticket", ticket_id), ticket_id)

    async def tickets(
        self,
        *,
        state: TicketState.ValueType,
        conversation_id: str,
        behind: Place | None,
        limit: int,
    ) -> list[Ticket]:
        """Tickets, the most pressing first, behind a place or from the first one."""
        if behind is None:
            rows = await self._database.fetch("list_tickets", state, conversation_id, limit)
        else:
            rows = await self._database.fetch(
                "list_tickets_behind",
                *(state, conversation_id, limit),
                *(behind.state, behind.priority, behind.due_time, behind.ticket_id),
            )
        return [Ticket.of(row) for row in rows]

    async def claim(self, ticket_id: str, assignee: str) -> Ticket:
        """Gives an open ticket to a person.

        Raises:
            UnknownTicket: there is none of this id.
            TicketTaken: somebody else holds it.
            TicketAnswered: it is answered.
        """
        async with self._database.transaction() as transaction:
            ticket = _found(await transaction.fetchrow("lock_ticket", ticket_id), ticket_id)
            if ticket.state == TICKET_STATE_ANSWERED:
                raise TicketAnswered(metadata={"ticket": ticket_id})
            _check_holder(ticket, assignee)
            if ticket.state == TICKET_STATE_CLAIMED:
                return ticket
            row = await transaction.fetchrow(
                "claim_ticket", ticket_id, TICKET_STATE_CLAIMED, assignee
            )
        return _found(row, ticket_id)

    async def remind(self, ticket_id: str) -> Ticket:
        """Raises the priority of a ticket that is due and not answered, and gives it the due time that goes with it.

        Raises:
            UnknownTicket: there is none of this id.
        """
        async with self._database.transaction() as transaction:
            ticket = _found(await transaction.fetchrow("lock_ticket", ticket_id), ticket_id)
            now = datetime.now(UTC)
            if ticket.state == TICKET_STATE_ANSWERED or now < ticket.due_time:
                return ticket
            raised = min(ticket.priority + 1, support_pb2.URGENCY_CRITICAL)
            row = await transaction.fetchrow(
                "raise_ticket", ticket_id, raised, now + _DUE[support_pb2.Urgency.ValueType(raised)]
            )
        return _found(row, ticket_id)

    async def answer(self, ticket_id: str, assignee: str, answer: str) -> Ticket:
        """Answers a ticket, open or held by the same person.

        Raises:
            UnknownTicket: there is none of this id.
            TicketTaken: somebody else holds it.
            TicketAnswered: it has another answer.
        """
        async with self._database.transaction() as transaction:
            ticket = _found(await transaction.fetchrow("lock_ticket", ticket_id), ticket_id)
            _check_holder(ticket, assignee)
            if ticket.state == TICKET_STATE_ANSWERED:
                if ticket.answer != answer:
                    raise TicketAnswered(metadata={"ticket": ticket_id})
                return ticket
            row = await transaction.fetchrow(
                "answer_ticket", ticket_id, TICKET_STATE_ANSWERED, assignee, answer
            )
        return _found(row, ticket_id)


def _check_holder(ticket: Ticket, assignee: str) -> None:
    if ticket.assignee and ticket.assignee != assignee:
        raise TicketTaken(metadata={"ticket": ticket.ticket_id})


def _found(row: asyncpg.Record | None, ticket_id: str) -> Ticket:
    if row is None:
        shown = ticket_id[:100]
        raise UnknownTicket(f'There is no ticket "{shown}".', metadata={"ticket": shown})
    return Ticket.of(row)
