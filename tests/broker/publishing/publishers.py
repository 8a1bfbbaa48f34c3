"""A stream of publishes that shows what became of each message."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from tests.broker.clients import Client

from weft import rpc
from weft.rpc import error_from_call, error_from_status
from weft.v1 import broker_pb2 as pb
from weft.v1 import message_pb2


class Publisher:
    """The stream. Messages are numbered from 0."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.sent = 0
        self.accepted: Counter[int] = Counter()
        self.duplicates: set[int] = set()
        self.refused: dict[int, rpc.Error] = {}
        self.frames = 0
        self.error: rpc.Error | None = None
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def send(self, messages: Sequence[message_pb2.Message]) -> None:
        """Sends one frame."""
        await self.stream.write(pb.PublishStreamRequest(messages=messages))
        self.sent += len(messages)

    async def answered(self, count: int | None = None, within: float = 10) -> None:
        """Returns when so many messages, or all that were sent, are answered."""
        expected = self.sent if count is None else count
        async with asyncio.timeout(within):
            while self.accepted.total() + len(self.refused) < expected and self.error is None:
                self._news.clear()
                await self._news.wait()

    async def end(self, within: float = 10) -> None:
        """Says that nothing more comes; returns when the broker has ended the stream."""
        await self.stream.done_writing()
        async with asyncio.timeout(within):
            await self._reading

    async def _read(self) -> None:
        try:
            while (frame := await self.stream.read()) is not grpc.aio.EOF:
                self.frames += 1
                self.accepted.update(frame.accepted)
                self.duplicates.update(frame.duplicates)
                for refusal in frame.refusals:
                    self.refused[refusal.number] = error_from_status(refusal.status)
                self._news.set()
        except grpc.aio.AioRpcError as failed:
            self.error = error_from_call(failed)
        finally:
            self._news.set()

    async def abandon(self) -> None:
        """Ends it as a death would."""
        self.stream.cancel()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


@contextlib.asynccontextmanager
async def publishing(client: Client) -> AsyncIterator[Publisher]:
    """A stream to the client's broker."""
    publisher = Publisher(client.stub.PublishStream())
    try:
        yield publisher
    finally:
        await publisher.abandon()
