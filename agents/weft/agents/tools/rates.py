"""How often tools are used: a bucket for each tool and identity, here and, where there is Redis, for all processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from google.rpc import error_details_pb2

from weft.agents.tools.callers import Caller
from weft.agents.tools.failures import ToolLimited
from weft.agents.tools.tool import Rate, Tool
from weft.limits import Buckets, SharedLimits

_SEPARATOR = "\x1f"
_LEAST = 1e-6  # seconds: Redis counts microseconds


class Rates:
    """Lets uses through as far as the rates of tools allow.

    Args:
        shared: what all processes share; None: this one is alone. Where it cannot be asked, this process counts alone.
        clock: seconds, monotonic.
    """

    def __init__(
        self, shared: SharedLimits | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shared = shared
        self._clock = clock
        self._buckets = Buckets()

    async def enter(self, tool: Tool, caller: Caller) -> None:
        """Counts a use.

        Raises:
            ToolLimited: there were too many; `retry_after` says when the next is let through.
        """
        rate = tool.rate
        if rate is None:
            return
        key = _SEPARATOR.join(("tool", tool.name, caller.key))
        cost, brim = 1 / rate.per_second, rate.burst / rate.per_second
        now = self._clock()
        level = self._buckets.level(key, now)
        if level + cost - brim <= _LEAST and self._shared is not None:
            answer = await self._shared.take([("rate", key, 1.0, brim, cost)])
            if answer is not None:
                level = answer[1][0]
                self._buckets.set(key, now, level)
        over = level + cost - brim
        if over > _LEAST:
            raise _limited(tool, rate, over)
        self._buckets.add(key, now, cost)


def _limited(tool: Tool, rate: Rate, seconds: float) -> ToolLimited:
    described = f"{rate.per_second:g} a second, {rate.burst:g} at once"
    failure = error_details_pb2.QuotaFailure()
    failure.violations.add(subject=tool.name, description=described)
    return ToolLimited(
        f"{tool.name} is used too often ({described}); try again in {seconds:.3g} s.",
        retry_after=timedelta(seconds=seconds),
        metadata={"tool": tool.name},
        details=[failure],
    )
