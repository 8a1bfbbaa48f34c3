"""Who has which message, until when: by the monotonic clock of this process, not by any clock of Redis."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
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

    @property
    def session(self) -> str:
        """What its streams have in common; empty: nothing."""


@dataclass(slots=True, eq=False)
class Lease:
    """A message in hand.

    Attributes:
        holder: None after its stream broke, until somebody resumes it.
        deadline: when it runs out; 0: it is not held any more.
        sent: whether the holder may have seen it; if not, it was no attempt.
        session: of who holds it or held it last.
    """

    lease_id: bytes
    holder: Holder | None
    deadline: float
    attempt: int
    key: bytes
    identity: bytes
    size: int
    sent: bool = False
    session: str = ""

    def give(self, holder: Holder) -> None:
        """Changes hands."""
        self.holder = holder
        self.session = holder.session


class Leases:
    """The leases of a queue.

    All last equally long, so they run out in the order they were given or extended, and nothing here depends on how
    many there are. When the span becomes another one, the leases of the former span keep a row of their own.

    Args:
        span: how long a lease lasts, in seconds.
        expired: told of leases that ran out; they are gone by then.
    """

    def __init__(self, span: float, expired: Callable[[list[Lease]], None]) -> None:
        self._span = span
        self._expired = expired
        self._row: OrderedDict[bytes, Lease] = OrderedDict()
        self._former: list[OrderedDict[bytes, Lease]] = []
        self._ran_out: OrderedDict[bytes, None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._sweep_at = 0.0  # by the monotonic clock
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return sum(map(len, self._rows()))

    def __contains__(self, lease_id: bytes) -> bool:
        return self.get(lease_id) is not None

    @property
    def span(self) -> float:
        """How long a lease lasts, in seconds. Leases that are held keep theirs until they are extended."""
        return self._span

    @span.setter
    def span(self, seconds: float) -> None:
        if seconds == self._span:
            return
        self._span = seconds
        if self._row:
            self._former.append(self._row)
            self._row = OrderedDict()
        self._former = [row for row in self._former if row]

    def of(self, holder: Holder) -> list[Lease]:
        """The leases of one holder."""
        return [lease for lease in self.all() if lease.holder is holder]

    def all(self) -> list[Lease]:
        """All of them."""
        return [lease for row in self._rows() for lease in row.values()]

    def grant(self, leases: Iterable[Lease]) -> None:
        """Keeps new leases; their deadline is set here."""
        deadline = monotonic() + self._span
        row = self._row
        for lease in leases:
            lease.deadline = deadline
            row[lease.lease_id] = lease
        if self._timer is None or self._sweep_at > deadline:
            self._arm()

    def get(self, lease_id: bytes) -> Lease | None:
        """A lease, if it is held."""
        found = self._row.get(lease_id)
        if found is None and self._former:
            return next((row[lease_id] for row in self._former if lease_id in row), None)
        return found

    def extend(self, lease: Lease) -> None:
        """Begins its span anew. It is held."""
        self.end(lease.lease_id)
        self.grant((lease,))

    def end(self, lease_id: bytes) -> Lease | None:
        """Takes a lease off; None: it is not held."""
        found = self._row.pop(lease_id, None)
        if found is None and self._former:
            found = next((row.pop(lease_id) for row in self._former if lease_id in row), None)
        if found is not None:
            found.deadline = 0.0
        return found

    def ran_out(self, lease_id: bytes) -> bool:
        """Whether it ran out a while ago."""
        return lease_id in self._ran_out

    def catch_up(self) -> None:
        """Ends what is overdue: after this process stood still its timers are later than what lies in its sockets."""
        if self._timer is not None and self._sweep_at <= monotonic():
            self._timer.cancel()
            self._sweep()

    def close(self) -> None:
        """Nothing runs out any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._row.clear()
        self._former.clear()

    def _rows(self) -> list[OrderedDict[bytes, Lease]]:
        return [self._row, *self._former]

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        firsts = [next(iter(row.values())).deadline for row in self._rows() if row]
        if firsts:
            self._sweep_at = min(firsts)
            delay = max(0.0, self._sweep_at - monotonic())
            self._timer = self._loop.call_later(delay, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = monotonic()
        over: list[Lease] = []
        for row in self._rows():
            while row and (first := next(iter(row.values()))).deadline <= now:
                del row[first.lease_id]
                first.deadline = 0.0
                self._ran_out[first.lease_id] = None
                over.append(first)
        while len(self._ran_out) > _REMEMBERED:
            self._ran_out.popitem(last=False)
        self._former = [row for row in self._former if row]
        self._arm()
        if over:
            self._expired(over)
