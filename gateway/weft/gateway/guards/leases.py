"""Shares of the limits in Redis, taken for several calls at once by a gateway that gets many.

Redis is asked for as many calls as came for the same limits within the last 10 ms, at most for a hundredth of a second's
worth of the limit and a quarter of its burst. What is taken is used within 10 ms or lost. So nothing is ever admitted that
Redis did not count; a limit below 200 calls a second is asked for call by call; and what two gateways that share
a limit admit together differs by 1 % of a second from what one would.
"""

from __future__ import annotations

import asyncio

SPAN = 0.01  # seconds
_KEYS = 4096


class Lease:
    """What is taken of the limits of a caller. `now` is in seconds of one clock."""

    __slots__ = ("_before", "_came", "_ends", "_left", "_since", "asking")

    def __init__(self, now: float) -> None:
        self.asking: asyncio.Future[None] | None = None
        self._left = 0
        self._ends = 0.0
        self._since = now
        self._came = 0
        self._before = 0

    def use(self, now: float) -> bool:
        """Counts a call that came; whether it was taken before."""
        if now - self._since >= SPAN:
            self._before = self._came if now - self._since < 2 * SPAN else 0
            self._came, self._since = 0, now
        self._came += 1
        return self.again(now)

    def again(self, now: float) -> bool:
        """Whether there is one for a call that was counted."""
        if self._left and now < self._ends:
            self._left -= 1
            return True
        return False

    def calls(self, most: int) -> int:
        """For how many calls to ask."""
        return max(1, min(most, self._before))

    def take(self, calls: int, asked: float) -> None:
        """So many were taken when Redis was asked."""
        self._left, self._ends = calls, asked + SPAN


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
