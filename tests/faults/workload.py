"""What is sent: every message follows from its id and the time it was made, so that whoever restarts can say it again."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from weft.v1 import broker_pb2, message_pb2

VISIBILITY = timedelta(seconds=1.5)
WINDOW = timedelta(seconds=90)
MORTAL_ATTEMPTS = 3
MANY_ATTEMPTS = 1_000
SOURCE_TOPICS = {
    "news.eu.created": ("news-all", "news-created"),
    "news.us.created": ("news-all", "news-created"),
    "news.eu": ("news-all",),
}
SUBSCRIPTIONS = {"news-all": "news.>", "news-created": "news.*.created"}
WORK = ("work-0", "work-1", "work-2", "work-3")
ASK = "ask"
QUEUES = (*WORK, "hot", "slow", "mortal", ASK, *SUBSCRIPTIONS)
# Shares of the queues among what is published.
_SHARES = {**dict.fromkeys(WORK, 20), "hot": 4, "slow": 1, "mortal": 5, "topic": 5}
_KEYS = {**dict.fromkeys(WORK, 64), "hot": 6, "mortal": 32}
_KEYED = {**dict.fromkeys(WORK, 0.5), "hot": 1.0, "mortal": 0.3}
_PRIORITIES = (
    message_pb2.PRIORITY_NORMAL,
    message_pb2.PRIORITY_NORMAL,
    message_pb2.PRIORITY_HIGH,
    message_pb2.PRIORITY_LOW,
)


def policies(
    *, retention: timedelta = timedelta(0), replicated: bool = False
) -> dict[str, message_pb2.QueuePolicy]:
    """The policy of each queue. `replicated`: what is accepted survives the loss of the primary."""
    made = {}
    for queue in QUEUES:
        policy = message_pb2.QueuePolicy(
            max_attempts=MORTAL_ATTEMPTS if queue == "mortal" else MANY_ATTEMPTS
        )
        policy.visibility_timeout.FromTimedelta(VISIBILITY)
        policy.dedupe_window.FromTimedelta(WINDOW)
        policy.backoff.FromTimedelta(timedelta(milliseconds=50))
        policy.max_backoff.FromTimedelta(timedelta(milliseconds=500))
        policy.retention.FromTimedelta(retention)
        if replicated:
            policy.durability = message_pb2.DURABILITY_REPLICATED
        made[queue] = policy
    return made


def subscriptions() -> list[broker_pb2.Subscription]:
    return [
        broker_pb2.Subscription(name=f"sub-{queue}", pattern=pattern, queue=queue)
        for queue, pattern in SUBSCRIPTIONS.items()
    ]


@dataclass(slots=True)
class Plan:
    """A message as it will be published. `made`: monotonic ns; `due`, `expires`: the same, 0: none."""

    id: str
    made: int
    recipient: str
    queues: tuple[str, ...]
    topic: str = ""
    key: str = ""
    priority: int = message_pb2.PRIORITY_NORMAL
    due: int = 0
    expires: int = 0
    size: int = 0

    @property
    def note(self) -> str:
        """As its intent notes it."""
        if self.due:
            return f"due={self.due}"
        return f"expires={self.expires}" if self.expires else ""

    def message(self, sender: str) -> message_pb2.Message:
        message = message_pb2.Message(
            id=self.id,
            sender=sender,
            recipient=self.recipient,
            topic=self.topic,
            key=self.key,
            priority=self.priority,  # type: ignore[arg-type]  # one of the enum's
            payload=payload(self.id, self.key, self.size),
        )
        if self.due:
            message.not_before.CopyFrom(_wall(self.due))
        if self.expires:
            message.expire_time.CopyFrom(_wall(self.expires))
        return message


def _wall(monotonic: int) -> Timestamp:
    now = time.time_ns() + monotonic - time.monotonic_ns()
    return Timestamp(seconds=now // 10**9, nanos=now % 10**9)


def payload(name: str, key: str, size: int) -> bytes:
    return f"{name}|{key}|{size}|".encode() + b"x" * size


def is_whole(message: message_pb2.Message) -> bool:
    """Whether its payload is what was published with this id and key."""
    size = message.payload.split(b"|", 3)[2:3]
    return (
        bool(size)
        and size[0].isdigit()
        and message.payload == payload(message.id, message.key, int(size[0]))
    )


def plan(name: str, made: int | None = None, only: tuple[str, ...] = ()) -> Plan:
    """The message of an id. `only`: of these queues alone."""
    choice = random.Random(name)
    made = time.monotonic_ns() if made is None else made
    shares = {queue: share for queue, share in _SHARES.items() if not only or queue in only}
    queue = choice.choices(list(shares), list(shares.values()))[0]
    size = choice.randint(2_000, 20_000) if choice.random() < 0.01 else choice.randint(20, 300)
    found = Plan(name, made, queue, (queue,), size=size, priority=choice.choice(_PRIORITIES))
    if queue == "topic":
        found.recipient, found.topic = "", choice.choice(list(SOURCE_TOPICS))
        found.queues = SOURCE_TOPICS[found.topic]
        found.priority = message_pb2.PRIORITY_NORMAL
        return found
    if choice.random() < _KEYED.get(queue, 0.0):
        found.key = f"k{choice.randrange(_KEYS[queue])}"
    if queue == "mortal" and choice.random() < 0.1:
        found.expires = made + int(choice.uniform(0, 2e9))
    elif choice.random() < 0.04:
        found.due = made + int(choice.uniform(0.05e9, 2e9))
    return found


def asked(name: str) -> Plan:
    """A request of an id. It may be made again for long, so it does not expire with the first caller's patience."""
    now = time.monotonic_ns()
    size = random.Random(name).randint(20, 300)
    return Plan(name, now, ASK, (ASK,), size=size, expires=now + 120 * 10**9)
