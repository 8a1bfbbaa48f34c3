"""What is done in Redis atomically: one typed method for each function of functions.lua.

Each works on one shard. `now` is the brokers' clock in milliseconds. A method returns a future or a coroutine of what the
function says; which of them may be sent twice, when a connection breaks before the answer, is said at each.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

SOURCE = importlib.resources.files(__package__).joinpath("functions.lua").read_text("utf-8")

ACCEPTED, DUPLICATE, FULL, LIMITED = b"+=fr"


class Commands(Protocol):
    """Sends a command to the node of a shard; the future has its reply."""

    def __call__(self, shard: int, *command: bytes | str | int | float) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of a batch.

    Attributes:
        codes: one of ACCEPTED, DUPLICATE, FULL, LIMITED for each message, in order.
        retry_after_ms: for the FULL or LIMITED ones.
        total: messages the queue has accepted since it was made, these included.
        ready: bits of the priorities that have new messages to deliver (1 << priority).
        due: earliest due time among the delayed ones of this batch; 0: none.
    """

    codes: bytes
    retry_after_ms: int
    total: int
    ready: int
    due: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of a batch of settlements.

    Attributes:
        done: how many leases were still held; the others had been taken over.
        ready: bits of the priorities that have new messages to deliver.
        due: earliest due time of what was put off; 0: none.
    """

    done: int
    ready: int
    due: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """A handled message. `key`: its ordering key; `reply`: serialized weft.v1.Reply to keep for `identity`."""

    lease_id: bytes
    key: bytes = b""
    identity: bytes = b""
    reply: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A message to try again at `due` (0: now). `attempt`: the number its next delivery has."""

    lease_id: bytes
    attempt: int
    due: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A message for the dead letters. `reason` is never empty."""

    lease_id: bytes
    reason: str
    error: str
    identity: bytes = b""
    reply: bytes = b""
