"""Shares of the limits in Redis, taken for several calls at once by a gateway that gets many.

Redis is asked for as many calls as came for the same limits within the last 10 ms, or wait, at most for a hundredth of a
second's worth of the limit and a quarter of its burst. What is taken is for those that waited for it; what is left is used
within 10 ms or lost. So nothing is ever admitted that Redis did not count; a limit below 200 calls a second is asked for
call by call; and what two gateways that share a limit admit together differs by 1 % of a second from what one would.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

SPAN = 0.01  # seconds
_KEYS = 4096


class Lease:
    """What is taken of the limits of a caller. `now` is in seconds of one clock."""

    __slots__ = ("_asking", "_before", "_came", "_ends", "_left", "_scarce", "_since", "_waiting")

    def __init__(self, now: float) -> None:
        self._asking: asyncio.Event | None = None
        self._waiting = 0
        self._left = 0
        self._ends = 0.0
        self._scarce = 0.0  # until when each call asks for itself
        self._since = now
        self._came = 0
        self._before = 0

    def use(self, now: float) -> bool:
        """Counts a call that came; whether it was taken before."""
        if now - self._since >= SPAN:
            self._before = self._came if now - self._since < 2 * SPAN else 0
            self._came, self._since = 0, now
        self._came += 1
        return now < self._ends and self._use()

    @property
    def asking(self) -> bool:
        """Whether Redis is being asked."""
        return self._asking is not None

    async def wait(self) -> bool:
        """Waits while Redis is asked; whether it gave enough for this call too."""
        assert self._asking is not None
        self._waiting += 1
        try:
            await self._asking.wait()
        finally:
            self._waiting -= 1
        return self._use()

    def calls(self, most: int, now: float) -> int:
        """For how many calls to ask."""
        if now < self._scarce:
            return 1
        return max(1, min(most, max(self._before, self._waiting + 1)))

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        """Redis is asked while the block runs; what is left of what it gave before is lost."""
        asking = self._asking = asyncio.Event()
        self._left = 0
        try:
            yield
        finally:
            self._asking = None
            asking.set()

    def take(self, calls: int, asked: float) -> None:
        """So many were taken when Redis was asked."""
        self._left, self._ends = calls, asked + SPAN

    def refused(self, asked: float) -> None:
        """Redis has not got so many: perhaps fewer, so each call asks for itself."""
        self._scarce = asked + SPAN

    def _use(self) -> bool:
        if self._left:
            self._left -= 1
            return True
        return False


class Leases:
    """The leases of a gateway, by limit and caller."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}

    def of(self, key: str, now: float) -> Lease:
        """The lease of a caller."""
        lease = self._leases.get(key)
        if lease is None:
            if len(self._leases) >= _KEYS:
                # What is forgotten is at most asked for again.
                self._leases.clear()
            lease = self._leases[key] = Lease(now)
        return lease
