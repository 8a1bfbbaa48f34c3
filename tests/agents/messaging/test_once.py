"""Effects in PostgreSQL that happen once, however often their message is delivered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from weft import rpc
from weft.agents.messaging.once import SQL, forget, once
from weft.agents.messaging.served import metadata_of
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.postgres import Database, Transaction
from weft.rpc.testing import channel_for
from weft.v1 import message_pb2


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with await Database.connect(database_url, schema="once") as opened:
        await opened.migrate(SQL)
        yield opened


class Counting(echo_pb2_grpc.EchoServiceServicer):
    """Counts how often its work was done, and fails when it is told to."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.done = 0

    async def Say(self, request: echo_pb2.SayRequest, context: object) -> echo_pb2.SayResponse:
        async def work(_: Transaction) -> echo_pb2.SayResponse:
            self.done += 1
            await asyncio.sleep(0.02)
            if request.fail_with:
                raise rpc.Unavailable
            return echo_pb2.SayResponse(text=f"{request.text} {self.done}")

        return await once(self._database, echo_pb2.SayResponse, work)


def named(message_id: str, sender: str = "me") -> message_pb2.MessageDelivery:
    return message_pb2.MessageDelivery(
        message=message_pb2.Message(id=message_id, sender=sender), attempt=1
    )


async def test_a_message_is_worked_on_once_and_answered_alike(database: Database) -> None:
    agent = Counting(database)
    add = echo_pb2_grpc.add_EchoServiceServicer_to_server
    async with channel_for(add, agent) as channel:
        say = echo_pb2_grpc.EchoServiceStub(channel).Say
        request = echo_pb2.SayRequest(text="hello")
        both = await asyncio.gather(*(say(request, metadata=metadata_of(named("1"))) for _ in "ab"))
        assert [one.text for one in both] == ["hello 1", "hello 1"]
        assert (await say(request, metadata=metadata_of(named("2")))).text == "hello 2"
        assert (await say(request, metadata=metadata_of(named("1", "you")))).text == "hello 3"
        assert [(await say(request)).text for _ in "ab"] == ["hello 4", "hello 5"]


async def test_work_that_fails_is_done_again(database: Database) -> None:
    agent = Counting(database)
    add = echo_pb2_grpc.add_EchoServiceServicer_to_server
    async with channel_for(add, agent) as channel:
        say = echo_pb2_grpc.EchoServiceStub(channel).Say
        with pytest.raises(Exception, match="UNAVAILABLE"):
            await say(echo_pb2.SayRequest(fail_with=1), metadata=metadata_of(named("1")))
        again = await say(echo_pb2.SayRequest(text="now"), metadata=metadata_of(named("1")))
        assert again.text == "now 2"


async def test_what_was_handled_long_ago_is_forgotten(database: Database) -> None:
    agent = Counting(database)
    add = echo_pb2_grpc.add_EchoServiceServicer_to_server
    async with channel_for(add, agent) as channel:
        say = echo_pb2_grpc.EchoServiceStub(channel).Say
        await say(echo_pb2.SayRequest(), metadata=metadata_of(named("1")))
        assert await forget(database, timedelta(hours=1)) == 0
        assert await forget(database, timedelta(0)) == 1
