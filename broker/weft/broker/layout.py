r"""Where things are in Redis, and the head that each stored message has.

A queue lives in one of 256 virtual shards. All keys of a shard carry its hash tag, so that Redis Cluster keeps them
in one slot and a function can move messages between them atomically. KEY below is `{w17}:q:NAME`:

    KEY:1 KEY:2 KEY:3   streams of what is ready, by priority; consumer group "w"; Redis consumer = broker instance
    KEY:m               hash: counters (depth, bytes, published, acked, dead, ...), see functions.lua
    KEY:d0 KEY:d1       sets of "sender\0id" of this dedupe window and the one before
    KEY:k KEY:w:<key>   hash of ordering keys -> messages in the queue; list of those that wait for their key
    KEY:x               stream of dead letters: e entry, r reason, m error, t dead time (ms), k "1" if it holds its key
    KEY:z KEY:h         delayed messages: due times (ms) by number, and the messages by number
    {w17}:z             which queue of the shard has something due first: queues by their earliest due time
    {w17}:done          stream of what is finished and not archived yet: q queue, o outcome, t finish time (ms),
                        c consumer, and l lease ids (their entries are in the streams still) or e an entry
    {w17}:r {w17}:rt    replies by "sender\0id" of the message; until when (ms) each is kept
    {w17}:round         made by durable rounds, so that a barrier holds for duplicates too; one per primary
    {w17}:s:<sender>    how much of a sender's limit is used (GCRA)
    {w17}:f:<sender\0id>   queues that have their copy of a topic's message, where some refused theirs
    {w17}:bell          channel (sharded publish/subscribe) that tells brokers of changes in the shard

The configuration is in one place, {weft}: hashes :queues, :subs and :senders of serialized records, the set :paused, the
hash :versions that counts changes, the hash :brokers of the beats of live brokers, and the channel :bell.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from dataclasses import dataclass

SHARDS = 256
GROUP = b"w"
PRIORITIES = (1, 2, 3)

# version, priority, attempt, published (ms), not before (ms), expires (ms), bytes of the key, of "sender\0id", flags
_HEAD = struct.Struct(">BBHQQQHHB")
HEAD_BYTES = _HEAD.size
_VERSION = 1
# Flags. A message that is asked for its reply is not stored again where the reply is known.
PAYLOAD_ELSEWHERE, ASKED = 1, 2


def shard_of(name: str) -> int:
    """The shard of a queue (or of a sender's limit)."""
    return crc_hqx(name.encode(), 0) % SHARDS


def tag(shard: int) -> str:
    """The hash tag of a shard."""
    return f"{{w{shard}}}"


def queue_key(queue: str) -> str:
    """KEY of a queue."""
    return f"{tag(shard_of(queue))}:q:{queue}"


@dataclass(slots=True)
class Entry:
    """A stored message: its head, and the message as it was published.

    Times are in milliseconds since 1970 by the brokers' clock; 0: none.
    """

    message: bytes
    identity: bytes  # "sender\0id"
    key: bytes = b""
    priority: int = 2
    attempt: int = 1
    published: int = 0
    not_before: int = 0
    expires: int = 0
    flags: int = 0

    def pack(self) -> bytes:
        """The bytes that are stored."""
        head = _HEAD.pack(
            _VERSION,
            self.priority,
            self.attempt,
            self.published,
            self.not_before,
            self.expires,
            len(self.key),
            len(self.identity),
            self.flags,
        )
        return b"".join((head, self.key, self.identity, self.message))

    @classmethod
    def unpack(cls, stored: bytes) -> Entry:
        """Reads what `pack` wrote."""
        _, priority, attempt, published, not_before, expires, key, identity, flags = (
            _HEAD.unpack_from(stored)
        )
        begin = HEAD_BYTES + key
        end = begin + identity
        # By position: this is done for each message, and names cost half as much again.
        return cls(
            stored[end:],
            stored[begin:end],
            stored[HEAD_BYTES:begin],
            priority,
            attempt,
            published,
            not_before,
            expires,
            flags,
        )


def due_key(shard: int) -> str:
    """Which queue of a shard has something due first."""
    return f"{tag(shard)}:z"


def done_key(shard: int) -> str:
    """What is finished in a shard and not archived yet."""
    return f"{tag(shard)}:done"


def replies_key(shard: int) -> str:
    """The replies to messages of the queues of a shard."""
    return f"{tag(shard)}:r"


def lease_id(priority: int, entry_id: bytes) -> bytes:
    """Names one attempt: every attempt is a stream entry of its own."""
    return b"%d:%s" % (priority, entry_id)
