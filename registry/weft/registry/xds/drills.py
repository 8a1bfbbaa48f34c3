"""The ends of drills: what a drill changed is changed back when its time is over, with nobody doing anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from weft.registry.index import Index

_BEHIND = 0.001  # seconds, for clocks that are rounded


class Drills:
    """Watches the clock for drills.

    Args:
        index: knows them.
        ended: told the agent.
    """

    def __init__(self, index: Index, ended: Callable[[str], None]) -> None:
        self._index = index
        self._ended = ended
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def follow(self, agent: str) -> None:
        """Takes what is in force for an agent now."""
        timer = self._timers.pop(agent, None)
        if timer is not None:
            timer.cancel()
        left = self._index.policy(agent).drill_ends_in()
        if left > 0:
            loop = asyncio.get_running_loop()
            self._timers[agent] = loop.call_later(left + _BEHIND, self._over, agent)

    def stop(self) -> None:
        """Watches no more."""
        for timer in self._timers.values():
            timer.cancel()

    def _over(self, agent: str) -> None:
        del self._timers[agent]
        self._ended(agent)
        self.follow(agent)  # where the clock was set back meanwhile
