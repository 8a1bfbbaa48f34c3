"""What a server is doing now: calls in flight against their limit, latency, outcomes."""

from __future__ import annotations

from datetime import timedelta

_WEIGHT = 0.1  # of the newest call in the moving average: about the last 20 calls


class LoadMeter:
    """Counts the calls of one agent's instance. Not thread-safe: it lives on the event loop.

    Attributes:
        limit: calls worked on at a time.
        in_flight: calls being worked on.
        latency_ewma: exponentially weighted moving average of latency, seconds.
        calls: calls finished.
        failures: of these, calls that failed by the instance's fault.
    """

    __slots__ = ("_places", "calls", "failures", "in_flight", "latency_ewma", "limit")

    def __init__(self, limit: int) -> None:
        self._places = self.limit = limit
        self.in_flight = 0
        self.latency_ewma = 0.0
        self.calls = 0
        self.failures = 0

    def begin(self) -> bool:
        """Takes a place; False when there is none (`end` must be called all the same)."""
        self.in_flight += 1
        return self.in_flight <= self._places

    def let_in(self, limit: int, *, closed: bool = False) -> None:
        """Sets how many calls are worked on at a time, and whether any is let in. Those that run go on."""
        self.limit = limit
        self._places = 0 if closed else limit

    def end(self, seconds: float, *, failed: bool) -> None:
        """Gives the place back."""
        self.in_flight -= 1
        self.calls += 1
        if failed:
            self.failures += 1
        self.latency_ewma += (seconds - self.latency_ewma) * (_WEIGHT if self.calls > 1 else 1.0)

    def retry_after(self) -> timedelta:
        """When a place is likely to be free."""
        return timedelta(seconds=min(5.0, max(0.05, self.latency_ewma)))
