"""The help desk's side of the support fleet: tickets, over the mesh."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from weft.cli import connect
from weft.support.v1 import escalation_pb2, escalation_pb2_grpc
from weft.v1.identity_pb2 import Identity

if TYPE_CHECKING:
    from weft.support.v1.escalation_pb2_grpc import EscalationServiceAsyncStub

AGENT = "support-escalation"
_PAGE = 500


@contextlib.asynccontextmanager
async def escalation(
    registry: str, identity: Identity | None = None
) -> AsyncIterator[EscalationServiceAsyncStub]:
    """A stub of the escalation agent, called as whoever is named."""
    async with connect.to_agent(registry, AGENT, identity) as channel:
        yield escalation_pb2_grpc.EscalationServiceStub(channel)


async def listed(
    stub: EscalationServiceAsyncStub, state: escalation_pb2.TicketState.ValueType
) -> list[escalation_pb2.Ticket]:
    """All tickets in a state, the most pressing first."""
    found: list[escalation_pb2.Ticket] = []
    token = ""
    while True:
        request = escalation_pb2.ListTicketsRequest(state=state, page_size=_PAGE, page_token=token)
        page = await stub.ListTickets(request)
        found += page.tickets
        token = page.next_page_token
        if not token:
            return found


async def pending(stub: EscalationServiceAsyncStub) -> list[escalation_pb2.Ticket]:
    """Tickets that wait for an answer."""
    found = await listed(stub, escalation_pb2.TICKET_STATE_UNSPECIFIED)
    return [t for t in found if t.state != escalation_pb2.TICKET_STATE_ANSWERED]
