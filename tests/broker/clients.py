"""A plain client of the broker for tests: the generated stub, and a consumer that shows every frame."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import grpc

from weft import rpc
from weft.rpc import error_from_call
from weft.v1 import broker_pb2 as pb
from weft.v1 import broker_pb2_grpc, message_pb2

_NUMBERS = itertools.count()


def message(text: str = "", **more: Any) -> message_pb2.Message:
    """A message to the queue `inbox`, with an id of its own."""
    fields: dict[str, Any] = {
        "id": f"m{next(_NUMBERS)}",
        "sender": "test",
        "payload": text.encode(),
        **more,
    }
    if "topic" not in fields:
        fields.setdefault("recipient", "inbox")
    return message_pb2.Message(**fields)


class Client:
    """The stub, with errors as rpc.Error."""

    def __init__(self, channel: rpc.Channel) -> None:
        self.stub = broker_pb2_grpc.BrokerServiceStub(channel)

    async def call(self, method: str, request: Any, within: float = 10) -> Any:
        try:
            # On a busy machine the first try to connect may fail.
            calling = getattr(self.stub, method)
            return await calling(request, timeout=within, wait_for_ready=True)
        except grpc.aio.AioRpcError as failed:
            raise error_from_call(failed) from None

    async def queue(self, name: str = "inbox", **policy: Any) -> None:
        await self.call(
            "SetQueue", pb.SetQueueRequest(queue=name, policy=message_pb2.QueuePolicy(**policy))
        )

    async def publish(self, *texts: str, **more: Any) -> None:
        for text in texts:
            await self.call("Publish", pb.PublishRequest(message=message(text, **more)))

    async def status(self, name: str = "inbox") -> pb.QueueStatus:
        found = await self.call("Describe", pb.DescribeRequest(queue=name))
        return found.status

    @contextlib.asynccontextmanager
    async def consume(
        self, queue: str = "inbox", *, credit: int = 100, **opening: Any
    ) -> AsyncIterator[Consumer]:
        opening = {"consumer": "test", "declare": True, **opening}
        stream = self.stub.Consume(wait_for_ready=True)
        await stream.write(pb.ConsumeRequest(open=pb.ConsumeOpen(queue=queue, **opening)))
        consumer = Consumer(stream)
        consumer.opened = (await consumer.frame()).opened
        if credit:
            await consumer.say(credit=credit)
        try:
            yield consumer
        finally:
            consumer.abandon()


class Consumer:
    """A consumption."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.opened = pb.ConsumeOpened()
        self.deliveries: asyncio.Queue[message_pb2.MessageDelivery] = asyncio.Queue()
        self.failures: list[pb.SettleFailure] = []
        self.settled = 0
        self.draining = asyncio.Event()
        self._news = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def frame(self) -> pb.ConsumeResponse:
        try:
            found = await self.stream.read()
        except grpc.aio.AioRpcError as failed:
            raise error_from_call(failed) from None
        assert found is not grpc.aio.EOF
        return found  # type: ignore[no-any-return]

    async def last(self) -> None:
        """Reads to the end; raises what it ends with."""
        while True:
            await self.frame()

    def _start(self) -> None:
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            while (frame := await self.stream.read()) is not grpc.aio.EOF:
                for delivery in frame.deliveries:
                    self.deliveries.put_nowait(delivery)
                self.failures += frame.failures
                self.settled = frame.settled
                if frame.draining:
                    self.draining.set()
                self._news.set()

    async def say(self, **fields: Any) -> None:
        self._start()
        await self.stream.write(pb.ConsumeRequest(**fields))

    async def next(self, within: float = 5) -> message_pb2.MessageDelivery:
        self._start()
        async with asyncio.timeout(within):
            return await self.deliveries.get()

    async def take(self, count: int) -> list[message_pb2.MessageDelivery]:
        return [await self.next() for _ in range(count)]

    async def texts(self, count: int) -> list[str]:
        return [one.message.payload.decode() for one in await self.take(count)]

    async def nothing(self, within: float = 0.1) -> None:
        """Nothing comes for a while."""
        try:
            found = await self.next(within)
        except TimeoutError:
            return
        raise AssertionError(f"{found.message.payload!r} was delivered")

    async def ack(self, *deliveries: message_pb2.MessageDelivery) -> None:
        """Acknowledges, and waits until that is safe."""
        await self.settle(len(deliveries), ack=[one.lease_id for one in deliveries])

    async def settle(self, count: int, **fields: Any) -> None:
        expected = self.settled + count
        await self.say(**fields)
        async with asyncio.timeout(5):
            while self.settled < expected:
                self._news.clear()
                await self._news.wait()

    async def leave(self) -> None:
        """Ends the stream in good order."""
        await self.say(leave=True)
        if self._reading is not None:
            async with asyncio.timeout(5):
                await self._reading

    def abandon(self) -> None:
        """Ends it as a death would."""
        self.stream.cancel()
        if self._reading is not None:
            self._reading.cancel()
