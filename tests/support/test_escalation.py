from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
import pytest_asyncio

from weft import rpc
from weft.agents.support import EscalationAgent
from weft.postgres import Database
from weft.rpc.testing import channel_for
from weft.support.v1 import escalation_pb2, escalation_pb2_grpc, support_pb2
from weft.support.v1.escalation_pb2 import (
    TICKET_STATE_ANSWERED,
    TICKET_STATE_CLAIMED,
    TICKET_STATE_OPEN,
    TICKET_STATE_UNSPECIFIED,
    Ticket,
)


@pytest_asyncio.fixture
async def desk(store: Database) -> AsyncIterator[escalation_pb2_grpc.EscalationServiceAsyncStub]:
    async with channel_for(
        escalation_pb2_grpc.add_EscalationServiceServicer_to_server, EscalationAgent(store)
    ) as channel:
        yield escalation_pb2_grpc.EscalationServiceStub(channel)


def opening(**further: object) -> escalation_pb2.OpenTicketRequest:
    said = {
        "request_id": str(uuid.uuid4()),
        "conversation_id": "c-1",
        "question": "Where is my card?",
        "reason": "No article fits",
    }
    return escalation_pb2.OpenTicketRequest(**{**said, **further})  # type: ignore[arg-type]


async def open_ticket(
    desk: escalation_pb2_grpc.EscalationServiceAsyncStub, **further: object
) -> Ticket:
    return (await desk.OpenTicket(opening(**further))).ticket


async def claim(
    desk: escalation_pb2_grpc.EscalationServiceAsyncStub, ticket_id: str, assignee: str
) -> Ticket:
    request = escalation_pb2.ClaimTicketRequest(ticket_id=ticket_id, assignee=assignee)
    return (await desk.ClaimTicket(request)).ticket


async def reply(
    desk: escalation_pb2_grpc.EscalationServiceAsyncStub, ticket_id: str, assignee: str, text: str
) -> Ticket:
    request = escalation_pb2.AnswerTicketRequest(
        ticket_id=ticket_id, assignee=assignee, answer=text
    )
    return (await desk.AnswerTicket(request)).ticket


