"""Copies finished messages to PostgreSQL, and only then deletes them from Redis.

One broker of all does it: whoever has the advisory lock. A crash between copy and deletion has the same messages copied
again, which changes nothing: an attempt is a row once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

from weft import rpc
from weft.broker import layout
from weft.broker.archive import notes
from weft.broker.archive.notes import Note, Sends
from weft.broker.layout import PAYLOAD_ELSEWHERE, SHARDS, Entry
from weft.broker.policy import DEFAULT
from weft.broker.publishing.payloads import Payloads
from weft.broker.queues import Queues
from weft.postgres import Database
from weft.v1.message_pb2 import Message

log = logging.getLogger("weft.broker")

_LOCK = 0x57656674  # "Weft": of all advisory locks in a database this one is ours
_PAUSE, _AGAIN = 0.5, 2.0  # seconds until the next look, after success and failure
_NOTES = 50  # read at a time
_MOST_BYTES = 4 * 1024 * 1024  # of messages, until they are copied
_MOST_NOTES = 200_000  # kept in a shard while PostgreSQL is away
_CLEANED = timedelta(hours=1)
_DROPPED = 5_000  # rows a statement forgets
_COLUMNS = (
    *(
        "queue",
        "entry_id",
        "message_id",
        "sender",
        "msg_key",
        "topic",
        "method",
        "correlation_id",
        "conversation",
    ),
    *("publish_time", "finish_time", "outcome", "attempts", "consumer", "message"),
)


class Archiver:
    """The archive of all queues.

    Args:
        redis: where finished messages wait.
        database: where they go.
        database_url: the same, for the connection that holds the lock.
        queues: know how long each is kept.
        payloads: have the large ones.
        cleaned: how often what is too old is forgotten.
    """

    def __init__(
        self,
        *,
        redis: Sends,
        database: Database,
        database_url: str,
        queues: Queues,
        payloads: Payloads,
        cleaned: timedelta = _CLEANED,
    ) -> None:
        self._redis = redis
        self._database = database
        self._database_url = database_url
        self._queues = queues
        self._payloads = payloads
        self._cleaned = cleaned.total_seconds()
        self.active = asyncio.Event()

    async def run(self) -> None:
        """Archives for ever, whenever no other broker does; for a task of its own."""
        while True:
            try:
                await self._lead()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, rpc.Error):
                log.warning("the archive waits: PostgreSQL or Redis is away", exc_info=True)
            self.active.clear()
            with contextlib.suppress(rpc.Error):
                await self._bound()
            await asyncio.sleep(_AGAIN)

    async def _lead(self) -> None:
        connection = await asyncpg.connect(self._database_url)
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ended(_: object) -> None:
            if not lost.done():
                lost.set_result(None)

        connection.add_termination_listener(ended)
        try:
            # Answers when no other broker holds it.
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK, timeout=None)
            self.active.set()
            log.info("this broker archives")
            async with asyncio.TaskGroup() as tasks:
                working = [tasks.create_task(self._archive()), tasks.create_task(self._clean())]
                await asyncio.wait({lost, *working}, return_when=asyncio.FIRST_COMPLETED)
                for task in working:
                    task.cancel()
        except* (rpc.Error, OSError) as failed:
            raise failed.exceptions[0] from None
        finally:
            connection.terminate()

    async def _archive(self) -> None:
        while True:
            lengths = await asyncio.gather(
                *(self._redis.send(n, "XLEN", layout.done_key(n)) for n in range(SHARDS))
            )
            waiting = [shard for shard, length in enumerate(lengths) if length]
            while waiting:
                waiting = await self._some(waiting)
            await asyncio.sleep(_PAUSE)

    async def _some(self, waiting: Sequence[int]) -> list[int]:
        """Archives some of what waits in these shards, in one transaction; those that have more."""
        rows: list[Sequence[object]] = []
        elsewhere: list[Entry] = []
        done: list[tuple[int, list[Note]]] = []
        more: list[int] = []
        size = 0
        for index, shard in enumerate(waiting):
            found = await notes.read(self._redis, shard, _NOTES)
            for note in found:
                finished = _time(note.finish_ms)
                for entry_id, stored in await notes.entries(self._redis, note):
                    entry = Entry.unpack(stored)
                    raw = entry.message
                    if entry.flags & PAYLOAD_ELSEWHERE:
                        elsewhere.append(entry)
                        raw = await self._whole(entry)
                    rows.append(_row(note, finished, entry_id, entry, raw))
                    size += len(stored)
            done.append((shard, found))
            if len(found) == _NOTES:
                more.append(shard)
            if size > _MOST_BYTES:
                more += waiting[index + 1 :]
                break
        if rows:
            await self._keep(rows)
        await asyncio.gather(*(self._delete(shard, found) for shard, found in done if found))
        await self._payloads.drop(elsewhere)
        return more

    async def _whole(self, entry: Entry) -> bytes:
        with contextlib.suppress(rpc.DataLoss):
            return await self._payloads.load(entry)
        return b""

    async def _keep(self, rows: Sequence[Sequence[object]]) -> None:
        try:
            await self._database.copy("messages", _COLUMNS, rows)
        except rpc.AlreadyExists:  # some were kept before a crash, and not deleted any more
            await self._database.execute("archive_messages", *map(list, zip(*rows, strict=True)))

    async def _delete(self, shard: int, found: Sequence[Note]) -> None:
        """Bodies first: a note whose bodies are gone is no harm, a body without a note stays for ever."""
        gone: dict[str, list[bytes]] = {}
        for note in found:
            key = layout.queue_key(note.queue)
            streams = {b"%d" % one: f"{key}:{one}" for one in layout.PRIORITIES}
            for lease in note.leases:
                gone.setdefault(streams[lease[:1]], []).append(lease[2:])
        await asyncio.gather(
            *(self._redis.send(shard, "XDEL", stream, *ids) for stream, ids in gone.items())
        )
        await self._redis.send(
            shard, "XDEL", layout.done_key(shard), *(note.note_id for note in found)
        )

    async def _bound(self) -> None:
        """While PostgreSQL is away: drops the oldest of what waits too long. History is lost, no message is."""
        for shard in range(SHARDS):
            length = await self._redis.send(shard, "XLEN", layout.done_key(shard))
            while length > _MOST_NOTES:
                found = await notes.read(self._redis, shard, _NOTES)
                await self._delete(shard, found)
                length -= len(found)
                log.error(
                    "history is lost: PostgreSQL was away for too long",
                    extra={"shard": shard, "messages": sum(len(note.leases) for note in found)},
                )

    async def _clean(self) -> None:
        while True:
            for row in await self._database.fetch("archived_queues"):
                queue = self._queues.get(row["queue"])
                retention = (queue.policy if queue else DEFAULT).retention
                before = datetime.now(UTC) - retention
                dropped = _DROPPED
                while dropped == _DROPPED:
                    dropped = await self._database.execute(
                        "drop_messages", row["queue"], before, _DROPPED
                    )
            await asyncio.sleep(self._cleaned)


def _row(
    note: Note, finished: datetime, entry_id: str, entry: Entry, raw: bytes
) -> Sequence[object]:
    message = Message.FromString(raw)
    sender, _, message_id = entry.identity.decode().partition("\0")
    return (
        note.queue,
        entry_id,
        message_id,
        sender,
        entry.key.decode(),
        message.topic,
        _text(message.method),
        _text(message.correlation_id),
        _text(message.conversation),
        _time(entry.published),
        finished,
        note.outcome,
        entry.attempt,
        note.consumer,
        raw,
    )


def _text(value: str) -> str:
    return value.replace(
        "\0", "\ufffd"
    )  # PostgreSQL has no NUL in text; the message itself is kept as it is


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
