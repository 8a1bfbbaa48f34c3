"""How the credit of consumers is shared among the priorities: 8, 3 and 1 of 12 while all wait."""

from __future__ import annotations

from collections.abc import Mapping

WEIGHTS: Mapping[int, int] = {1: 8, 2: 3, 3: 1}
ALL = sum(1 << priority for priority in WEIGHTS)


class Shares:
    """Splits credits so that over time each priority gets its weight: what rounding takes is owed."""

    def __init__(self) -> None:
        self._owed = dict.fromkeys(WEIGHTS, 0.0)

    def split(self, credit: int, ready: int) -> dict[int, int]:
        """The share of each priority that may have messages.

        Args:
            credit: how many messages may be read.
            ready: bits of the priorities that may have some (1 << priority).
        """
        waiting = [priority for priority in WEIGHTS if ready >> priority & 1]
        if len(waiting) < len(WEIGHTS):
            for priority in WEIGHTS.keys() - set(waiting):
                self._owed[priority] = 0.0  # who has nothing to read saves nothing up
        if len(waiting) <= 1:
            return dict.fromkeys(waiting, credit)
        total = sum(WEIGHTS[priority] for priority in waiting)
        for priority in waiting:
            self._owed[priority] += credit * WEIGHTS[priority] / total
        given = {priority: max(0, int(self._owed[priority])) for priority in waiting}
        left = credit - sum(given.values())
        for priority in sorted(waiting, key=lambda p: given[p] - self._owed[p]):
            change = 1 if left > 0 else -1 if left < 0 and given[priority] else 0
            given[priority] += change
            left -= change
        for priority in waiting:
            self._owed[priority] -= given[priority]
        return {priority: count for priority, count in given.items() if count > 0}
