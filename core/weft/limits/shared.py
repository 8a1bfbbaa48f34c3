"""The limits that all processes share, in Redis: asked by one script, for all calls that wait at a time."""

from __future__ import annotations

import asyncio
import importlib.resources
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import orjson
import redis
import redis.exceptions

from weft import embedded

log = logging.getLogger("weft.limits")

Step = tuple[Any, ...]  # kind, key, arguments: see shared.lua

_SOURCE = importlib.resources.files(__package__).joinpath("shared.lua").read_text("utf-8")
_PREFIX = "weft:limits:"
_PATIENCE = timedelta(milliseconds=250)
_AWAY = 1.0  # seconds for which nobody asks a Redis that did not answer
_LEASE = 30.0  # seconds a place stays taken whose process died
_BATCH = 256  # groups asked at once
_WAITING = 20_000  # groups that wait for Redis; what is more is not told to it

_FAILED = (redis.exceptions.RedisError, OSError, TimeoutError)


class SharedLimits:
    """Asks Redis; for one event loop.

    Args:
        url: a Redis server (not a cluster), in the form redis-py takes.
        on_away: told of each call that Redis was not asked for.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        url: str,
        *,
        on_away: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = embedded.redis_client(url, timeout=_PATIENCE)
        self._script = self._client.register_script(_SOURCE)
        self._on_away = on_away
        self._clock = clock
        self._away_until = 0.0
        self._process = uuid.uuid4().hex[:12]
        self._places = 0
        self._held: dict[str, str] = {}
        self._waiting: list[tuple[Sequence[Step], asyncio.Future[Any] | None]] = []
        self._asking: asyncio.Task[None] | None = None

    async def take(self, steps: Sequence[Step]) -> tuple[bool, list[float]] | None:
        """Takes all of what the steps ask for, or nothing.

        Returns:
            Whether it was taken, and for each step the level before; None: Redis is away.
        """
        if self._clock() < self._away_until or len(self._waiting) >= _WAITING:
            self._on_away()
            return None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ask(steps, future)
        answer = await future
        if answer is None:
            self._on_away()
            return None
        taken, levels = answer
        return bool(taken), [float(level) for level in levels]

    def place(self, key: str, limit: float) -> Step:
        """The step that takes one of `limit` places; give it back by `free`."""
        self._places += 1
        member = f"{self._process}-{self._places}"
        self._held[member] = key
        return ("hold", key, limit, _LEASE, member)

    def free(self, step: Step) -> None:
        """Gives back what the step of `place` took, or tried to take."""
        _, key, *_, member = step
        if self._held.pop(member, None) is not None:
            self.tell(("free", key, member))

    def tell(self, step: Step) -> None:
        """Has a step done, and does not wait; it is lost where Redis is away."""
        if self._clock() >= self._away_until and len(self._waiting) < _WAITING:
            self._ask([step], None)

    async def run(self) -> None:
        """Keeps places from lapsing, for ever; for a task of its own."""
        while True:
            await asyncio.sleep(_LEASE / 3)
            for member, key in list(self._held.items()):
                self.tell(("renew", key, _LEASE, member))

    async def close(self) -> None:
        """Tells Redis what it has not heard, and leaves it."""
        if self._asking is not None:
            await self._asking
        await self._client.aclose()

    def _ask(self, steps: Sequence[Step], future: asyncio.Future[Any] | None) -> None:
        self._waiting.append((steps, future))
        if self._asking is None:
            self._asking = asyncio.create_task(self._drain(), name="shared limits")

    async def _drain(self) -> None:
        # One question at a time: what comes meanwhile is asked together.
        try:
            while self._waiting:
                batch = self._waiting[:_BATCH]
                del self._waiting[:_BATCH]
                answers = await self._answers([steps for steps, _ in batch])
                for (_, future), answer in zip(batch, answers, strict=True):
                    if future is not None and not future.done():
                        future.set_result(answer)
        finally:
            self._asking = None

    async def _answers(self, groups: Sequence[Sequence[Step]]) -> Sequence[Any]:
        keys: dict[str, int] = {}
        asked = [
            [(kind, keys.setdefault(key, len(keys) + 1), *further) for kind, key, *further in steps]
            for steps in groups
        ]
        if self._clock() < self._away_until:
            return [None] * len(groups)
        try:
            answers: Sequence[Any] = await self._script(
                keys=[_PREFIX + key for key in keys], args=[orjson.dumps(asked)]
            )
        except _FAILED:
            log.warning("redis is away: limits are those of this process alone", exc_info=True)
            self._away_until = self._clock() + _AWAY
            return [None] * len(groups)
        return answers
