"""The RPC Request: a publish, and the reply to it. The reply is kept in Redis, so that any broker can give it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from weft import rpc
from weft.broker.bells import Bells
from weft.broker.clock import Clock
from weft.broker.layout import reply_key, shard_of
from weft.broker.publishing.publishing import Publishing
from weft.v1 import broker_pb2 as pb
from weft.v1 import message_pb2
from weft.wire.v1 import frames_pb2 as wire

Context = grpc.aio.ServicerContext[Any, Any]
Run = Callable[..., Any]

_DEFAULT_WAIT = 30.0  # seconds, for callers that name no deadline
_EXPIRY = message_pb2.Message.DESCRIPTOR.fields_by_name["expire_time"].number


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
        self._waiting: dict[bytes, set[asyncio.Event]] = {}
        bells.on_reply(self._ring)
        bells.on_reset(self._ring_all)

    async def Request(self, request: wire.Publication, _: Context) -> pb.RequestResponse:
        """See broker.proto."""
        deadline = rpc.Deadline.current() or rpc.Deadline.after_seconds(_DEFAULT_WAIT)
        raw = self._bounded(request.message, deadline)
        head = wire.Routing.FromString(raw)
        if head.topic:
            raise rpc.InvalidArgument(
                "a topic answers nobody; name a recipient", field="message.topic"
            )
        rung = asyncio.Event()
        if head.id:
            # Listening begins first: the reply of a quick handler is not missed.
            with _Waiting(self._waiting, f"{head.sender}\0{head.id}".encode(), rung):
                message_id, _duplicate = await self._publishing.publish(raw)
                reply = await self._reply(head, message_id, rung)
        else:
            message_id, _duplicate = await self._publishing.publish(raw)
            with _Waiting(self._waiting, f"{head.sender}\0{message_id}".encode(), rung):
                reply = await self._reply(head, message_id, rung)
        return pb.RequestResponse(id=message_id, reply=message_pb2.Reply.FromString(reply))

    async def _reply(self, head: wire.Routing, message_id: str, rung: asyncio.Event) -> bytes:
        identity = f"{head.sender}\0{message_id}".encode()
        shard = shard_of(head.recipient)
        key = reply_key(shard, identity)
        while True:
            rung.clear()
            found: bytes | None = await self._run(shard, "GET", key)
            if found is not None:
                return found
            await rung.wait()

    def _bounded(self, raw: bytes, deadline: rpc.Deadline) -> bytes:
        """The message with the caller's deadline as its expiry, unless it has one: nobody waits for it after that."""
        head = wire.Routing.FromString(raw)
        if head.HasField("expire_time"):
            return raw
        expiry = Timestamp()
        expiry.FromMilliseconds(self._clock.now_ms() + max(1, int(deadline.seconds() * 1000)))
        return raw + wire.Routing(expire_time=expiry).SerializeToString()

    def _ring(self, identity: bytes) -> None:
        for event in self._waiting.get(identity, ()):
            event.set()

    def _ring_all(self) -> None:
        for identity in self._waiting:
            self._ring(identity)


class _Waiting:
    """Somebody who waits for a reply, for the length of a block."""

    def __init__(
        self, table: dict[bytes, set[asyncio.Event]], identity: bytes, rung: asyncio.Event
    ) -> None:
        self._table = table
        self._identity = identity
        self._rung = rung

    def __enter__(self) -> None:
        self._table.setdefault(self._identity, set()).add(self._rung)

    def __exit__(self, *_: object) -> None:
        waiting = self._table[self._identity]
        waiting.discard(self._rung)
        if not waiting:
            del self._table[self._identity]
