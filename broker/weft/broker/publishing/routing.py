"""What the broker reads of a message: where it goes and how. The rest is passed on unread."""

from __future__ import annotations

import math
import re
import uuid
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from weft import rpc
from weft.broker.errors import MessageTooLarge
from weft.broker.layout import Entry
from weft.v1 import message_pb2
from weft.wire.v1.frames_pb2 import Routing

TOPIC_QUEUES = 16
_MOST_ID, _MOST_SENDER, _MOST_KEY = 128, 200, 256
_MOST_PRIORITY = max(message_pb2.Priority.values())
_DURABILITIES = frozenset(message_pb2.Durability.values())
_TOPIC = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_MOST_TOPIC = 256
_YEAR_10000 = 253_402_300_800  # in s; later is no timestamp (google/protobuf/timestamp.proto)
_SECOND = 1_000_000_000  # in ns
_ID_TAG = b"\x0a\x20"  # field 1, length-delimited, 32 bytes


@dataclass(slots=True)
class Routed:
    """A message on its way into a queue. `entry.published` and its expiry by policy are not set yet."""

    id: str
    queue: str
    durability: int
    entry: Entry


def topic_queue(key: str) -> str:
    """The internal queue that messages of a topic wait in until they are copied; by key, so that order holds."""
    return f"_topics.{hash_of(key) % TOPIC_QUEUES}"


def hash_of(text: str) -> int:
    """A hash that is the same in every process."""
    return int.from_bytes(uuid.uuid5(uuid.NAMESPACE_OID, text).bytes[:4], "big")


def route(raw: bytes, *, now: int, most_bytes: int) -> Routed:
    """Reads and checks a serialized weft.v1.Message.

    Args:
        raw: the message.
        now: by the brokers' clock, in ms.
        most_bytes: largest message taken.

    Raises:
        InvalidArgument: names the field; MessageTooLarge: has `limit` and `size` in its metadata.
    """
    if len(raw) > most_bytes:
        raise MessageTooLarge(
            f"The message has {len(raw):,} bytes, and at most {most_bytes:,} are taken.",
            field="message.payload",
            metadata={"limit": str(most_bytes), "size": str(len(raw))},
        )
    try:
        read = Routing.FromString(raw)
    except DecodeError:
        raise rpc.InvalidArgument("is not a weft.v1.Message", field="message") from None
    message_id, sender, queue, topic = read.id, read.sender, read.recipient, read.topic
    key, priority = read.key, read.priority
    if (
        not sender
        or not queue
        or topic
        or queue[0] == "_"
        or len(message_id) > _MOST_ID
        or len(sender) > _MOST_SENDER
        or len(key) > _MOST_KEY
        or not 0 <= priority <= _MOST_PRIORITY
        or read.durability not in _DURABILITIES
        or "\0" in sender
    ):
        _check(read)
        queue = queue or topic_queue(key or message_id)
    if not message_id:
        # The last value of a field counts (protobuf encoding, "Last One Wins"): the message itself is left as it is.
        message_id = uuid.uuid4().hex
        raw = b"".join((raw, _ID_TAG, message_id.encode()))
    not_before = _ms(read.not_before, "message.not_before") if read.HasField("not_before") else 0
    expires = _ms(read.expire_time, "message.expire_time") if read.HasField("expire_time") else 0
    if expires and (expires <= now or expires <= not_before):
        raise rpc.InvalidArgument(
            "must be in the future, and after not_before", field="message.expire_time"
        )
    return Routed(
        message_id,
        queue,
        read.durability,
        Entry(
            raw,
            f"{sender}\0{message_id}".encode(),
            key.encode(),
            priority or message_pb2.PRIORITY_NORMAL,
            not_before=not_before,
            expires=expires,
        ),
    )


def _check(read: Routing) -> None:
    """Finds what is wrong; a topic alone is not."""
    wrong: list[tuple[str, str]] = []
    if not 1 <= len(read.sender) <= _MOST_SENDER or "\0" in read.sender:
        wrong.append(("message.sender", f"must be 1 to {_MOST_SENDER} characters without NUL"))
    if len(read.id) > _MOST_ID:
        wrong.append(("message.id", f"must be at most {_MOST_ID} characters"))
    if len(read.key) > _MOST_KEY:
        wrong.append(("message.key", f"must be at most {_MOST_KEY} characters"))
    if bool(read.recipient) == bool(read.topic):
        wrong.append(("message.recipient", "name either a recipient or a topic"))
    if read.recipient.startswith("_"):
        wrong.append(("message.recipient", 'must not begin with "_"'))
    if read.topic and (len(read.topic) > _MOST_TOPIC or not _TOPIC.fullmatch(read.topic)):
        wrong.append(("message.topic", 'must be words of a-z, 0-9, "-" and "_" joined by dots'))
    if not 0 <= read.priority <= _MOST_PRIORITY:
        wrong.append(("message.priority", "is not a value of Priority"))
    if read.durability not in _DURABILITIES:
        wrong.append(("message.durability", "is not a value of Durability"))
    if wrong:
        raise rpc.InvalidArgument(violations=wrong)


def _ms(time: Timestamp, field: str) -> int:
    if not 0 <= time.seconds < _YEAR_10000 or not 0 <= time.nanos < _SECOND:
        raise rpc.InvalidArgument("is not a timestamp from 1970 to 9999", field=field)
    # Rounded up: never too early.
    return time.seconds * 1000 + math.ceil(time.nanos / 1_000_000)
