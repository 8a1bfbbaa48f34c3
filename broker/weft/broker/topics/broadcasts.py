"""The RPC Broadcast: one message to every queue whose name matches."""

from __future__ import annotations

import copy
import fnmatch
import re
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol

import grpc

from weft import rpc
from weft.broker.clock import Clock
from weft.broker.errors import RateLimited
from weft.broker.publishing.routing import Routed, route
from weft.broker.queues import Queue, Queues
from weft.broker.speakers import Speakers
from weft.broker.topics.copies import Copies, KeepsLarge, Puts
from weft.v1 import broker_pb2 as pb
from weft.v1.message_pb2 import Message

Context = grpc.aio.ServicerContext[Any, Any]

_PATTERN = re.compile(r"[a-z0-9._*-]{1,128}")
_MOST_NAMED = 20
_NOBODY = "nobody"  # stands for the recipient while a message is checked


class Limits(Protocol):
    """What is used of weft.broker.senders.Senders."""

    def check(self, sender: str, count: int) -> float:
        """Seconds until the sender may publish so many messages; 0: now, and they are counted."""


class Broadcasts:
    """Handler of weft.v1.BrokerService.Broadcast.

    Args:
        queues: all there are.
        publishing: takes the copies.
        payloads: keep the large ones.
        senders: a broadcast counts as one message of its sender.
        clock: the broker's.
        max_message: largest message, in bytes.
        speakers: in whose name callers may send; None: in anybody's.
    """

    def __init__(
        self,
        *,
        queues: Queues,
        publishing: Puts,
        payloads: KeepsLarge,
        senders: Limits,
        clock: Clock,
        max_message: int,
        speakers: Speakers | None = None,
    ) -> None:
        self._speakers = speakers
        self._queues = queues
        self._copies = Copies(publishing, payloads)
        self._senders = senders
        self._clock = clock
        self._max_message = max_message

    async def Broadcast(self, request: pb.BroadcastRequest, _: Context) -> pb.BroadcastResponse:
        """See broker.proto."""
        _check(request)
        message = Message()
        message.CopyFrom(request.message)
        message.id = message.id or uuid.uuid4().hex
        self._routed(message, _NOBODY)
        if self._speakers is not None:
            self._speakers.check_sender(message.sender)
        if wait := self._senders.check(message.sender, 1):
            raise RateLimited(
                f"{message.sender!r} sends more messages a second than its limit allows.",
                retry_after=timedelta(seconds=wait),
            )
        await self._queues.load()  # those that other brokers made a moment ago count
        queues = [
            queue
            for name in self._queues.names()
            if not name.startswith("_") and fnmatch.fnmatchcase(name, request.pattern)
            if (queue := self._queues.get(name)) is not None
        ]
        copies = [(queue, self._routed(message, queue.name)) for queue in queues]
        failed = await self._copies.put(copies)
        if failed:
            raise _incomplete(message.id, queues, failed)
        return pb.BroadcastResponse(id=message.id, queues=[queue.name for queue in queues])

    def _routed(self, message: Message, recipient: str) -> Routed:
        message.recipient = recipient
        raw = message.SerializeToString()
        return route(raw, self._clock.now_ms(), self._max_message)


def _check(request: pb.BroadcastRequest) -> None:
    wrong = [
        (f"message.{field}", "must be empty in a broadcast")
        for field in ("recipient", "topic")
        if getattr(request.message, field)
    ]
    if not _PATTERN.fullmatch(request.pattern):
        wrong.append(("pattern", 'must be 1 to 128 characters of a-z, 0-9, "-", "_", "." and "*"'))
    if wrong:
        raise rpc.InvalidArgument(violations=wrong)


def _incomplete(message_id: str, queues: list[Queue], failed: Mapping[str, rpc.Error]) -> rpc.Error:
    """The error of the first queue that did not accept it, with the names of all."""
    first = next(iter(failed.values()))
    named = [f"{name} ({why.reason})" for name, why in failed.items()]
    more = ", ..." if len(named) > _MOST_NAMED else ""
    error = copy.copy(first)
    error.message = (
        f"{len(failed)} of {len(queues)} queues did not accept it: {', '.join(named[:_MOST_NAMED])}"
        f"{more}. Broadcast it again with the id {message_id!r}: the others will not store it twice."
    )
    error.metadata = {
        **first.metadata,
        "id": message_id,
        "failed": ",".join(list(failed)[:_MOST_NAMED]),
    }
    return error
