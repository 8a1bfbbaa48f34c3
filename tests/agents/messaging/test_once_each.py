"""Handled once: by each that gets the message, and of each sender."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from google.protobuf import empty_pb2

from weft import rpc
from weft.agents import echo
from weft.agents.messaging import once
from weft.agents.messaging.once import SQL
from weft.agents.messaging.served import ATTEMPT_KEY, metadata_of
from weft.agents.messaging.subscribed import typed
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.postgres import Database, Transaction
from weft.rpc.testing import channel_for
from weft.v1 import message_pb2

Delivery = message_pb2.MessageDelivery


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with await Database.connect(database_url, schema="once") as opened:
        await opened.migrate(SQL)
        yield opened


class Work:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.done = 0

    async def once(self) -> None:
        async def work(_: Transaction) -> empty_pb2.Empty:
            self.done += 1
            return empty_pb2.Empty()

        await once(self._database, empty_pb2.Empty, work)


class Agent(echo.Echo):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    async def Say(
        self, request: echo_pb2.SayRequest, context: echo.Context
    ) -> echo_pb2.SayResponse:
        call = rpc.current_call()
        assert call is not None
        assert call.first(ATTEMPT_KEY) is not None
        await self._work.once()
        return echo_pb2.SayResponse()


def delivery(sender: str, message_id: str, recipient: str = "") -> Delivery:
    message = message_pb2.Message(sender=sender, id=message_id, recipient=recipient)
    return Delivery(message=message, attempt=1)


async def test_names_that_only_look_alike_together_are_different_messages(
    database: Database,
) -> None:
    work = Work(database)
    add = echo_pb2_grpc.add_EchoServiceServicer_to_server
    async with channel_for(add, Agent(work)) as channel:
        say = echo_pb2_grpc.EchoServiceStub(channel).Say
        for names in (("a/b", "c"), ("a", "b/c"), ("a%2Fb", "c")):
            await say(echo_pb2.SayRequest(), metadata=metadata_of(delivery(*names)))
    assert work.done == 3


async def test_each_recipient_of_a_broadcast_handles_it(database: Database) -> None:
    work = Work(database)
    add = echo_pb2_grpc.add_EchoServiceServicer_to_server
    async with channel_for(add, Agent(work)) as channel:
        say = echo_pb2_grpc.EchoServiceStub(channel).Say
        for recipient in ("one", "two", "two"):
            metadata = metadata_of(delivery("me", "1", recipient))
            await say(echo_pb2.SayRequest(), metadata=metadata)
    assert work.done == 2


async def test_a_handler_of_a_topic_does_its_work_once(database: Database) -> None:
    work = Work(database)

    async def on_event(event: echo_pb2.SayRequest) -> None:
        await work.once()

    for queue in ("echo.first", "echo.first", "echo.second"):
        # A task of its own, as with each delivery.
        await asyncio.ensure_future(typed(on_event, queue)(delivery("me", "1")))
    assert work.done == 2
