"""Leases after something broke: those that a consumer comes back with, and those that nobody knows of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from weft.broker import layout
from weft.broker.delivery.leases import Holder, Lease
from weft.broker.delivery.settlements import Settlements
from weft.broker.functions import Functions
from weft.broker.layout import GROUP, Entry
from weft.broker.queues import Queue
from weft.broker.redis import ReplyError

log = logging.getLogger("weft.broker")

_PAGE = 1_000  # pending entries looked at in one go
_CLAIMED = 200  # leases claimed in one go: it is Redis' time


class Sends(Protocol):
    """What is used of weft.broker.redis.Redis."""

    def send(self, shard: int, *command: bytes | str | float) -> asyncio.Future[Any]:
        """Sends a command once."""


class Recovery:
    """Keeps the leases of a queue in step with what Redis has in this broker's pending list.

    Args:
        queue: whose leases they are.
        settlements: have them.
        redis: has the pending list.
        functions: claim.
        instance: id of this broker.
    """

    def __init__(
        self,
        queue: Queue,
        settlements: Settlements,
        *,
        redis: Sends,
        functions: Functions,
        instance: str,
    ) -> None:
        self._queue = queue
        self._settlements = settlements
        self._leases = settlements.leases
        self._redis = redis
        self._functions = functions
        self._instance = instance
        self._nearly: set[bytes] = set()  # leases whose resumption was cut off

    async def resume(self, lease_ids: Sequence[bytes], holder: Holder) -> list[bytes]:
        """Gives leases of a broken stream, of this broker or another, to a new one; returns those that are lost.

        Raises:
            rpc.Unavailable: Redis is away.
        """
        lost: list[bytes] = []
        asked: list[bytes] = []
        self._leases.catch_up()
        for lease_id in dict.fromkeys(lease_ids):
            if lease_id in self._settlements.under_way or not _valid(lease_id):
                lost.append(lease_id)
                continue
            asked.append(lease_id)
            if (lease := self._leases.get(lease_id)) is not None:
                self._leases.extend(
                    lease
                )  # or it might run out while Redis is asked, and be resumed and put back
        for begin in range(0, len(asked), _CLAIMED):
            some = asked[begin : begin + _CLAIMED]
            for lease_id, entry, size in await self._claim(some):
                # A lease that is in our table may be another broker's by now: its consumer may have been there
                # meanwhile. Redis says who has it, and from here on it is us.
                lease = self._leases.get(lease_id)
                if entry is None:
                    lost.append(lease_id)
                    self._leases.end(lease_id)
                elif lease is not None:
                    lease.give(holder)
                    self._leases.extend(lease)
                else:
                    lease = _lease(lease_id, entry, size)
                    lease.give(holder)
                    self._leases.grant([lease])
        self._put_back_unseen(holder)
        return lost

    def _put_back_unseen(self, holder: Holder) -> None:
        """What was sent to a former stream of this session, and its consumer does not know of, never arrived."""
        if not holder.session:
            return
        for lease in self._leases.all():
            if lease.session == holder.session and lease.holder is not holder:
                self._leases.end(lease.lease_id)
                self._settlements.unused(lease)

    async def recover(self) -> None:
        """Puts back what was read and never arrived, forgets what Redis forgot. No read may be under way.

        Raises:
            rpc.Unavailable: Redis is away again.
        """
        for priority in layout.PRIORITIES:
            prefix = b"%d:" % priority
            known = [one.lease_id for one in self._leases.all() if one.lease_id.startswith(prefix)]
            pending = await self._pending(priority, prefix)
            self._forget([lease_id for lease_id in known if lease_id not in pending])
            under_way = self._settlements.under_way
            stray = [one for one in pending if one not in self._leases and one not in under_way]
            for begin in range(0, len(stray), _CLAIMED):
                await self._put_back(stray[begin : begin + _CLAIMED])

    async def _put_back(self, stray: Sequence[bytes]) -> None:
        """These were read but not delivered, which is no attempt; or a consumer has had them and nearly resumed them."""
        seen = self._nearly.intersection(stray)
        for lease_id, entry, size in await self._claim(stray):
            if entry is not None:
                attempt = entry.attempt + (lease_id in seen)
                self._settlements.retry(_lease(lease_id, entry, size), attempt=attempt)
        self._nearly -= seen

    def _forget(self, lease_ids: Sequence[bytes]) -> None:
        gone = sum(self._leases.end(lease_id) is not None for lease_id in lease_ids)
        if gone:
            log.error(
                "messages in hand are not ours in Redis: it lost them, or another broker has them",
                extra={"queue": self._queue.name, "count": gone},
            )

    async def _claim(self, lease_ids: Sequence[bytes]) -> list[tuple[bytes, Entry | None, int]]:
        """Makes leases this broker's own; their entries and what they weigh, None for those nobody holds."""
        under_way = self._settlements.under_way
        under_way.update(lease_ids)  # `recover` leaves them alone until they are in the table
        try:
            found = await self._functions.claim(self._queue, lease_ids)
        except BaseException:
            self._nearly.update(lease_ids)  # they may be ours now, and nobody has been told
            raise
        finally:
            under_way.difference_update(lease_ids)
        return [
            (lease_id, None if stored is None else Entry.unpack(stored), len(stored or b""))
            for lease_id, stored in zip(lease_ids, found, strict=True)
        ]

    async def _pending(self, priority: int, prefix: bytes) -> set[bytes]:
        """What is in this broker's pending list."""
        pending: set[bytes] = set()
        begin = "-"
        while True:
            try:
                rows = await self._redis.send(
                    self._queue.shard,
                    *("XPENDING", f"{self._queue.key}:{priority}", GROUP),
                    *(begin, "+", _PAGE, self._instance),
                )
            except ReplyError as failed:
                if failed.code != "NOGROUP":
                    raise
                return set()  # the next read makes it anew
            pending.update(prefix + row[0] for row in rows)
            if len(rows) < _PAGE:
                return pending
            begin = "(" + rows[-1][0].decode()


def _lease(lease_id: bytes, entry: Entry, size: int) -> Lease:
    return Lease(lease_id, None, 0.0, entry.attempt, entry.key, entry.identity, size, sent=True)


def _valid(lease_id: bytes) -> bool:
    priority, colon, entry_id = lease_id.partition(b":")
    numbers = entry_id.split(b"-")
    return (
        priority in {b"1", b"2", b"3"}
        and bool(colon)
        and len(numbers) == 2  # noqa: PLR2004 milliseconds and sequence
        and all(number.isdigit() for number in numbers)
    )
