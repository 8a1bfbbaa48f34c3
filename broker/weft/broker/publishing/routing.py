"""Where a message goes and how. It is passed on as the bytes that came."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from zlib import crc32

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from weft import rpc
from weft.broker.errors import MessageTooLarge
from weft.broker.layout import Entry
from weft.v1 import message_pb2
from weft.v1.message_pb2 import Message

TOPIC_QUEUES = 16
_MOST_ID, _MOST_SENDER, _MOST_KEY = 128, 200, 256
_NORMAL = message_pb2.PRIORITY_NORMAL
_MOST_PRIORITY = max(message_pb2.Priority.values())
_MOST_DURABILITY = max(message_pb2.Durability.values())
_TOPIC = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_MOST_TOPIC = 256
_YEAR_10000 = 253_402_300_800  # in s; later is no timestamp (google/protobuf/timestamp.proto)
_SECOND = 1_000_000_000  # in ns
_MS = 1_000_000  # in ns
_ID_TAG = b"\x0a\x20"  # field 1, length-delimited, 32 bytes


@dataclass(slots=True)
class Routed(Entry):
    """A message on its way: its entry, the queue it goes to, and how safe it asks to be (0: as its queue says)."""

    queue: str = ""
    durability: int = 0

    @property
    def entry(self) -> Entry:
        """What is stored: this itself."""
        return self

    @property
    def sender(self) -> str:
        """Who sends it."""
        return self.identity.partition(b"\0")[0].decode()

    @property
    def id(self) -> str:
        """The id it has, or was given."""
        return self.identity.partition(b"\0")[2].decode()


def topic_queue(key: str) -> str:
    """The internal queue that messages of a topic wait in until they are copied; by key, so that order holds."""
    return f"_topics.{crc32(key.encode()) % TOPIC_QUEUES}"


def read_message(raw: bytes) -> Message:
    """Parses a serialized weft.v1.Message; its payload stays bytes.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        return Message.FromString(raw)
    except DecodeError:
        raise rpc.InvalidArgument("is not a weft.v1.Message", field="message") from None


def route(raw: bytes, now: int, most_bytes: int) -> Routed:
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
    message = read_message(raw)
    # Each read of a field costs as much as the rest of a check, so each is read once.
    message_id, sender, queue, key = message.id, message.sender, message.recipient, message.key
    priority, durability = message.priority, message.durability
    if (
        message.topic
        or not queue
        or queue[0] == "_"
        or not sender
        or len(message_id) > _MOST_ID
        or len(sender) > _MOST_SENDER
        or len(key) > _MOST_KEY
        or not 0 <= priority <= _MOST_PRIORITY
        or not 0 <= durability <= _MOST_DURABILITY
        or "\0" in sender
        or "\0" in message_id
        or "\0" in key
    ):
        _check(message)
    if not message_id:
        # The last value of a field counts (protobuf encoding, "Last One Wins"): the message itself is left as it is.
        message_id = uuid.uuid4().hex
        raw = b"".join((raw, _ID_TAG, message_id.encode()))
    not_before = (
        _ms(message.not_before, "message.not_before") if message.HasField("not_before") else 0
    )
    expires = 0
    if message.HasField("expire_time"):
        expires = _ms(message.expire_time, "message.expire_time")
        if expires <= max(now, not_before):
            raise rpc.InvalidArgument(
                "must be in the future, and after not_before", field="message.expire_time"
            )
    return Routed(
        raw,
        f"{sender}\0{message_id}".encode(),
        key.encode(),
        priority or _NORMAL,
        1,
        now,
        not_before,
        expires,
        0,
        queue or topic_queue(key or message_id),
        durability,
    )


def _check(message: Message) -> None:
    """Finds what is wrong; a topic alone is not."""
    wrong: list[tuple[str, str]] = []
    if not 1 <= len(message.sender) <= _MOST_SENDER or "\0" in message.sender:
        wrong.append(("message.sender", f"must be 1 to {_MOST_SENDER} characters without NUL"))
    if len(message.id) > _MOST_ID or "\0" in message.id:
        wrong.append(("message.id", f"must be at most {_MOST_ID} characters without NUL"))
    if len(message.key) > _MOST_KEY or "\0" in message.key:
        wrong.append(("message.key", f"must be at most {_MOST_KEY} characters without NUL"))
    if bool(message.recipient) == bool(message.topic):
        wrong.append(("message.recipient", "name either a recipient or a topic"))
    if message.recipient.startswith("_"):
        wrong.append(("message.recipient", 'must not begin with "_"'))
    if message.topic and (len(message.topic) > _MOST_TOPIC or not _TOPIC.fullmatch(message.topic)):
        wrong.append(
            (
                "message.topic",
                f'must be words of a-z, 0-9, "-" and "_" joined by dots, at most {_MOST_TOPIC} characters',
            )
        )
    if not 0 <= message.priority <= _MOST_PRIORITY:
        wrong.append(("message.priority", "is not a value of Priority"))
    if not 0 <= message.durability <= _MOST_DURABILITY:
        wrong.append(("message.durability", "is not a value of Durability"))
    if wrong:
        raise rpc.InvalidArgument(violations=wrong)


def _ms(time: Timestamp, field: str) -> int:
    if not 0 <= time.seconds < _YEAR_10000 or not 0 <= time.nanos < _SECOND:
        raise rpc.InvalidArgument("is not a timestamp from 1970 to 9999", field=field)
    return time.seconds * 1000 - (-time.nanos // _MS)  # rounded up: never too early
