"""Notes of finished messages, as functions.lua leaves them in the stream {wN}:done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from weft.broker import layout


class Sends(Protocol):
    """What is used of weft.broker.redis.Redis."""

    def send(self, shard: int, *command: bytes | str | float) -> asyncio.Future[Any]:
        """Sends a command once."""


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


async def entries(redis: Sends, note: Note) -> list[tuple[str, bytes]]:
    """The entries of a note, each by the lease id of its last attempt, without those whose bodies are gone already."""
    if note.entry is not None:
        return [(f"x:{note.note_id.decode()}", note.entry)]
    shard, key = layout.shard_of(note.queue), layout.queue_key(note.queue)
    by_priority: dict[bytes, list[bytes]] = {}
    for lease in note.leases:
        by_priority.setdefault(lease[:1], []).append(lease[2:])
    found: list[tuple[str, bytes]] = []
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
        begin = f"{priority.decode()}:"
        found += [(begin + one.decode(), have[one]) for one in ids if one in have]
    return found


def _position(entry_id: bytes) -> tuple[int, int]:
    time, _, sequence = entry_id.partition(b"-")
    return int(time), int(sequence)
