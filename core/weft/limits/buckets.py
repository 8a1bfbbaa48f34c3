"""The generic cell rate algorithm: for each key one number, the time at which its bucket will be empty again."""

from __future__ import annotations

_KEYS = 65_536


class Buckets:
    """Buckets by key. All times are in seconds of one clock.

    Args:
        capacity: keys remembered; those that are empty are forgotten first.
    """

    __slots__ = ("_capacity", "_empty_at")

    def __init__(self, capacity: int = _KEYS) -> None:
        self._capacity = capacity
        self._empty_at: dict[str, float] = {}

    def level(self, key: str, now: float) -> float:
        """Seconds until the bucket is empty."""
        return max(0.0, self._empty_at.get(key, 0.0) - now)

    def add(self, key: str, now: float, seconds: float) -> None:
        """Fills the bucket by so much, beyond its brim too; takes it out where it is below 0."""
        self.set(key, now, self.level(key, now) + seconds)

    def set(self, key: str, now: float, level: float) -> None:
        """Says how full the bucket is."""
        if level <= 0:
            self._empty_at.pop(key, None)
            return
        if len(self._empty_at) >= self._capacity and key not in self._empty_at:
            self._make_room(now)
        self._empty_at[key] = now + level

    def __len__(self) -> int:
        return len(self._empty_at)

    def _make_room(self, now: float) -> None:
        self._empty_at = {key: at for key, at in self._empty_at.items() if at > now}
        for key in sorted(self._empty_at, key=self._empty_at.__getitem__)[: self._surplus()]:
            del self._empty_at[key]

    def _surplus(self) -> int:
        # A tenth at a time, so that sorting is rare.
        fits = self._capacity - max(1, self._capacity // 10)
        return max(0, len(self._empty_at) - fits)
