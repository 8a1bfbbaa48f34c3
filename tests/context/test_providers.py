"""Long-term memory and conversations as sources of context."""

from __future__ import annotations

import uuid

import redis.asyncio

from weft.agents import support
from weft.agents.context import (
    Enrichment,
    Fact,
    Need,
    Source,
    by_skill,
    of_conversation,
    of_knowledge,
)
from weft.agents.memory import Conversations, Document, Knowledge, Role, Turn, database
from weft.agents.memory.conversation import ConversationSettings
from weft.agents.support import EscalationAgent
from weft.rpc.testing import channel_for
from weft.support.v1.escalation_pb2 import ListTicketsRequest, OpenTicketRequest, TicketState
from weft.support.v1.escalation_pb2_grpc import (
    EscalationServiceStub,
    add_EscalationServiceServicer_to_server,
)


async def test_documents_and_what_was_said_are_context(
    database_url: str, client: redis.asyncio.Redis
):
    async with await database(database_url) as store:
        knowledge = Knowledge(store, cache=client)
        await knowledge.of("acme").add(
            Document(id="cards", text="# Cards\n\n## Lost\n\nA lost card is blocked at once.")
        )
        await knowledge.of("other").add(Document(id="x", text="A lost card of others."))
        conversations = Conversations(client, settings=ConversationSettings(most=3, least=1))
        for text in ("Hello.", "My card is lost.", "Which one?", "The red one."):
            await conversations.of("acme", "7").append(Turn(role=Role.USER, text=text))
        gathering = Enrichment(
            [
                Source("knowledge", of_knowledge(knowledge)),
                Source("history", of_conversation(conversations)),
            ]
        )
        need = Need(tenant="acme", question="I lost my card", conversation="7")
        context = await gathering.gather(need)
        assert not context.missing
        text = context.text()
        assert "Cards > Lost: A lost card is blocked at once. (knowledge; cards:18-49)" in text
        assert "user: The red one." in text
        assert "extracted summary of 3 turns" in text
        assert "others" not in text
        nothing = await gathering.gather(Need(tenant="acme"))
        assert not nothing.pieces
        assert not nothing.missing
        await gathering.close()


async def test_open_tickets_are_those_of_the_agent_that_keeps_them(database_url: str):
    async with (
        await support.database(database_url) as store,
        channel_for(add_EscalationServiceServicer_to_server, EscalationAgent(store)) as channel,
    ):
        stub = EscalationServiceStub(channel)
        for conversation, question in (("c-1", "Where is my order?"), ("c-2", "Of others.")):
            opened = await stub.OpenTicket(
                OpenTicketRequest(
                    request_id=str(uuid.uuid4()),
                    conversation_id=conversation,
                    question=question,
                    reason="No article says.",
                )
            )
            if conversation == "c-1":
                ticket = opened.ticket.ticket_id
        tickets = by_skill(
            stub.ListTickets,
            request=lambda need: ListTicketsRequest(
                conversation_id=need.conversation, state=TicketState.TICKET_STATE_OPEN
            ),
            read=lambda said: [
                Fact(
                    text=f"{ticket.question} ({ticket.reason})", source=f"ticket:{ticket.ticket_id}"
                )
                for ticket in said.tickets
            ],
        )
        source = Source("tickets", tickets, keyed_by=("customer", "conversation"))
        context = await Enrichment([source]).gather(Need(tenant="acme", conversation="c-1"))
    assert context.text() == (
        f"[1] Where is my order? (No article says.) (tickets; ticket:{ticket})"
    )
