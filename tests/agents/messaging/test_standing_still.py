"""A process that was stopped for longer than its leases last handles nothing that is another's by then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TypeAlias

from weft.agents.messaging import Consumer, Publisher
from weft.broker import Broker
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2

LEASE = timedelta(seconds=2)

Admin: TypeAlias = "broker_pb2_grpc.BrokerServiceAsyncStub"

_CONSUMER = """
import asyncio, sys
from weft.agents.messaging import Consumer

async def handle(delivery):
    print(delivery.message.payload.decode(), flush=True)

async def main():
    async with Consumer(sys.argv[1], "inbox", handle, concurrency=5) as consumer:
        await consumer.connected.wait()
        print("ready", flush=True)
        await consumer.wait()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def other_process(address: str) -> AsyncIterator[Stopped]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _CONSUMER, address), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Stopped(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Stopped:
    """A consumer in a process that can be stopped."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    def stop(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)


def message(payload: str) -> message_pb2.Message:
    return message_pb2.Message(recipient="inbox", payload=payload.encode())


async def _pending(admin: Admin, count: int) -> bool:
    found = await admin.Describe(broker_pb2.DescribeRequest(queue="inbox"))
    return found.status.pending == count


async def test_what_lay_in_the_socket_of_a_stopped_process_is_not_handled_there(
    broker: Broker, admin: Admin
) -> None:
    # Long enough that a busy machine sees the messages in hand.
    policy = message_pb2.QueuePolicy()
    policy.visibility_timeout.FromTimedelta(LEASE)
    await admin.SetQueue(broker_pb2.SetQueueRequest(queue="inbox", policy=policy))
    handled: list[str] = []

    async def handle(delivery: message_pb2.MessageDelivery) -> None:
        assert delivery.attempt > 1  # the stopped process had them first
        handled.append(delivery.message.payload.decode())

    async with (
        Publisher(broker.address, sender="me") as publisher,
        other_process(broker.address) as stopped,
    ):
        assert await stopped.line() == "ready"
        for number in range(2):
            stopped.stop()
            await asyncio.gather(*(publisher.publish(message(f"{number}-{n}")) for n in range(5)))
            await wait_until(lambda: _pending(admin, 5))  # they are in its socket
            await wait_until(lambda: _pending(admin, 0))  # and its leases ran out
            async with Consumer(broker.address, "inbox", handle) as consumer:
                await consumer.connected.wait()
                await wait_until(lambda n=number: len(handled) == 5 * (n + 1))  # type: ignore[misc]
            stopped.go_on()
            await publisher.publish(message(f"fresh-{number}"))
            assert await stopped.line() == f"fresh-{number}"
    assert len(handled) == 10
