"""The brokers' clock: wall time that never jumps while a process lives.

Redis' clock decides nothing: a step of it would expire every lease at once or none for hours. Leases run on the
monotonic clock; what must be a time of day (not before, expiry, when a message was accepted) is read here.
"""

from __future__ import annotations

import time


class Clock:
    """Time of day anchored once, carried on by the monotonic clock."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return int((time.monotonic() + self._offset) * 1000)
