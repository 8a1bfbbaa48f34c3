"""The RPCs History and Replay: messages and what became of them, from Redis and the archive. They only read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc

from weft import rpc
from weft.broker import layout
from weft.broker.archive import notes
from weft.broker.archive.notes import Sends
from weft.broker.errors import ArchiveUnavailable, QueueUnknown
from weft.broker.layout import GROUP, PRIORITIES, Entry
from weft.broker.publishing.payloads import Payloads
from weft.broker.queues import Queue, Queues
from weft.postgres import Database
from weft.rpc import paging
from weft.v1 import broker_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]
Place = tuple[int, str]  # when it was published, in ms, and its entry: the order of records

_PAGE, _MAX_PAGE = 50, 1_000
_CHUNK = 500
_MOST_FRAME = 1024 * 1024
_FIRST: Place = (-1, "")
_LAST: Place = (253_402_300_799_000, "~")


@dataclass(slots=True)
class _Found:
    """A record with its place in the order."""

    place: Place
    record: pb.Record


class History:
    """Handlers of weft.v1.BrokerService, as broker.proto describes them.

    Args:
        redis: has what is live.
        queues: all there are.
        payloads: have the large messages.
        database: has the archive; None: there is none.
    """

    def __init__(
        self, *, redis: Sends, queues: Queues, payloads: Payloads, database: Database | None
    ) -> None:
        self._redis = redis
        self._queues = queues
        self._payloads = payloads
        self._database = database

    async def History(self, request: pb.HistoryRequest, _: Context) -> pb.HistoryResponse:
        """See broker.proto."""
        size = paging.page_size(request.page_size, default=_PAGE, most=_MAX_PAGE)
        made_for = f"history {request.queue} {request.filter.SerializeToString().hex()}"
        begin = paging.page_begin(request.page_token, made_for=made_for, like=_LAST)
        behind: Place = (int(begin[0]), str(begin[1])) if begin else _LAST
        response = pb.HistoryResponse()
        last: Place = behind
        async for found in self._records(
            request.queue, request.filter, behind=behind, newest_first=True, most=size + 1
        ):
            if len(response.records) == size:
                response.next_page_token = paging.page_token(last, made_for=made_for)
                break
            if request.without_payload:
                found.record.message.ClearField("payload")
            response.records.append(found.record)
            last = found.place
        return response

    async def Replay(
        self, request: pb.ReplayRequest, _: Context
    ) -> AsyncIterator[pb.ReplayResponse]:
        """See broker.proto."""
        response = pb.ReplayResponse()
        size = count = 0
        async for found in self._records(
            request.queue, request.filter, behind=_FIRST, newest_first=False, most=request.limit
        ):
            response.records.append(found.record)
            size += len(found.record.message.payload)
            count += 1
            if size > _MOST_FRAME or len(response.records) >= _CHUNK:
                yield response
                response, size = pb.ReplayResponse(), 0
            if request.limit and count >= request.limit:
                break
        if response.records:
            yield response

    async def _records(
        self,
        name: str,
        given: pb.MessageFilter,
        *,
        behind: Place,
        newest_first: bool,
        most: int,
    ) -> AsyncIterator[_Found]:
        """All that match, in order: what is in Redis and what is archived, merged."""
        queue = self._queues.get(name)
        if queue is None and not await self._is_archived(name):
            raise QueueUnknown(f"There is no queue {name[:128]!r}.", metadata={"queue": name[:128]})
        matches = _matcher(given)
        live = []
        if queue is not None:
            live = [found for found in await self._in_redis(queue) if matches(found.record)]
        live = [found for found in live if (found.place < behind) == newest_first]
        live = [found for found in live if found.place != behind]
        live.sort(key=lambda found: found.place, reverse=newest_first)
        seen = {found.place for found in live}
        index = 0
        archived = self._archived(name, given, behind=behind, newest_first=newest_first, most=most)
        async for found in archived:
            while index < len(live) and (live[index].place > found.place) == newest_first:
                yield live[index]
                index += 1
            if found.place not in seen:
                yield found
        for found in live[index:]:
            yield found

    # -- the archive

    async def _is_archived(self, name: str) -> bool:
        return self._database is not None and bool(
            await self._database.fetchval("has_messages", name)
        )

    async def _archived(
        self,
        name: str,
        given: pb.MessageFilter,
        *,
        behind: Place,
        newest_first: bool,
        most: int,
    ) -> AsyncIterator[_Found]:
        if self._database is None or given.outcome in {pb.OUTCOME_LIVE, pb.OUTCOME_DEAD}:
            return
        statement = "newest_messages" if newest_first else "oldest_messages"
        chunk = min(_CHUNK, most) if most else _CHUNK
        while True:
            try:
                rows = await self._database.fetch(
                    statement,
                    *(name, _time(max(0, behind[0])), behind[1]),
                    given.from_time.ToDatetime(UTC) if given.HasField("from_time") else None,
                    given.to_time.ToDatetime(UTC) if given.HasField("to_time") else None,
                    *(given.id, given.key, given.sender, given.method, given.topic),
                    *(given.correlation_id, given.conversation, given.outcome, chunk),
                )
            except rpc.Unavailable as away:
                raise ArchiveUnavailable(retry_after=timedelta(seconds=1)) from away
            for row in rows:
                yield _from_row(row)
            if len(rows) < chunk:
                return
            behind = _place(rows[-1])

    # -- Redis

    async def _in_redis(self, queue: Queue) -> list[_Found]:
        """What Redis has of a queue: waiting, in hand, delayed, dead, and finished but not archived."""
        found: list[_Found] = []
        finished = await self._finished(queue)
        for priority in PRIORITIES:
            found += await self._stream(queue, priority, finished)
        delayed, keys = await asyncio.gather(
            self._redis.send(queue.shard, "HGETALL", f"{queue.key}:h"),
            self._redis.send(queue.shard, "HKEYS", f"{queue.key}:k"),
        )
        for number, stored in zip(delayed[::2], delayed[1::2], strict=True):
            found.append(await self._live(queue, f"z:{number.decode()}", stored, delivered=False))
        waiting = await asyncio.gather(
            *(
                self._redis.send(
                    queue.shard, "LRANGE", b"%s:w:%s" % (queue.key.encode(), key), 0, -1
                )
                for key in keys
            )
        )
        for key, entries in zip(keys, waiting, strict=True):
            for position, stored in enumerate(entries):
                entry_id = f"w:{key.decode()}:{position:09}"
                found.append(await self._live(queue, entry_id, stored, delivered=False))
        dead = await self._redis.send(queue.shard, "XRANGE", f"{queue.key}:x", "-", "+")
        for dead_id, fields in dead:
            known = dict(zip(fields[::2], fields[1::2], strict=True))
            one = await self._live(queue, f"x:{dead_id.decode()}", known[b"e"], delivered=True)
            one.record.outcome = pb.OUTCOME_DEAD
            one.record.finish_time.FromMilliseconds(int(known[b"t"]))
            found.append(one)
        return found

    async def _finished(self, queue: Queue) -> dict[str, notes.Note]:
        """Leases of the queue that are finished and not archived yet."""
        rows = await self._redis.send(queue.shard, "XRANGE", layout.done_key(queue.shard), "-", "+")
        return {
            lease.decode(): note
            for note in map(notes.Note.of, rows)
            if note.queue == queue.name
            for lease in note.leases
        }

    async def _stream(
        self, queue: Queue, priority: int, finished: dict[str, notes.Note]
    ) -> list[_Found]:
        stream = f"{queue.key}:{priority}"
        rows = await self._redis.send(queue.shard, "XRANGE", stream, "-", "+")
        pending = await self._redis.send(
            queue.shard, "XPENDING", stream, GROUP, "-", "+", max(1, len(rows))
        )
        in_hand = {row[0] for row in pending}
        found = []
        for entry_id, fields in rows:
            lease = f"{priority}:{entry_id.decode()}"
            note = finished.get(lease)
            delivered = note is not None or entry_id in in_hand
            one = await self._live(queue, lease, fields[1], delivered=delivered)
            if note is not None:
                one.record.outcome = note.outcome  # type: ignore[assignment]  # a digit that was an Outcome
                one.record.finish_time.FromMilliseconds(note.finish_ms)
                one.record.consumer = note.consumer
            found.append(one)
        return found

    async def _live(self, queue: Queue, entry_id: str, stored: bytes, *, delivered: bool) -> _Found:
        entry = Entry.unpack(stored)
        record = pb.Record(
            queue=queue.name,
            outcome=pb.OUTCOME_LIVE,
            attempts=entry.attempt if delivered else entry.attempt - 1,
        )
        record.publish_time.FromMilliseconds(entry.published)
        try:
            record.message.ParseFromString(await self._payloads.load(entry))
        except rpc.Error:  # its head is still worth showing
            sender, _, message_id = entry.identity.decode().partition("\0")
            record.message.sender, record.message.id = sender, message_id
        return _Found((entry.published, entry_id), record)


def _matcher(given: pb.MessageFilter) -> Callable[[pb.Record], bool]:
    begin = given.from_time.ToMilliseconds() if given.HasField("from_time") else None
    end = given.to_time.ToMilliseconds() if given.HasField("to_time") else None
    wanted: Sequence[tuple[str, str]] = [
        (name, value)
        for name in ("id", "key", "sender", "method", "topic", "correlation_id", "conversation")
        if (value := getattr(given, name))
    ]

    def matches(record: pb.Record) -> bool:
        published = record.publish_time.ToMilliseconds()
        return (
            given.outcome in {pb.OUTCOME_UNSPECIFIED, record.outcome}
            and (begin is None or published >= begin)
            and (end is None or published < end)
            and all(getattr(record.message, name) == value for name, value in wanted)
        )

    return matches


def _place(row: asyncpg.Record) -> Place:
    return round(row["publish_time"].timestamp() * 1000), row["entry_id"]


def _from_row(row: asyncpg.Record) -> _Found:
    record = pb.Record(
        queue=row["queue"],
        outcome=row["outcome"],
        attempts=row["attempts"],
        consumer=row["consumer"],
    )
    record.message.ParseFromString(row["message"])
    record.publish_time.FromDatetime(row["publish_time"])
    record.finish_time.FromDatetime(row["finish_time"])
    return _Found(_place(row), record)


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
