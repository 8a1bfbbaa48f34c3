"""Circuit breakers, of models and of sources of context: what fails again and again is left alone for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

log = logging.getLogger("weft.agents")


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When a circuit opens.

    Attributes:
        failures: so many in a row.
        open: for how long; then one request is let through.
    """

    failures: int = 5
    open: timedelta = timedelta(seconds=10)


class Breaker:
    """One circuit. For one event loop.

    Args:
        settings: when it opens.
        name: of what it is for, for logs.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: BreakerSettings,
        name: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._name = name
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0
        self._probing = False

    @property
    def wait(self) -> timedelta | None:
        """For how long it stays open; None: until whoever tries now has an answer, or it is not open."""
        left = self._open_until - self._clock()
        return timedelta(seconds=left) if self._is_open and left > 0 else None

    def enter(self) -> bool:
        """Leave for one request, whose outcome must be told; false: not now."""
        if self._is_open and (self._probing or self.wait is not None):
            return False
        self._probing = self._is_open
        return True

    def succeeded(self) -> None:
        """The request was answered."""
        if self._is_open:
            log.info("circuit closed", extra={"circuit": self._name})
        self._failures = 0
        self._probing = False

    def failed(self) -> None:
        """It failed through trouble of who was asked."""
        self._failures += 1
        self._probing = False
        if self._is_open:
            self._open_until = self._clock() + self._settings.open.total_seconds()
            log.warning("circuit open", extra={"circuit": self._name, "failures": self._failures})

    def left(self) -> None:
        """Nobody knows: its caller gave up, or it failed through no trouble of who was asked."""
        self._probing = False

    @property
    def _is_open(self) -> bool:
        return self._failures >= self._settings.failures
