"""Settlements on their way to a broker: each is said until a broker has it safe."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from weft import rpc
from weft.agents.messaging.settlement import Settlement
from weft.agents.messaging.streams import MOST_BYTES, MOST_SENT, SURE
from weft.rpc import status_proto
from weft.v1 import broker_pb2, message_pb2

log = logging.getLogger("weft.agents")

_MOST_IN_FRAME = 10_000


@dataclass(slots=True)  # not frozen: one for each lease in hand, many times a second
class Extension:
    """A lease that begins anew."""

    lease_id: str


_Said: TypeAlias = Settlement | Extension


class ReplyTooLarge(rpc.ResourceExhausted):
    """The message was handled, and the answer is larger than a broker takes."""

    reason = "REPLY_TOO_LARGE"


class Outbox:
    """What a consumer has to say, over all its streams.

    Attributes:
        said: settlements said on this stream.
        confirmed: how many of them are safe, or have failed.
    """

    def __init__(self) -> None:
        self.said = 0
        self.confirmed = 0
        self._unsaid: deque[Settlement] = deque()
        self._unsafe: deque[_Said] = deque()  # said on this stream and not confirmed, in order
        self._extensions: dict[str, None] = {}
        self._strikes = 0

    @property
    def empty(self) -> bool:
        """Whether all that was ever put is safe."""
        return not self._unsaid and not self._unsafe

    @property
    def waits(self) -> bool:
        """Whether there is more to say."""
        return bool(self._unsaid)

    def put(self, settlement: Settlement) -> None:
        """Says it with the next frame."""
        if isinstance(settlement, broker_pb2.Completion) and settlement.ByteSize() > MOST_SENT:
            _fail(settlement)
        self._unsaid.append(settlement)

    def extend(self, leases: Iterable[str]) -> None:
        """Extends leases with the next frame."""
        self._extensions.update(dict.fromkeys(leases))

    def frame(self, credit: int, held: Container[str]) -> broker_pb2.ConsumeRequest:
        """A frame with what there is to say; of leases to extend, those that are still held."""
        acks: list[str] = []
        complete: list[broker_pb2.Completion] = []
        nacks: list[broker_pb2.Nack] = []
        rejects: list[broker_pb2.Reject] = []
        size, unsaid = 0, self._unsaid
        for one in list(itertools.islice(unsaid, _MOST_IN_FRAME)):
            if isinstance(one, str):
                acks.append(one)
            else:
                bytes_of_one = one.ByteSize()
                if size and size + bytes_of_one > MOST_BYTES:
                    break
                size += bytes_of_one
                if isinstance(one, broker_pb2.Completion):
                    complete.append(one)
                elif isinstance(one, broker_pb2.Nack):
                    nacks.append(one)
                else:
                    rejects.append(one)
            unsaid.popleft()
        extensions: list[str] = []
        if self._extensions:
            extensions = [lease_id for lease_id in self._extensions if lease_id in held]
            self._extensions.clear()
        # In the order in which the broker counts the settlements of a frame.
        before = len(self._unsafe)
        for kind in (acks, complete, nacks, rejects, map(Extension, extensions)):
            self._unsafe.extend(kind)
        self.said += len(self._unsafe) - before
        return broker_pb2.ConsumeRequest(
            credit=credit,
            ack=acks,
            complete=complete,
            nack=nacks,
            reject=rejects,
            extensions=extensions,
        )

    def confirm(self, settled: int) -> list[str]:
        """Notes how many settlements of this stream are done; the leases that were extended by them."""
        extended: list[str] = []
        unsafe = self._unsafe
        for _ in range(min(settled - self.confirmed, len(unsafe))):
            done = unsafe.popleft()
            if isinstance(done, Extension):
                extended.append(done.lease_id)
        self.confirmed = settled
        return extended

    def again(self) -> list[str]:
        """For a new stream: what is not safe is said again. Its leases."""
        unsafe = [said for said in self._unsafe if not isinstance(said, Extension)]
        self._unsaid.extendleft(reversed(unsafe))
        self._unsafe.clear()
        self._extensions.clear()
        self.said = self.confirmed = 0
        return [_lease_of(said) for said in self._unsaid]

    def drop(self, leases: Container[str]) -> None:
        """Forgets what is not yet said of leases that are lost."""
        self._unsaid = deque(said for said in self._unsaid if _lease_of(said) not in leases)

    def shrink(self, likely: int) -> None:
        """A frame may have been too large: it can only have been a single settlement, so the largest reply becomes an error.

        Args:
            likely: see `streams.too_large`.
        """
        everything = (*self._unsafe, *self._unsaid)
        replies = [said for said in everything if isinstance(said, broker_pb2.Completion)]
        largest = max(replies, key=lambda said: said.ByteSize(), default=None)
        if largest is None or largest.ByteSize() <= MOST_BYTES:
            return
        self._strikes += likely
        if self._strikes >= SURE:
            self._strikes = 0
            _fail(largest)


def _fail(completion: broker_pb2.Completion) -> None:
    log.error("a reply is too large", extra={"bytes": completion.ByteSize()})
    completion.reply.CopyFrom(message_pb2.Reply(error=status_proto(ReplyTooLarge())))


def _lease_of(said: Settlement) -> str:
    return said if isinstance(said, str) else said.lease_id
