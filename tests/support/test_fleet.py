"""The whole fleet: seven agents, real PostgreSQL, Redis and gRPC, and what customers really ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any

from weft import agents, rpc
from weft.agents import support
from weft.support.v1 import supervisor_pb2_grpc, support_pb2
from weft.support.v1.supervisor_pb2 import (
    GetConversationRequest,
    HandleRequest,
    HandleResponse,
    WatchRequest,
)

# A customer's question, the passage its answer must cite first, and words it must hold.
ASKED = [
    ("I am still waiting on my card?", "card-arrival#still-waiting-for-your-card", "replacement"),
    ("My top-up failed, what can I do?", "top-up-failed#", "top-up"),
    ("How do I freeze my card?", "card-freeze#how-to-freeze-your-card", "Freeze"),
    ("I forgot my PIN", "card-pin#forgotten-pin", "Show PIN"),
    ("Why was I charged a fee for a withdrawal?", "cash-withdrawals#", "1.50 euros"),
    ("How long does a transfer take?", "transfer-times#", "next working day"),
    ("which documents do you accept to verify my identity", "identity-check#", "passport"),
    ("How do I close my account?", "account-closing#how-to-close", "Close account"),
    ("The ATM swallowed my card", "cash-machine-problems#", "freeze"),
    ("my refund has not arrived", "refunds#your-refund-has-not-arrived", "10 working days"),
    ("I sent money to the wrong person", "transfer-cancel#", "Recall"),
    ("how do i change my address", "personal-details#change-your-address", "Address"),
    ("what interest do I get on savings", "savings-account#interest-on-savings", "2.1 percent"),
    ("I was charged twice at a shop", "duplicate-payments#", "payment"),
]
OUT_OF_PLACE = ["what is the weather in Paris tomorrow", "Can I get a mortgage?", "1234"]


class LaterStub:
    """A stub of an agent on a server that is not started yet."""

    def __init__(self, stub: Any, server: rpc.Server) -> None:
        self._stub = stub
        self._server = server

    @cached_property
    def _made(self) -> Any:
        return self._stub(rpc.Channel(self._server.address))

    def __getattr__(self, skill: str) -> Any:
        return getattr(self._made, skill)


@asynccontextmanager
async def house(
    database_url: str, redis_url: str
) -> AsyncIterator[supervisor_pb2_grpc.SupervisorServiceAsyncStub]:
    """The fleet on one port, as a host runs it."""
    server = rpc.Server()
    made = support.fleet(
        database_url=database_url,
        redis_url=redis_url,
        stub=lambda stub: LaterStub(stub, server),
    )
    async with made as servicers:
        for servicer in servicers:
            server.add(agents.contract_of(servicer).add_to_server, servicer)
        async with server, rpc.Channel(server.address) as channel:
            yield supervisor_pb2_grpc.SupervisorServiceStub(channel)


async def handle(
    supervisor: supervisor_pb2_grpc.SupervisorServiceAsyncStub, text: str, conversation: str = ""
) -> HandleResponse:
    return await supervisor.Handle(HandleRequest(text=text, conversation_id=conversation))


async def test_what_customers_ask_is_answered_from_the_right_article(
    database_url: str, redis_url: str
) -> None:
    async with house(database_url, redis_url) as supervisor:
        for question, cited, words in ASKED:
            response = await handle(supervisor, question)
            assert not response.missing
            assert response.verdict.decision == support_pb2.DECISION_PASS, question
            assert response.answer.origin == support_pb2.ORIGIN_EXTRACTIVE
            first = response.answer.citations[0]
            assert first.passage_id.startswith(cited), question
            assert words in response.answer.text
            assert len(response.route) == 4
        for question in OUT_OF_PLACE:
            response = await handle(supervisor, question)
            assert not response.answer.citations, question
            assert response.ticket_id


async def test_the_same_question_gets_the_same_answer_at_every_door(
    database_url: str, redis_url: str
) -> None:
    question = "I am still waiting on my card?"
    async with house(database_url, redis_url) as supervisor:
        handled = await handle(supervisor, question)
        request = WatchRequest(request=HandleRequest(text=question))
        *_, last = [one async for one in supervisor.Watch(request)]
    async with house(database_url, redis_url) as supervisor:
        after_restart = await handle(supervisor, question)
        said = await supervisor.GetConversation(
            GetConversationRequest(conversation_id=handled.conversation_id)
        )
    assert handled.answer == last.result.answer == after_restart.answer
    assert said.conversation.messages[1].answer == handled.answer


async def test_a_stolen_card_gets_advice_and_a_person(database_url: str, redis_url: str) -> None:
    async with house(database_url, redis_url) as supervisor:
        response = await handle(supervisor, "My card was stolen and somebody is using it!")
        follow_up = await handle(supervisor, "And my phone?", response.conversation_id)
    assert response.assessment.urgency == support_pb2.URGENCY_CRITICAL
    assert response.answer.citations
    assert response.ticket_id.startswith("T-")
    assert follow_up.conversation_id == response.conversation_id
