"""The broker at rest and full: 1,000 idle consumers on 1,000 queues; a queue with a million messages.

idle_cpu is a fraction of one core. rate_with_million_publish and rate_with_million_consume compare a queue that holds a
million messages of 1 KB with an empty one, in turns.

python benchmarks/broker_idle.py [--json] [--queues 1000] [--messages 1000000] [--rounds 3]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Sequence
from typing import Any

import measure
import uvloop

import broker as bench
from weft import rpc
from weft.agents.messaging import Consumer, Publisher
from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2

_IDLE = 20.0  # seconds
_SAMPLE = 20_000  # messages of a rate


async def role_idle(address: str, count: str) -> None:
    """Consumes `count` queues on one channel, with nothing to do."""
    total = int(count)
    async with rpc.Channel(address) as channel:
        stub = broker_pb2_grpc.BrokerServiceStub(channel)
        streams = []
        for number in range(total):
            stream: Any = stub.Consume()
            opening = broker_pb2.ConsumeOpen(queue=f"idle-{number}", declare=True)
            await stream.write(broker_pb2.ConsumeRequest(open=opening, credit=10))
            await stream.read()
            streams.append(stream)
        print(json.dumps({"consumers": len(streams)}), flush=True)
        await asyncio.Event().wait()


async def fill(address: str, queue: str, count: int) -> None:
    """Publishes `count` messages as fast as it can, in memory."""
    async with Publisher(address, sender="filler") as publisher:
        for first in range(0, count, 2_000):
            await asyncio.gather(
                *(
                    publisher.publish_nowait(
                        bench.message(queue, number, message_pb2.DURABILITY_MEMORY)
                    )
                    for number in range(first, min(first + 2_000, count))
                )
            )
            if first % 50_000 == 0:
                measure.progress(f"{first:,} of {count:,} messages")


async def consume(address: str, queue: str, count: int) -> float:
    """Seconds that it takes to consume `count` messages."""
    done = asyncio.Event()
    seen = 0
    began = 0.0

    def take(deliveries: Sequence[message_pb2.MessageDelivery]) -> None:
        nonlocal seen, began
        began = began or time.perf_counter()
        seen += len(deliveries)
        for delivery in deliveries:
            consumer.ack(delivery.lease_id)
        if seen >= count:
            done.set()

    consumer = Consumer(address, queue, on_batch=take, concurrency=bench.IN_FLIGHT)
    async with consumer:
        await done.wait()
        return (time.perf_counter() - began) * count / seen


async def publish(address: str, queue: str, count: int) -> float:
    """Seconds that it takes to publish `count` messages, 100 in flight."""
    async with Publisher(address, sender="bench") as publisher:
        numbers = iter(range(count))

        async def one_after_the_other() -> None:
            for number in numbers:
                await publisher.publish_nowait(
                    bench.message(queue, number, message_pb2.DURABILITY_MEMORY)
                )

        began = time.perf_counter()
        await asyncio.gather(*(one_after_the_other() for _ in range(bench.IN_FLIGHT)))
        return time.perf_counter() - began


async def idle(url: str, queues: int) -> dict[str, float]:
    """CPU and memory of a broker whose consumers have nothing to do."""
    broker = measure.Child(bench.__file__, "broker", url, "")
    client = measure.Child(__file__, "idle", broker.told, str(queues))
    try:
        await asyncio.sleep(2)  # what follows the last consumer's coming
        began, used = time.perf_counter(), broker.cpu()
        await asyncio.sleep(_IDLE)
        share = (broker.cpu() - used) / (time.perf_counter() - began)
        return {"idle_cpu": share, "idle_broker_mib": measure.memory_of(broker.pid) / 2**20}
    finally:
        client.stop()
        broker.stop()


async def full(
    url: str, redis: int, messages: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Rates on a full queue over those on an empty one, and memory."""
    broker = measure.Child(bench.__file__, "broker", url, "")
    ratios: dict[str, list[float]] = {
        "rate_with_million_publish": [],
        "rate_with_million_consume": [],
    }
    try:
        async with rpc.Channel(broker.told) as channel:
            stub = broker_pb2_grpc.BrokerServiceStub(channel)
            for queue in ("full", "empty"):
                await stub.SetQueue(broker_pb2.SetQueueRequest(queue=queue))
            empty_redis = measure.memory_of(redis)
            await fill(broker.told, "full", messages)
            for number in range(rounds):
                seconds: dict[str, tuple[float, float]] = {}
                for queue in ("full", "empty") if number % 2 else ("empty", "full"):
                    measure.progress(f"round {number + 1} of {rounds}: {queue}")
                    published = await publish(broker.told, queue, _SAMPLE)
                    seconds[queue] = (published, await consume(broker.told, queue, _SAMPLE))
                ratios["rate_with_million_publish"].append(seconds["empty"][0] / seconds["full"][0])
                ratios["rate_with_million_consume"].append(seconds["empty"][1] / seconds["full"][1])
        return ratios, {
            "messages": messages,
            "redis_mib": measure.memory_of(redis) / 2**20,
            "redis_empty_mib": empty_redis / 2**20,
            "broker_mib": measure.memory_of(broker.pid) / 2**20,
        }
    finally:
        broker.stop()


async def main() -> None:
    """Measures and reports."""
    parser = measure.arguments(__doc__, rounds=3)
    parser.add_argument("--queues", type=int, default=1_000, help="idle queues (1,000)")
    parser.add_argument("--messages", type=int, default=1_000_000, help="queued (1,000,000)")
    options = parser.parse_args()
    if options.role:
        await role_idle(*options.rest)
        return
    with bench.server("redis-everysec") as (url, _):
        measure.progress("idle")
        figures = await idle(url, options.queues)
    ratios = {"idle_cpu": [figures.pop("idle_cpu")]}
    with bench.server("redis-everysec") as (url, redis):
        more, sizes = await full(url, redis, options.messages, options.rounds)
    ratios.update(more)
    figures.update(sizes)
    measure.progress("done")
    measure.report(
        ratios, {name: round(value, 1) for name, value in figures.items()}, as_json=options.json
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
