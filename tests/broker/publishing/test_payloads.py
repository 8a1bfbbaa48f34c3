"""Messages that are too large for Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from tests.broker.clients import Client, message
from tests.broker.publishing.conftest import Alone, Start
from tests.broker.publishing.cuts import cut_before
from tests.broker.publishing.publishers import publishing

from weft import embedded, rpc
from weft.broker.layout import PAYLOAD_ELSEWHERE, Entry, queue_key
from weft.broker.publishing.payloads import PayloadLost
from weft.postgres import Database
from weft.v1 import broker_pb2 as pb
from weft.v1 import message_pb2

LARGE = "x" * 5_000
NOW = timedelta(0)


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = await Database.connect(database_url, schema="broker")
    await found.migrate(package="weft.broker.sql")
    yield found
    await found.close()


async def entries(redis_url: str, name: str = "inbox") -> list[Entry]:
    """What a queue has in Redis."""
    async with embedded.redis_client(redis_url) as redis:
        rows: Any = await redis.xrange(f"{queue_key(name)}:2")
    return [Entry.unpack(fields[b"e"]) for _, fields in rows]


async def count(database: Database) -> int:
    found = await database._pool.fetchval("SELECT count(*) FROM payloads")
    assert isinstance(found, int)
    return found


async def test_a_large_message_comes_as_it_was_published(start: Start, database_url: str) -> None:
    client = await start(database_url=database_url)
    await client.queue()
    small, large = message("small"), message("x" * 300_000)
    async with publishing(client) as publisher:
        await publisher.send([small, large, message("last")])
        await publisher.answered()
        assert sorted(publisher.accepted) == [0, 1, 2]
        assert not publisher.refused
    assert (await client.status()).bytes < 1_000
    async with client.consume() as consumer:
        taken = {delivery.message.id: delivery.message for delivery in await consumer.take(3)}
    assert taken[large.id] == large
    assert taken[small.id] == small


async def test_only_its_id_is_in_redis(
    alone: Callable[..., Awaitable[tuple[Alone, Client]]], database: Database, redis_url: str
) -> None:
    parts, client = await alone(database=database)
    sent = message(LARGE, id="")
    given = await client.call("Publish", pb.PublishRequest(message=sent))
    [entry] = await entries(redis_url)
    assert entry.flags & PAYLOAD_ELSEWHERE
    assert len(entry.message) == 16
    sent.id = given.id
    loaded = type(sent).FromString(await parts.payloads.load(entry))
    assert loaded == sent
    assert await parts.payloads.drop_abandoned(NOW) == 0
    await parts.payloads.drop([entry])
    with pytest.raises(PayloadLost) as lost:
        await parts.payloads.load(entry)
    assert lost.value.metadata == {"message": given.id}


async def test_what_is_not_accepted_leaves_nothing_behind(
    alone: Callable[..., Awaitable[tuple[Alone, Client]]], database: Database
) -> None:
    parts, client = await alone(database=database)
    request = pb.PublishRequest(message=message(LARGE))
    for duplicate in (False, True, True):
        assert (await client.call("Publish", request)).duplicate == duplicate
    assert await count(database) == 1
    await parts.queues.set_policy("inbox", message_pb2.QueuePolicy(max_depth=1))
    with pytest.raises(rpc.ResourceExhausted):
        await client.call("Publish", pb.PublishRequest(message=message(LARGE)))
    with pytest.raises(rpc.NotFound):
        await client.call("Publish", pb.PublishRequest(message=message(LARGE, recipient="nobody")))
    assert await count(database) == 1


async def test_a_publish_that_nobody_was_told_of_is_cleaned_up_by_its_age(
    alone: Callable[..., Awaitable[tuple[Alone, Client]]], database: Database
) -> None:
    parts, _ = await alone(database=database)
    entry = Entry(LARGE.encode(), b"test\0a")
    await parts.payloads.store(entry, tentative=True)
    assert await parts.payloads.drop_abandoned() == 0
    assert await parts.payloads.drop_abandoned(NOW) == 1
    with pytest.raises(PayloadLost):
        await parts.payloads.load(entry)


async def test_a_repeated_publish_keeps_what_the_first_one_stored(
    alone: Callable[..., Awaitable[tuple[Alone, Client]]], database: Database, redis_url: str
) -> None:
    parts, client = await alone(database=database)
    request = pb.PublishRequest(message=message(LARGE))
    await client.call("Publish", request)
    # As if the broker had died before it could mark and answer.
    await database._pool.execute("UPDATE payloads SET kept = false")
    assert (await client.call("Publish", request)).duplicate
    assert await parts.payloads.drop_abandoned(NOW) == 0
    [entry] = await entries(redis_url)
    assert len(await parts.payloads.load(entry)) > len(LARGE)


async def test_without_a_database_it_is_refused(
    alone: Callable[..., Awaitable[tuple[Alone, Client]]],
) -> None:
    _, client = await alone()
    async with publishing(client) as publisher:
        await publisher.send([message(), message(LARGE), message()])
        await publisher.answered()
        assert sorted(publisher.accepted) == [0, 2]
        refused = publisher.refused[1]
        assert refused.reason == "MESSAGE_TOO_LARGE"
        assert refused.metadata["limit"] == "1000"
        assert "PostgreSQL" in refused.message


async def test_a_database_that_is_away_is_told(
    alone: Callable[..., Awaitable[tuple[Alone, Client]]],
    database: Database,
    database_url: str,
    short_folder: Path,
) -> None:
    url = urlsplit(database_url)
    [host] = parse_qs(url.query)["host"]
    folder = short_folder / "cut"
    folder.mkdir()
    name = ".s.PGSQL.5432"
    async with cut_before(Path(host) / name, folder / name) as cut:
        cuttable = url._replace(query=f"host={folder}").geturl()
        async with await Database.connect(cuttable, schema="broker") as far:
            far.load("weft.broker.sql")
            _, client = await alone(database=far)
            request = pb.PublishRequest(message=message(LARGE))
            await client.call("Publish", request)
            cut.cut(shut=True)
            with pytest.raises(rpc.Unavailable) as refused:
                await client.call("Publish", request)
            assert refused.value.reason == "STORE_UNAVAILABLE"
            assert refused.value.retry_after
            await client.call("Publish", pb.PublishRequest(message=message("small")))
            cut.shut = False
            assert (await client.call("Publish", request)).duplicate
    assert await count(database) == 1


async def test_copies_of_a_topic_have_a_payload_each(
    start: Start, database_url: str, redis_url: str
) -> None:
    client = await start(database_url=database_url)
    for name in ("one", "two"):
        subscription = pb.Subscription(name=name, pattern="a.>", queue=name)
        await client.call("Subscribe", pb.SubscribeRequest(subscription=subscription, declare=True))
    sent = message("x" * 300_000, topic="a.b")
    await client.call("Publish", pb.PublishRequest(message=sent))
    ids = set()
    for name in ("one", "two"):
        async with client.consume(name) as consumer:
            assert (await consumer.next()).message == sent
        ids |= {entry.message for entry in await entries(redis_url, name)}
    assert len(ids) == 2
