"""Redis goes away in the middle: nothing that was accepted is lost, and nothing is there twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.broker.clients import message
from tests.broker.publishing.conftest import Alone, Start
from tests.broker.publishing.cuts import Cut, cut_before
from tests.broker.publishing.publishers import Publisher, publishing
from tests.broker.servers import Server

from weft.broker import layout
from weft.broker.redis import ConnectionLost
from weft.rpc.testing import wait_until
from weft.v1 import message_pb2

SAFE = [message_pb2.DURABILITY_MEMORY, message_pb2.DURABILITY_DURABLE]


@pytest_asyncio.fixture
async def server(redis_server: Callable[..., Server]) -> Server:
    """A Redis that may be killed."""
    found = redis_server()
    await found.start()
    return found


@pytest_asyncio.fixture
async def cut(server: Server) -> AsyncIterator[Cut]:
    """The way to it."""
    async with cut_before(server.socket, way(server)) as found:
        yield found


def way(server: Server) -> Path:
    """The socket of the cut before a server."""
    return server.folder / "c"


def through(server: Server) -> str:
    """The URL of the way to a server that can be cut."""
    return f"unix://{way(server)}"


async def stored(server: Server) -> int:
    """How many messages the queue has taken."""
    return int(await server.do("HGET", f"{layout.queue_key('inbox')}:m", "p") or 0)


async def swallowed(server: Server, cut: Cut, publisher: Publisher, frame: Any) -> None:
    """Sends a frame that Redis stores, and whose answer is lost."""
    before = await stored(server)
    cut.deaf = True
    await publisher.send(frame)

    async def there() -> bool:
        return await stored(server) > before

    await wait_until(there)
    cut.cut()


@pytest.mark.parametrize("durability", SAFE)
async def test_a_batch_whose_answer_is_lost_is_stored_once(
    server: Server, cut: Cut, start: Start, durability: message_pb2.Durability
) -> None:
    client = await start(through(server))
    await client.queue(durability=durability)
    await client.publish("before", id="same")
    async with publishing(client) as publisher:
        frame = [message(str(number)) for number in range(200)]
        await swallowed(server, cut, publisher, [*frame, message(id="")])
        await publisher.answered()
        assert publisher.accepted == Counter(range(201))
        assert not publisher.duplicates
        assert not publisher.refused
        # What was there before is still told from what was only sent twice.
        await publisher.send([message(id="same")])
        await publisher.answered()
        assert publisher.duplicates == {201}
    assert (await client.status()).depth == 202
    async with client.consume(credit=202) as consumer:
        assert await consumer.texts(202) == ["before", *map(str, range(200)), ""]


async def test_order_holds_within_a_key_when_a_batch_is_repeated(
    server: Server, cut: Cut, start: Start
) -> None:
    client = await start(through(server))
    await client.queue()
    async with publishing(client) as publisher:
        for begin in range(0, 40, 10):
            frame = [message(str(begin + more), key="k") for more in range(10)]
            if begin == 10:
                await swallowed(server, cut, publisher, frame)
            else:
                await publisher.send(frame)
        await publisher.answered()
        assert len(publisher.accepted) == 40
    async with client.consume() as consumer:
        for number in range(40):
            delivery = await consumer.next()
            assert delivery.message.payload == str(number).encode()
            await consumer.say(ack=[delivery.lease_id])


async def test_a_batch_with_keys_is_not_overtaken_while_it_is_repeated(
    server: Server, alone: Callable[..., Any]
) -> None:
    parts, client = await alone(server.url)
    store, sizes, well = parts.functions.publish, [], asyncio.Event()

    async def publish(queue: Any, entries: Any, **more: Any) -> Any:
        sizes.append(len(entries))
        if len(entries) == 2 and not well.is_set():
            raise ConnectionLost  # as if it had broken before the first batch was sent
        return await store(queue, entries, **more)

    parts.functions.publish = publish
    async with publishing(client) as publisher:
        await publisher.send([message("0", key="k"), message("1", key="k")])
        await wait_until(lambda: sizes)
        await publisher.send([message(str(number), key="k") for number in range(2, 5)])
        await wait_until(lambda: _gathered(parts) == 3 or 3 in sizes)
        well.set()
        await publisher.answered()
        assert len(publisher.accepted) == 5
    base = layout.queue_key("inbox")
    [(_, fields)] = await server.do("XRANGE", f"{base}:2", "-", "+")
    waiting = await server.do("LRANGE", f"{base}:w:k", 0, -1)
    texts = [_text(entry) for entry in (fields[b"e"], *waiting)]
    assert texts == [b"0", b"1", b"2", b"3", b"4"]


def _gathered(parts: Alone) -> int:
    return sum(
        len(batch.entries) for lane in parts.rounds._lanes.values() for batch in lane._batches
    )


def _text(entry: bytes) -> bytes:
    return message_pb2.Message.FromString(layout.Entry.unpack(entry).message).payload


async def test_publishes_outlive_the_death_of_redis(server: Server, start: Start) -> None:
    client = await start(server.url)
    await client.queue()

    async def send(name: int) -> Publisher:
        async with publishing(client) as publisher:
            for begin in range(0, 1_000, 50):
                await publisher.send(
                    [message(id=f"{name}-{begin + more}", key=f"{name}") for more in range(50)]
                )
                await publisher.answered(begin - 100)
            await publisher.answered()
            return publisher

    sending = [asyncio.create_task(send(name)) for name in range(4)]
    for share in (500, 2_000):

        async def gone_so_far(share: int = share) -> bool:
            return await stored(server) >= share

        await wait_until(gone_so_far)
        server.kill()
        await server.start()
    for publisher in await asyncio.gather(*sending):
        assert publisher.accepted == Counter(range(1_000))
        assert not publisher.refused
    assert (await client.status()).depth == 4_000
    assert await stored(server) == 4_000


async def test_a_store_that_stays_away_is_told(
    server: Server, alone: Callable[..., Any], cut: Cut
) -> None:
    _, client = await alone(through(server), patience=0.2)
    async with publishing(client) as publisher:
        await publisher.send([message(id="a")])
        await publisher.answered()
        server.kill()
        await publisher.send([message(id="b"), message(id="c", key="k")])
        await publisher.answered(within=2)
        assert sorted(publisher.refused) == [1, 2]
        assert {error.reason for error in publisher.refused.values()} == {"STORE_UNAVAILABLE"}
        await server.start()

    async def taken() -> bool:  # once the broker has found it again
        async with publishing(client) as again:
            await again.send([message(id="b"), message(id="c", key="k")])
            await again.answered()
            return len(again.accepted) == 2

    await wait_until(taken)
    assert await stored(server) == 3


async def test_without_a_memory_of_ids_nothing_is_sent_twice(
    server: Server, cut: Cut, start: Start
) -> None:
    client = await start(through(server))
    await client.queue(dedupe_window=timedelta(0))
    async with publishing(client) as publisher:
        await swallowed(server, cut, publisher, [message(id="a")])
        await publisher.answered()
        assert publisher.refused[0].reason == "STORE_UNAVAILABLE"
    assert await stored(server) == 1


async def test_no_batch_is_sent_twice_after_its_ids_may_be_forgotten(
    server: Server, cut: Cut, alone: Callable[..., Any]
) -> None:
    parts, client = await alone(through(server))
    assert isinstance(parts, Alone)
    policy = message_pb2.QueuePolicy()
    policy.dedupe_window.FromMilliseconds(50)
    await parts.queues.set_policy("inbox", policy)
    async with publishing(client) as publisher:
        cut.deaf = True
        await publisher.send([message(id="a")])
        await wait_until(lambda: stored(server))
        server.pause()  # so that it cannot be repeated in time
        cut.cut()
        await publisher.answered(within=2)
        assert publisher.refused[0].reason == "STORE_UNAVAILABLE"
        server.go_on()
    assert await stored(server) == 1


async def test_the_end_waits_for_what_is_under_way(
    server: Server, alone: Callable[..., Any]
) -> None:
    parts, client = await alone(server.url)
    async with publishing(client) as publisher:
        server.pause()
        await publisher.send([message() for _ in range(600)])
        await wait_until(lambda: parts.rounds._lanes)
        settling = asyncio.create_task(parts.rounds.settle())
        server.go_on()
        await settling
        await publisher.answered()
        assert publisher.accepted == Counter(range(600))
    assert not parts.rounds._lanes
