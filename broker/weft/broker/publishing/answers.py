"""What became of the messages of a stream, said in batches; and how far the stream may be ahead of that."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc

from weft import rpc
from weft.rpc import status_proto
from weft.v1 import broker_pb2 as pb

log = logging.getLogger("weft.broker")

Context = grpc.aio.ServicerContext[Any, Any]

_MOST_UNANSWERED = 10_000
_MOST_UNANSWERED_BYTES = 32 * 1024 * 1024
_MOST_REFUSALS = 1_000  # a frame: clients take 4 MiB


class Answers:
    """A sink of Rounds that gathers what became of messages, and writes all that is known at once.

    No timer: an answer gathers others while the write before it is under way.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._numbers: list[int] = []
        self._duplicates: list[int] = []
        self._refusals: list[pb.Refusal] = []
        self._status: tuple[rpc.Error, Any] | None = None
        self._news = asyncio.Event()
        self._said = asyncio.Event()
        self._unanswered = 0
        self._bytes = 0.0
        self._gone = False
        self.accepted = self._numbers.append

    def duplicate(self, number: int) -> None:
        """It was stored before."""
        self._numbers.append(number)
        self._duplicates.append(number)

    def refused(self, number: int, error: rpc.Error) -> None:
        """It is not stored."""
        if self._status is None or self._status[0] is not error:  # one error for a whole batch
            self._status = error, status_proto(error)
        self._refusals.append(pb.Refusal(number=number, status=self._status[1]))

    def settled(self) -> None:
        """Something is to be said."""
        self._news.set()

    def expect(self, count: int, size: int) -> None:
        """So many messages of so many bytes will be answered."""
        self._unanswered += count
        self._bytes += size

    async def room(self) -> None:
        """Returns when so little is unanswered that more may come."""
        while (
            self._unanswered > _MOST_UNANSWERED or self._bytes > _MOST_UNANSWERED_BYTES
        ) and not self._gone:
            await self._next()

    async def all_said(self) -> None:
        """Returns when everything has been answered and written, or nobody is there to hear it."""
        while self._unanswered and not self._gone:
            await self._next()

    async def write(self) -> None:
        """Writes answers until it is cancelled, or the client is gone."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                while self._numbers or self._refusals:
                    await self._say()
        except Exception:
            log.debug("a stream of publishes broke", exc_info=True)
        finally:
            self._gone = True
            self._said.set()

    async def _say(self) -> None:
        refusals = self._refusals[:_MOST_REFUSALS]
        response = pb.PublishStreamResponse(
            accepted=self._numbers, duplicates=self._duplicates, refusals=refusals
        )
        count = len(self._numbers) + len(refusals)
        self._numbers.clear()
        self._duplicates.clear()
        del self._refusals[:_MOST_REFUSALS]
        await self._context.write(response)
        # Which ones these were is not asked: messages of a stream are taken to be of one size.
        self._bytes -= self._bytes * count / self._unanswered
        self._unanswered -= count
        self._said.set()

    async def _next(self) -> None:
        self._said.clear()
        await self._said.wait()
