"""The RPCs about messages that could not be handled: list, show, edit, requeue, give up."""

from __future__ import annotations

import asyncio
import fnmatch
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import grpc

from weft import rpc
from weft.broker.clock import Clock
from weft.broker.errors import DeadLetterUnknown
from weft.broker.functions import Functions
from weft.broker.layout import PAYLOAD_ELSEWHERE, Entry
from weft.broker.publishing.payloads import Payloads
from weft.broker.queues import Queue, Queues
from weft.rpc import paging
from weft.v1 import broker_pb2 as pb
from weft.v1 import message_pb2

Context = grpc.aio.ServicerContext[Any, Any]

_ID = re.compile(r"\d{1,20}-\d{1,20}")
_PAGE, _MAX_PAGE = 50, 1_000
_MOST_IDS = 1_000
_CHUNK = 200  # dead letters looked at, or moved, at a time
_FIXED = ("id", "sender", "recipient", "topic", "key")  # what an edit leaves as it was


class Reads(Protocol):
    """What is used of weft.broker.redis.Redis."""

    async def run(self, shard: int, *command: bytes | str | float) -> Any:
        """Sends a command that may be sent twice."""


class DeadLetters:
    """Handlers of weft.v1.BrokerService, as broker.proto describes them.

    Args:
        redis: where they are read.
        functions: move them.
        queues: all there are.
        payloads: have the large ones.
        clock: the broker's.
    """

    def __init__(
        self,
        *,
        redis: Reads,
        functions: Functions,
        queues: Queues,
        payloads: Payloads,
        clock: Clock,
    ) -> None:
        self._redis = redis
        self._functions = functions
        self._queues = queues
        self._payloads = payloads
        self._clock = clock

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, _: Context
    ) -> pb.ListDeadLettersResponse:
        """See broker.proto."""
        queue = self._queues.known(request.queue)
        size = paging.page_size(request.page_size, default=_PAGE, most=_MAX_PAGE)
        made_for = f"dead {request.queue} {request.filter.SerializeToString().hex()}"
        begin = paging.page_begin(request.page_token, made_for=made_for, like=("",))
        matches = _matcher(request.filter)
        response = pb.ListDeadLettersResponse()
        async for letter in self._letters(queue, behind=str(begin[0]) if begin else ""):
            if not matches(letter):
                continue
            if len(response.dead_letters) == size:
                last = response.dead_letters[-1].dead_letter_id
                response.next_page_token = paging.page_token((last,), made_for=made_for)
                break
            response.dead_letters.append(letter)
        return response

    async def GetDeadLetter(
        self, request: pb.GetDeadLetterRequest, _: Context
    ) -> pb.GetDeadLetterResponse:
        """See broker.proto."""
        queue = self._queues.known(request.queue)
        return pb.GetDeadLetterResponse(
            dead_letter=(await self._one(queue, request.dead_letter_id))[0]
        )

    async def EditDeadLetter(
        self, request: pb.EditDeadLetterRequest, _: Context
    ) -> pb.EditDeadLetterResponse:
        """See broker.proto."""
        queue = self._queues.known(request.queue)
        letter, entry = await self._one(queue, request.dead_letter_id)
        wrong = [
            (f"message.{name}", "cannot be changed")
            for name in _FIXED
            if getattr(request.message, name) != getattr(letter.message, name)
        ]
        if wrong:
            raise rpc.InvalidArgument(violations=wrong)
        if entry.flags & PAYLOAD_ELSEWHERE:
            await self._payloads.drop([entry])
            entry.flags &= ~PAYLOAD_ELSEWHERE
        entry.message = request.message.SerializeToString()
        entry.priority = request.message.priority or message_pb2.PRIORITY_NORMAL
        if self._payloads.too_large(entry):
            await self._payloads.store(entry)
        named = request.dead_letter_id.encode()
        changed = await self._functions.edit_dead(queue, named, entry.pack())
        if changed is None:
            raise _unknown(request.dead_letter_id)
        edited, _entry = await self._one(queue, changed.decode())
        return pb.EditDeadLetterResponse(dead_letter=edited)

    async def RequeueDeadLetters(
        self, request: pb.RequeueDeadLettersRequest, _: Context
    ) -> pb.RequeueDeadLettersResponse:
        """See broker.proto."""
        queue = self._queues.known(request.queue)
        count = 0
        async for ids in self._selected(queue, request.selection):
            settled = await self._functions.requeue_dead(queue, ids, now=self._clock.now_ms())
            count += settled.done
        return pb.RequeueDeadLettersResponse(requeued=count)

    async def DiscardDeadLetters(
        self, request: pb.DiscardDeadLettersRequest, _: Context
    ) -> pb.DiscardDeadLettersResponse:
        """See broker.proto."""
        queue = self._queues.known(request.queue)
        count = 0
        async for ids in self._selected(queue, request.selection):
            settled = await self._functions.discard_dead(queue, ids, now=self._clock.now_ms())
            count += settled.done
        return pb.DiscardDeadLettersResponse(discarded=count)

    async def _selected(
        self, queue: Queue, selection: pb.DeadLetterSelection
    ) -> AsyncIterator[list[bytes]]:
        """The ids that a selection means, some at a time; those that die meanwhile are left out.

        Raises:
            InvalidArgument: it selects nothing, or has an id that is none.
            DeadLetterUnknown: one of the ids is unknown.
        """
        ids = list(selection.dead_letter_ids)
        if not ids and not selection.HasField("filter"):
            raise rpc.InvalidArgument(
                "give ids, or a filter; an empty filter means all", field="selection"
            )
        if len(ids) > _MOST_IDS:
            raise rpc.InvalidArgument(
                f"must be {_MOST_IDS:,} at most", field="selection.dead_letter_ids"
            )
        if ids:
            await asyncio.gather(*(self._one(queue, one) for one in ids))
            yield [one.encode() for one in ids]
            return
        matches = _matcher(selection.filter)
        found = await self._redis.run(
            queue.shard, "XREVRANGE", f"{queue.key}:x", "+", "-", "COUNT", 1
        )
        last = _position(found[0][0].decode()) if found else (0, 0)
        chunk: list[bytes] = []
        async for letter in self._letters(queue):
            if _position(letter.dead_letter_id) > last:
                break
            if matches(letter):
                chunk.append(letter.dead_letter_id.encode())
            if len(chunk) == _CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    async def _letters(self, queue: Queue, behind: str = "") -> AsyncIterator[pb.DeadLetter]:
        """All dead letters, oldest first, behind one or from the first."""
        while True:
            rows = await self._redis.run(
                queue.shard,
                *("XRANGE", f"{queue.key}:x", f"({behind}" if behind else "-", "+"),
                *("COUNT", _CHUNK),
            )
            for row in rows:
                letter, _ = await self._read(queue, row)
                yield letter
            if len(rows) < _CHUNK:
                return
            behind = rows[-1][0].decode()

    async def _one(self, queue: Queue, dead_letter_id: str) -> tuple[pb.DeadLetter, Entry]:
        if not _ID.fullmatch(dead_letter_id):
            raise _unknown(dead_letter_id)
        rows = await self._redis.run(
            queue.shard, "XRANGE", f"{queue.key}:x", dead_letter_id, dead_letter_id
        )
        if not rows:
            raise _unknown(dead_letter_id)
        return await self._read(queue, rows[0])

    async def _read(self, queue: Queue, row: Any) -> tuple[pb.DeadLetter, Entry]:
        dead_id, fields = row
        found = dict(zip(fields[::2], fields[1::2], strict=True))
        entry = Entry.unpack(found[b"e"])
        letter = pb.DeadLetter(
            dead_letter_id=dead_id.decode(),
            queue=queue.name,
            reason=found[b"r"].decode(),
            error=found[b"m"].decode(),
            attempts=entry.attempt,
        )
        letter.publish_time.FromMilliseconds(entry.published)
        letter.dead_time.FromMilliseconds(int(found[b"t"]))
        try:
            letter.message.ParseFromString(await self._payloads.load(entry))
        except rpc.DataLoss as lost:  # what is left of it is still shown
            sender, _, message_id = entry.identity.decode().partition("\0")
            letter.message.sender, letter.message.id = sender, message_id
            letter.error = f"{letter.error} ({lost.message})"
        return letter, entry


def _matcher(given: pb.DeadLetterFilter) -> Callable[[pb.DeadLetter], bool]:
    begin = given.from_time.ToMilliseconds() if given.HasField("from_time") else None
    end = given.to_time.ToMilliseconds() if given.HasField("to_time") else None

    def matches(letter: pb.DeadLetter) -> bool:
        died = letter.dead_time.ToMilliseconds()
        return (
            (not given.reason or fnmatch.fnmatchcase(letter.reason, given.reason))
            and (begin is None or died >= begin)
            and (end is None or died < end)
            and given.sender in {"", letter.message.sender}
            and given.key in {"", letter.message.key}
            and given.method in {"", letter.message.method}
        )

    return matches


def _position(dead_letter_id: str) -> tuple[int, int]:
    time, _, sequence = dead_letter_id.partition("-")
    return int(time), int(sequence)


def _unknown(dead_letter_id: str) -> DeadLetterUnknown:
    return DeadLetterUnknown(
        f"There is no dead letter {dead_letter_id[:64]!r} in this queue; an edit gives a new id.",
        metadata={"dead_letter": dead_letter_id[:64]},
    )
