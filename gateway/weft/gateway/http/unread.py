"""The time that a caller has to read what was sent to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta


class Unread:
    """Cuts a connection whose caller leaves an answer unread for too long.

    Args:
        time: how long it may.
    """

    __slots__ = ("_seconds", "_timer")

    def __init__(self, time: timedelta) -> None:
        self._seconds = time.total_seconds()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, cut: Callable[[], None]) -> None:
        """The caller reads too slowly: its time starts, and `cut` is its end."""
        self._timer = asyncio.get_running_loop().call_later(self._seconds, cut)

    def end(self) -> None:
        """It has caught up, or is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