async def reason_of(call: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call  # type: ignore[misc]
    return rpc.error_from_call(failed.value).reason


@pytest.mark.parametrize(
    ("priority", "stored", "hours"),
    [
        (support_pb2.URGENCY_CRITICAL, support_pb2.URGENCY_CRITICAL, 1),
        (support_pb2.URGENCY_HIGH, support_pb2.URGENCY_HIGH, 4),
        (support_pb2.URGENCY_UNSPECIFIED, support_pb2.URGENCY_NORMAL, 24),
        (support_pb2.URGENCY_LOW, support_pb2.URGENCY_LOW, 72),
    ],
)
async def test_a_ticket_is_due_by_its_priority(
    desk: escalation_pb2_grpc.EscalationServiceAsyncStub, priority: int, stored: int, hours: int
) -> None:
    ticket = await open_ticket(desk, priority=priority)
    assert ticket.ticket_id == "T-1001"
    assert (ticket.priority, ticket.state) == (stored, TICKET_STATE_OPEN)
    assert ticket.due_time.seconds - ticket.create_time.seconds == hours * 3600
    got = await desk.GetTicket(escalation_pb2.GetTicketRequest(ticket_id=ticket.ticket_id))
    assert got.ticket == ticket


async def test_opening_again_opens_no_second_ticket(
    desk: escalation_pb2_grpc.EscalationServiceAsyncStub,
) -> None:
    request = opening()
    opened = await asyncio.gather(*(desk.OpenTicket(request) for _ in range(20)))
    assert len({one.ticket.ticket_id for one in opened}) == 1
    listed = await desk.ListTickets(escalation_pb2.ListTicketsRequest())
    assert len(listed.tickets) == 1


async def test_a_ticket_goes_from_open_over_claimed_to_answered(
    desk: escalation_pb2_grpc.EscalationServiceAsyncStub,
) -> None:
    ticket = await open_ticket(desk)
    claimed = await claim(desk, ticket.ticket_id, "ann")
    assert (claimed.state, claimed.assignee) == (TICKET_STATE_CLAIMED, "ann")
    assert await claim(desk, ticket.ticket_id, "ann") == claimed
    answered = await reply(desk, ticket.ticket_id, "ann", "It is on its way.")
    assert (answered.state, answered.answer) == (TICKET_STATE_ANSWERED, "It is on its way.")
    assert answered.HasField("answer_time")
    assert await reply(desk, ticket.ticket_id, "ann", "It is on its way.") == answered


async def test_an_open_ticket_can_be_answered_at_once(
    desk: escalation_pb2_grpc.EscalationServiceAsyncStub,
) -> None:
    ticket = await open_ticket(desk)
    answered = await reply(desk, ticket.ticket_id, "ann", "Here.")
    assert (answered.state, answered.assignee) == (TICKET_STATE_ANSWERED, "ann")


async def test_what_somebody_else_holds_or_is_answered_stays_as_it_is(
    desk: escalation_pb2_grpc.EscalationServiceAsyncStub,
) -> None:
    ticket = await open_ticket(desk)
    await claim(desk, ticket.ticket_id, "ann")
    assert await reason_of(claim(desk, ticket.ticket_id, "bob")) == "TICKET_TAKEN"
    assert await reason_of(reply(desk, ticket.ticket_id, "bob", "x")) == "TICKET_TAKEN"
    await reply(desk, ticket.ticket_id, "ann", "Done.")
    assert await reason_of(claim(desk, ticket.ticket_id, "ann")) == "TICKET_ANSWERED"
    assert await reason_of(reply(desk, ticket.ticket_id, "ann", "Other.")) == "TICKET_ANSWERED"
    assert await reason_of(reply(desk, ticket.ticket_id, "bob", "Done.")) == "TICKET_TAKEN"


async def test_of_many_who_claim_at_once_one_wins(
    desk: escalation_pb2_grpc.EscalationServiceAsyncStub,
) -> None:
    ticket = await open_ticket(desk)
    claims = (claim(desk, ticket.ticket_id, f"person {n}") for n in range(10))
    ended = await asyncio.gather(*claims, return_exceptions=True)
    winners = [one for one in ended if isinstance(one, Ticket)]
    assert len(winners) == 1
    got = await desk.GetTicket(escalation_pb2.GetTicketRequest(ticket_id=ticket.ticket_id))
    assert got.ticket.assignee == winners[0].assignee


async def test_unknown_tickets(desk: escalation_pb2_grpc.EscalationServiceAsyncStub) -> None:
    for call in (
        desk.GetTicket(escalation_pb2.GetTicketRequest(ticket_id="T-1")),
        claim(desk, "T-1", "ann"),
        reply(desk, "T-1", "ann", "x"),
    ):
        assert await reason_of(call) == "UNKNOWN_TICKET"


async def test_tickets_are_listed_in_pages_the_most_pressing_first(
    desk: escalation_pb2_grpc.EscalationServiceAsyncStub,
) -> None:
    priorities = [support_pb2.URGENCY_LOW, support_pb2.URGENCY_CRITICAL, support_pb2.URGENCY_NORMAL]
    made = [await open_ticket(desk, priority=priorities[n % 3]) for n in range(7)]
    answered = await reply(desk, made[1].ticket_id, "ann", "x")
    claimed = await claim(desk, made[4].ticket_id, "ann")
    expected = [
        *(made[n].ticket_id for n in (2, 5, 0, 3, 6)),
        claimed.ticket_id,
        answered.ticket_id,
    ]
    for size in (1, 2, 3, 7, 0):
        assert [one.ticket_id for one in await everything(desk, size)] == expected


async def everything(
    desk: escalation_pb2_grpc.EscalationServiceAsyncStub,
    page_size: int,
    *,
    state: escalation_pb2.TicketState.ValueType = TICKET_STATE_UNSPECIFIED,
    conversation_id: str = "",
) -> list[Ticket]:
    found: list[Ticket] = []
    token = ""
    while True:
        page = await desk.ListTickets(
            escalation_pb2.ListTicketsRequest(
                state=state,
                conversation_id=conversation_id,
                page_size=page_size,
                page_token=token,
            )
        )
        found += page.tickets
        token = page.next_page_token
        if not token:
            return found


async def test_lists_are_filtered_by_state_and_conversation(
    desk: escalation_pb2_grpc.EscalationServiceAsyncStub,
) -> None:
    here = await open_ticket(desk, conversation_id="here")
    await open_ticket(desk, conversation_id="there")
    done = await open_ticket(desk, conversation_id="here")
    await reply(desk, done.ticket_id, "ann", "x")
    by_conversation = await everything(desk, 1, conversation_id="here")
    assert [one.ticket_id for one in by_conversation] == [here.ticket_id, done.ticket_id]
    by_state = await everything(desk, 1, state=TICKET_STATE_ANSWERED)
    assert [one.ticket_id for one in by_state] == [done.ticket_id]


async def test_bad_requests_name_the_field(
    desk: escalation_pb2_grpc.EscalationServiceAsyncStub,
) -> None:
    await open_ticket(desk)
    await open_ticket(desk)
    token = (await desk.ListTickets(escalation_pb2.ListTicketsRequest(page_size=1))).next_page_token
    listing = escalation_pb2.ListTicketsRequest
    for request, fields in (
        (
            escalation_pb2.OpenTicketRequest(),
            {"request_id", "conversation_id", "question", "reason"},
        ),
        (opening(request_id="7"), {"request_id"}),
        (opening(conversation_id="x" * 65), {"conversation_id"}),
        (opening(question="x" * 8_001), {"question"}),
        (opening(reason="x" * 2_001), {"reason"}),
        (opening(priority=9), {"priority"}),
        (escalation_pb2.GetTicketRequest(), {"ticket_id"}),
        (escalation_pb2.ClaimTicketRequest(), {"ticket_id", "assignee"}),
        (escalation_pb2.AnswerTicketRequest(ticket_id="T-1", assignee="a"), {"answer"}),
        (listing(page_size=-1), {"page_size"}),
        (listing(state=cast("Any", 9)), {"state"}),
        (listing(page_token="x"), {"page_token"}),
        (listing(page_token=token, conversation_id="other"), {"page_token"}),
        (listing(page_token=forged("2026-01-01")), {"page_token"}),
        (listing(page_token=forged("never")), {"page_token"}),
    ):
        name = type(request).__name__.removesuffix("Request")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await getattr(desk, name)(request)
        error = rpc.error_from_call(failed.value)
        assert isinstance(error, rpc.InvalidArgument), name
        assert {path for path, _ in error.violations} == fields


def forged(due_time: str) -> str:
    from weft.rpc import paging

    return paging.page_token((1, 2, due_time, "T-1"), made_for="tickets 0 ")
