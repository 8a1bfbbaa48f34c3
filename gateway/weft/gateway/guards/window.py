"""Calls and failures of the last few seconds, in constant time and memory."""

from __future__ import annotations

from datetime import timedelta

_BUCKETS = 10


class Window:
    """Counts over a sliding span of time, kept in a ring of ten buckets (of one second in a span of 10 s).

    What a bucket holds leaves the counts together, so the span is exact to a tenth.
    """

    __slots__ = ("_buckets", "_slot", "_width", "calls", "failures")

    def __init__(self, span: timedelta) -> None:
        self._width = span.total_seconds() / _BUCKETS
        self._slot = 0
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self.calls = 0
        self.failures = 0
        self._buckets = [[0, 0] for _ in range(_BUCKETS)]

    def record(self, now: float, failures: int) -> None:
        """Counts one call that ended at `now` (seconds, monotonic) with `failures` 0 or 1."""
        slot = int(now / self._width)
        if slot != self._slot:
            self._turn(slot)
        bucket = self._buckets[slot % _BUCKETS]
        bucket[0] += 1
        bucket[1] += failures
        self.calls += 1
        self.failures += failures

    def turn(self, now: float) -> None:
        """Drops what is older than the span at `now`."""
        self._turn(int(now / self._width))

    def _turn(self, slot: int) -> None:
        for passed in range(min(slot - self._slot, _BUCKETS)):
            bucket = self._buckets[(slot - passed) % _BUCKETS]
            self.calls -= bucket[0]
            self.failures -= bucket[1]
            bucket[0] = bucket[1] = 0
        self._slot = slot
