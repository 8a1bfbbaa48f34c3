"""The RPC Request: a publish, and the reply to it. The reply is kept in Redis, so that any broker can give it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import uuid
from collections.abc import Callable
from typing import Any, Self

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from weft import rpc
from weft.broker.bells import Bells
from weft.broker.clock import Clock
from weft.broker.layout import replies_key, shard_of
from weft.broker.publishing.publishing import Publishing
from weft.broker.publishing.routing import read_message
from weft.v1 import broker_pb2 as pb
from weft.v1 import message_pb2
from weft.wire.v1 import frames_pb2 as wire

Context = grpc.aio.ServicerContext[Any, Any]
Run = Callable[..., Any]

_DEFAULT_WAIT = 30.0  # seconds, for callers that name no deadline
_LOOK = (
    5.0  # seconds after which a request looks for its reply though no bell rang: one may be lost
)


class Requests:
    """Awaits replies.

    Args:
        publishing: sends the requests.
        run: asks Redis.
        bells: tells of replies.
        clock: the broker's.
    """

    def __init__(self, *, publishing: Publishing, run: Run, bells: Bells, clock: Clock) -> None:
        self._publishing = publishing
        self._run = run
        self._clock = clock
        self._waiting: dict[bytes, set[_Waiting]] = {}
        bells.on_reply(self._ring)
        bells.on_reset(self._ring_all)

    async def Request(self, request: wire.Publication, _: Context) -> pb.RequestResponse:
        """See broker.proto."""
        deadline = rpc.Deadline.after_seconds(_DEFAULT_WAIT)
        if (given := rpc.Deadline.current()) is not None and not math.isinf(given.at):
            deadline = given
        try:
            async with asyncio.timeout(deadline.seconds()):
                message_id, reply = await self._ask(request.message, deadline)
        except TimeoutError:
            raise rpc.DeadlineExceeded("There was no reply in time.") from None
        return pb.RequestResponse(id=message_id, reply=message_pb2.Reply.FromString(reply))

    async def _ask(self, raw: bytes, deadline: rpc.Deadline) -> tuple[str, bytes]:
        message = read_message(raw)
        if message.topic:
            raise rpc.InvalidArgument(
                "a topic answers nobody; name a recipient", field="message.topic"
            )
        if not message.HasField("expire_time"):
            raw += self._expiry(deadline)
        message_id = message.id
        if not message_id:
            message_id = uuid.uuid4().hex
            raw += message_pb2.Message(id=message_id).SerializeToString()
        # Listening begins first: the reply of a quick handler is not missed.
        with _Waiting(self._waiting, _identity(message.sender, message_id)) as waiting:
            _, duplicate = await self._publishing.publish(raw, asked=True)
            if duplicate:  # it may have been answered long ago
                waiting.rung.set()
            return message_id, await self._reply(message, waiting)

    async def _reply(self, message: message_pb2.Message, waiting: _Waiting) -> bytes:
        while waiting.reply is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await waiting.rung.wait()
            waiting.rung.clear()
            if waiting.reply is None and (found := await self._find(message, waiting)) is not None:
                return found
        return waiting.reply

    async def _find(self, message: message_pb2.Message, waiting: _Waiting) -> bytes | None:
        shard = shard_of(message.recipient)
        found: bytes | None = await self._run(shard, "HGET", replies_key(shard), waiting.identity)
        return found

    def _expiry(self, deadline: rpc.Deadline) -> bytes:
        """The caller's deadline as the message's expiry, to be appended: nobody waits for it after that."""
        expiry = Timestamp()
        expiry.FromMilliseconds(self._clock.now_ms() + max(1, int(deadline.seconds() * 1000)))
        return message_pb2.Message(expire_time=expiry).SerializeToString()

    def _ring(self, identity: bytes, reply: bytes | None) -> None:
        for waiting in self._waiting.get(identity, ()):
            waiting.reply = reply or waiting.reply
            waiting.rung.set()

    def _ring_all(self) -> None:
        for identity in self._waiting:
            self._ring(identity, None)


def _identity(sender: str, message_id: str) -> bytes:
    return f"{sender}\0{message_id}".encode()


class _Waiting:
    """Somebody who waits for a reply, for the length of a block."""

    def __init__(self, table: dict[bytes, set[_Waiting]], identity: bytes) -> None:
        self.identity = identity
        self.rung = asyncio.Event()
        self.reply: bytes | None = None
        self._table = table

    def __enter__(self) -> Self:
        self._table.setdefault(self.identity, set()).add(self)
        return self

    def __exit__(self, *_: object) -> None:
        waiting = self._table[self.identity]
        waiting.discard(self)
        if not waiting:
            del self._table[self.identity]
