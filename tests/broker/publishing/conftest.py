"""Brokers, and clients of them; and a broker's publishing alone, where its limits are to be small."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.broker.clients import Client
from tests.broker.servers import Server

from weft import rpc
from weft.broker import Broker
from weft.broker.bells import Bells
from weft.broker.clock import Clock
from weft.broker.functions import SOURCE, Functions
from weft.broker.publishing import Payloads, Publishing, Requests, Rounds
from weft.broker.queues import Queues
from weft.broker.redis import Redis
from weft.broker.service import BrokerService
from weft.postgres import Database

Start = Callable[..., Awaitable[Client]]


@pytest.fixture
def redis_server(redis_program: Path, server_folder: Path) -> Iterator[Callable[..., Server]]:
    """redis_server(appendfsync="everysec", ...) is a server of this test's own, not started yet."""
    made: list[Server] = []

    def make(**settings: Any) -> Server:
        made.append(Server(redis_program, server_folder / f"{len(made)}", **settings))
        return made[-1]

    yield make
    for server in made:
        server.kill()


class Direct(Client):
    """A client that can also send bytes."""

    def __init__(self, channel: rpc.Channel) -> None:
        super().__init__(channel)
        self.channel = channel


async def connected(stack: contextlib.AsyncExitStack, address: str) -> Direct:
    """A client that has its connection: on a busy machine the first try may fail."""
    channel = await stack.enter_async_context(rpc.Channel(address))
    async with asyncio.timeout(15):
        await channel.channel_ready()
    return Direct(channel)


@pytest_asyncio.fixture
async def start(redis_url: str) -> AsyncIterator[Start]:
    """start() begins a broker on the Redis of this test; a client of it."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(url: str = redis_url, **options: Any) -> Client:
            options = {"grace": timedelta(seconds=0.5), **options}
            broker = await stack.enter_async_context(
                Broker(redis_url=url, address="127.0.0.1:0", **options)
            )
            return await connected(stack, broker.address)

        yield started


@pytest_asyncio.fixture
async def client(start: Start) -> Client:
    """A client of one broker that has the queue `inbox`."""
    found = await start()
    await found.queue()
    return found


class Alone:
    """The publishing of a broker, without the rest of it."""

    def __init__(
        self,
        redis: Redis,
        database: Database | None,
        *,
        patience: float = 10,
        inline_limit: int = 1_000,
    ) -> None:
        clock = Clock()
        self.bells = Bells(redis, "alone")
        self.functions = functions = Functions(redis, "alone", self.bells, archive=False)
        self.queues = Queues(redis, functions, self.bells)
        self.payloads = Payloads(database, inline_limit=inline_limit)
        self.rounds = Rounds(functions, clock, patience=timedelta(seconds=patience))
        self.publishing = Publishing(
            rounds=self.rounds,
            queues=self.queues,
            clock=clock,
            payloads=self.payloads,
            max_message=8 * 1024 * 1024,
        )
        self.requests = Requests(
            publishing=self.publishing, run=redis.run, bells=self.bells, clock=clock
        )
        redis.listen(self.bells.heard, self.bells.reset)


@pytest_asyncio.fixture
async def alone(
    redis_url: str,
) -> AsyncIterator[Callable[..., Awaitable[tuple[Alone, Client]]]]:
    """alone() serves publishing only: its parts, and a client of it. It has the queue `inbox`."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(
            url: str = redis_url, database: Database | None = None, **options: Any
        ) -> tuple[Alone, Client]:
            redis = await Redis.connect(url, library=SOURCE)
            stack.push_async_callback(redis.close)
            parts = Alone(redis, database, **options)
            await parts.queues.declare("inbox")
            stack.push_async_callback(parts.rounds.settle)
            server = rpc.Server("127.0.0.1:0", max_message_bytes=16 * 1024 * 1024)
            service = BrokerService([parts.publishing, parts.requests])
            server.add(service.add_to, service)
            await server.start()
            stack.push_async_callback(server.stop, timedelta(0))
            return parts, await connected(stack, server.address)

        yield started
