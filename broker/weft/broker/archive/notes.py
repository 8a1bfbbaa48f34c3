"""Notes of finished messages, as functions.lua leaves them in the stream {wN}:done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from weft.broker import layout
from weft.broker.layout import Entry


class Sends(Protocol):
    """What is used of weft.broker.redis.Redis."""

    def send(self, shard: int, *command: bytes | str | float) -> asyncio.Future[Any]:
        """Sends a command once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished message. `entry_id`: lease id of its last attempt; `entry`: None when its body is gone already."""

    queue: str
    entry_id: str
    outcome: int
    finish_ms: int
    consumer: str
    entry: Entry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What one call finished: leases whose entries are in the streams still, or an entry of its own."""

    note_id: bytes
    queue: str
    outcome: int
    finish_ms: int
    consumer: str
    leases: Sequence[bytes]
    entry: bytes | None

    @classmethod
    def of(cls, row: Any) -> Note:
        """A note as it is stored."""
        note_id, fields = row
        found = dict(zip(fields[::2], fields[1::2], strict=True))
        return cls(
            note_id=note_id,
            queue=found[b"q"].decode(),
            outcome=int(found[b"o"]),
            finish_ms=int(float(found[b"t"])),
            consumer=found[b"c"].decode(),
            leases=found[b"l"].split() if b"l" in found else (),
            entry=found.get(b"e"),
        )


async def read(redis: Sends, shard: int, most: int) -> list[Note]:
    """The oldest notes of a shard."""
    rows = await redis.send(shard, "XRANGE", layout.done_key(shard), "-", "+", "COUNT", most)
    return [Note.of(row) for row in rows]


async def bodies(redis: Sends, note: Note) -> list[Finished]:
    """The messages of a note."""
    if note.entry is not None:
        return [_finished(note, f"x:{note.note_id.decode()}", Entry.unpack(note.entry))]
    shard, key = layout.shard_of(note.queue), layout.queue_key(note.queue)
    by_priority: dict[bytes, list[bytes]] = {}
    for lease in note.leases:
        by_priority.setdefault(lease[:1], []).append(lease[2:])
    found: dict[bytes, Entry] = {}
    for priority, ids in by_priority.items():
        stream = f"{key}:{priority.decode()}"
        # What is acknowledged together mostly lies together: one range finds nearly all.
        ids.sort(key=_position)
        rows = await redis.send(shard, "XRANGE", stream, ids[0], ids[-1], "COUNT", 2 * len(ids) + 8)
        have = {row[0]: row[1][1] for row in rows}
        missing = [one for one in ids if one not in have]
        more = await asyncio.gather(
            *(redis.send(shard, "XRANGE", stream, one, one) for one in missing)
        )
        have.update((rows[0][0], rows[0][1][1]) for rows in more if rows)
        found.update(
            (b"%s:%s" % (priority, one), Entry.unpack(have[one])) for one in ids if one in have
        )
    return [_finished(note, lease.decode(), found.get(lease)) for lease in note.leases]


def _finished(note: Note, entry_id: str, entry: Entry | None) -> Finished:
    return Finished(
        queue=note.queue,
        entry_id=entry_id,
        outcome=note.outcome,
        finish_ms=note.finish_ms,
        consumer=note.consumer,
        entry=entry,
    )


def _position(entry_id: bytes) -> tuple[int, int]:
    time, _, sequence = entry_id.partition(b"-")
    return int(time), int(sequence)
