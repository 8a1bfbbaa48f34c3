"""Wakes waiters after changes, any number of changes at a time."""

from __future__ import annotations

import asyncio


class Signal:
    """Something changed: come and look.

    A burst of changes is one wake-up, and wake-ups come at least `gap` seconds apart, so that a thousand
    changes seen by a thousand waiters are not a million wake-ups. A waiter compares revisions before it
    waits: between the two nothing else runs, so no change is missed.
    """

    def __init__(self, gap: float = 0.005) -> None:
        self._gap = gap
        self._event = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._fired = float("-inf")

    def notify(self) -> None:
        """Wakes all who wait, in the next tick of the loop at the earliest."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            pause = self._fired + self._gap - loop.time()
            self._timer = loop.call_later(max(0.0, pause), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._fired = asyncio.get_running_loop().time()
        self._event.set()
        self._event.clear()

    async def wait(self) -> None:
        """Returns after the next change; may return with none."""
        await self._event.wait()
