"""Leases: how long instances stay registered with no sign of life, and whose they are."""

from __future__ import annotations

import asyncio
import heapq
import logging
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from weft import rpc
from weft.registry.streams import Stream

log = logging.getLogger("weft.registry")


class LeaseTaken(rpc.Aborted):
    """Another stream registered the same instances."""

    reason = "LEASE_TAKEN"


class LeaseMoved(rpc.Unavailable):
    """Another replica of the registry has taken over the lease, for this one was not heard of; register again."""

    reason = "LEASE_MOVED"


class LeaseExpired(rpc.Unavailable):
    """The lease ran out before a heartbeat came; register again."""

    reason = "LEASE_EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What every lease is granted.

    Attributes:
        ttl: how long instances stay registered with no sign of life.
        heartbeat_interval: how often a process shall report; at most a third of `ttl`.
    """

    ttl: timedelta = timedelta(seconds=4)
    heartbeat_interval: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        if not timedelta(0) < self.heartbeat_interval * 3 <= self.ttl:
            raise ValueError("heartbeat_interval must be over 0 and at most a third of ttl")


@dataclass(slots=True, eq=False)
class Lease:
    """A lease.

    Attributes:
        lease_id: for logs and for fencing in the database.
        instance_ids: instances it holds.
        holder: the stream that keeps it alive; None: it broke, the ttl runs.
        expires: time of the loop's clock at which it ends.
    """

    lease_id: str
    instance_ids: set[str] = field(default_factory=set)
    holder: Stream | None = None
    expires: float = 0.0


class Leases:
    """The leases of this replica, ended by one task with one heap.

    Whose instances are is told by the database, by `held` and `lost`; with `claim` a stream says whose they will be.

    A renewal only moves `Lease.expires`; the heap learns of it when the old time comes.

    Attributes:
        adopted: leases that were taken over so far.

    Args:
        terms: what leases are granted.
        expired: called with each lease that ran out, while it still has its instances; done when they are gone.
    """

    def __init__(self, terms: Terms, expired: Callable[[Lease], asyncio.Future[None]]) -> None:
        self.terms = terms
        self._ttl = terms.ttl.total_seconds()
        self._expired = expired
        self.adopted = 0
        self._by_id: dict[str, Lease] = {}
        self._owner: dict[str, Lease] = {}  # by instance id
        self._claimant: dict[str, Lease] = {}  # by instance id; owns it, or will when it is stored
        self._heap: list[tuple[float, int, Lease]] = []
        self._count = 0
        self._added = asyncio.Event()

    def __len__(self) -> int:
        return len(self._by_id)

    def grant(self, holder: Stream) -> Lease:
        """A new lease that holds nothing yet."""
        return Lease(lease_id=uuid.uuid4().hex, holder=holder)

    def claim(self, lease: Lease, instance_ids: Iterable[str]) -> None:
        """Announces that a lease will own instances. Streams that held or claimed them here are ended.

        What they held stays registered for the rest of its ttl, unless `held` follows.
        """
        self._by_id[lease.lease_id] = lease
        for instance_id in instance_ids:
            former = self._claimant.get(instance_id)
            self._claimant[instance_id] = lease
            if former is not None:
                _supersede(former, LeaseTaken(metadata={"instance_id": instance_id}))

    def held(self, instance_id: str, lease_id: str) -> None:
        """An instance is held by a lease of this replica, away from whatever held it; the ttl of that starts.

        A lease that nobody was granted here is one that was taken over, from a replica that is gone.
        """
        lease = self._by_id.get(lease_id)
        if lease is None:
            lease = self._by_id[lease_id] = Lease(lease_id=lease_id)
            self.adopted += 1
        former = self._owner.get(instance_id)
        if former is lease:
            return
        if former is not None:
            self._release(former, instance_id)
        self._owner[instance_id] = lease
        if self._claimant.get(instance_id) in (None, former):
            self._claimant[instance_id] = lease
        if not lease.instance_ids:
            lease.expires = asyncio.get_running_loop().time() + self._ttl
            self._push(lease)
            self._added.set()
        lease.instance_ids.add(instance_id)

    def lost(self, instance_id: str, lease_id: str = "") -> None:
        """An instance is gone, or held by another replica: by this lease, if it is there at all."""
        lease = self._owner.pop(instance_id, None)
        if lease is None:
            return
        if self._claimant.get(instance_id) is lease:
            del self._claimant[instance_id]
        self._release(lease, instance_id)
        if lease_id:
            moved = lease_id == lease.lease_id
            error = LeaseMoved if moved else LeaseTaken
            _supersede(lease, error(metadata={"instance_id": instance_id}))

    def _release(self, lease: Lease, instance_id: str) -> None:
        lease.instance_ids.discard(instance_id)
        if not lease.instance_ids:
            self._by_id.pop(lease.lease_id, None)

    def renew(self, lease: Lease) -> datetime:
        """Takes a sign of life; when the lease would end now.

        Raises:
            LeaseExpired: it has ended.
        """
        if not lease.instance_ids:
            raise LeaseExpired
        lease.expires = asyncio.get_running_loop().time() + self._ttl
        return datetime.now(UTC) + self.terms.ttl

    def close(self, lease: Lease) -> list[str]:
        """Ends a lease; the instances it held."""
        ids = sorted(lease.instance_ids)
        lease.instance_ids.clear()
        for instance_id in ids:
            del self._owner[instance_id]
        self.abandon(lease, ids)
        self._by_id.pop(lease.lease_id, None)
        return ids

    def abandon(self, lease: Lease, instance_ids: Iterable[str]) -> None:
        """Takes back claims that will not be held."""
        if not lease.instance_ids:
            self._by_id.pop(lease.lease_id, None)
        for instance_id in instance_ids:
            if self._claimant.get(instance_id) is lease:
                owner = self._owner.get(instance_id)
                if owner is None or owner is lease:
                    self._claimant.pop(instance_id)
                else:
                    self._claimant[instance_id] = owner

    async def run(self) -> None:
        """Ends leases when their time comes, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._heap:
                self._added.clear()
                await self._added.wait()
            planned = max(self._heap[0][0], loop.time())
            await asyncio.sleep(planned - loop.time())
            self._forgive(loop.time() - planned)
            while self._heap and self._heap[0][0] <= loop.time():
                self._settle(heapq.heappop(self._heap)[2], loop.time())

    def _settle(self, lease: Lease, now: float) -> None:
        if lease.expires > now:
            self._push(lease)
        elif lease.instance_ids:
            gone = self._expired(lease)
            self.close(lease)
            gone.add_done_callback(lambda _: _supersede(lease, LeaseExpired()))

    def _forgive(self, late: float) -> None:
        # This process itself stood still (stopped, or starved): heartbeats may lie unread in its sockets,
        # and all leases would seem to have run out at once.
        if late < min(0.5, self._ttl / 4):
            return
        log.warning(
            "the registry stood still; leases are extended", extra={"seconds": round(late, 3)}
        )
        grace = (
            asyncio.get_running_loop().time() + self.terms.heartbeat_interval.total_seconds() * 2
        )
        for _, _, lease in self._heap:
            lease.expires = max(lease.expires, grace)

    def _push(self, lease: Lease) -> None:
        self._count += 1
        heapq.heappush(self._heap, (lease.expires, self._count, lease))


def _supersede(lease: Lease, error: rpc.Error) -> None:
    if lease.holder is not None:
        lease.holder.end(error)
        lease.holder = None
