"""Who has which message, until when: by the monotonic clock of this process, not by any clock of Redis."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

_REMEMBERED = 10_000  # leases that ran out, so that a late settlement is told so


class Holder(Protocol):
    """Who may hold leases."""

    @property
    def consumer(self) -> str:
        """Name, for people."""


@dataclass(slots=True, eq=False)
class Lease:
    """A message in hand. `holder`: None after its stream broke, until somebody resumes it."""

    lease_id: bytes
    holder: Holder | None
    deadline: float
    attempt: int
    key: bytes
    identity: bytes
    size: int


class Leases:
    """The leases of a queue; all last equally long, so that they run out in the order they were given or extended.

    Args:
        span: how long a lease lasts, in seconds.
        expired: told of leases that ran out; they are gone by then.
    """

    def __init__(self, span: float, expired: Callable[[list[Lease]], None]) -> None:
        self.span = span
        self._expired = expired
        self._held: dict[bytes, Lease] = {}
        self._order: deque[tuple[float, Lease]] = deque()
        self._ran_out: OrderedDict[bytes, None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, lease_id: bytes) -> bool:
        return lease_id in self._held

    def of(self, holder: Holder) -> list[Lease]:
        """The leases of one holder."""
        return [lease for lease in self._held.values() if lease.holder is holder]

    def all(self) -> list[Lease]:
        """All of them."""
        return list(self._held.values())

    def grant(self, leases: Iterable[Lease]) -> None:
        """Keeps new leases; their deadline is set here."""
        deadline = monotonic() + self.span
        for lease in leases:
            lease.deadline = deadline
            self._held[lease.lease_id] = lease
            self._order.append((deadline, lease))
        self._prune()
        self._arm()

    def get(self, lease_id: bytes) -> Lease | None:
        """A lease, if it is held."""
        return self._held.get(lease_id)

    def extend(self, lease: Lease) -> None:
        """Begins its span anew."""
        lease.deadline = monotonic() + self.span
        self._order.append((lease.deadline, lease))

    def end(self, lease_id: bytes) -> Lease | None:
        """Takes a lease off; None: it is not held."""
        return self._held.pop(lease_id, None)

    def ran_out(self, lease_id: bytes) -> bool:
        """Whether it ran out a while ago."""
        return lease_id in self._ran_out

    def close(self) -> None:
        """Nothing runs out any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._held.clear()
        self._order.clear()

    def _arm(self) -> None:
        if self._timer is None and self._order:
            delay = max(0.0, self._order[0][0] - monotonic())
            self._timer = self._loop.call_later(delay, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = monotonic()
        over = []
        while self._order and self._order[0][0] <= now:
            _, lease = self._order.popleft()
            if lease.deadline <= now and self._held.get(lease.lease_id) is lease:
                del self._held[lease.lease_id]
                self._ran_out[lease.lease_id] = None
                over.append(lease)
        while len(self._ran_out) > _REMEMBERED:
            self._ran_out.popitem(last=False)
        self._prune()
        self._arm()
        if over:
            self._expired(over)

    def _prune(self) -> None:
        """Drops the oldest entries whose leases were settled or extended long before their time."""
        order, held = self._order, self._held
        while order:
            deadline, lease = order[0]
            if lease.deadline == deadline and held.get(lease.lease_id) is lease:
                return
            order.popleft()
