"""Second attempts of calls that may run twice: after a failure, or when the first takes long.

After AIP-194 only UNAVAILABLE is tried again, with full jitter, within the caller's deadline, and within a budget: a
tenth of an agent's calls, so that an agent that fails is not asked several times as much. What the agent says of the
next attempt (google.rpc.RetryInfo, `grpc-retry-pushback-ms`) is kept. Attempts end when the circuit opens.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Container
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import grpc

from weft import rpc
from weft.gateway.guards.window import Window

T = TypeVar("T")

_PUSHBACK = "grpc-retry-pushback-ms"
_MILLISECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """How often is tried again.

    Raises:
        ValueError: a value is out of its range.
    """

    attempts: int = 4
    """Of a call, in all."""
    base: timedelta = timedelta(milliseconds=50)
    """Longest pause before the second attempt; doubles with each. The pause is drawn from 0 to it."""
    longest: timedelta = timedelta(seconds=1)
    """Longest pause of all."""
    budget: float = 0.1
    """Second attempts for each call of an agent, over the window."""
    window: timedelta = timedelta(seconds=10)
    spare: int = 10
    """Second attempts in a window for agents with few calls."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.spare < 0 or not 0 <= self.budget <= 1:
            raise ValueError("attempts must be at least 1, spare not negative, budget in [0, 1]")
        if min(self.base, self.longest, self.window) <= timedelta(0):
            raise ValueError("base, longest and window must be positive")


class Retries:
    """Tries again; for one event loop.

    Args:
        settings: how often.
        on_event: told the agent and what happened: retry, hedge or exhausted (the budget allows no more).
        clock: seconds, monotonic.
        spread: a number in [0, 1) for the jitter.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        settings: RetrySettings | None = None,
        *,
        on_event: Callable[[str, str], None] = lambda _agent, _event: None,
        clock: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings or RetrySettings()
        self._base = self._settings.base.total_seconds()
        self._longest = self._settings.longest.total_seconds()
        self._on_event = on_event
        self._clock = clock
        self._spread = spread
        self._sleep = sleep
        self._budgets: dict[str, Window] = {}

    async def run(
        self,
        agent: str,
        attempt: Callable[[], Awaitable[T]],
        deadline: rpc.Deadline,
        *,
        attempts: int | None = None,
        hedge_after: float = 0.0,
        given_up: Callable[[], bool] = lambda: False,
    ) -> T:
        """Makes a call that may run twice.

        Args:
            agent: whom it goes to.
            attempt: makes it once.
            deadline: of all attempts together.
            attempts: in all, where fewer than the settings say.
            hedge_after: seconds after which a second attempt runs beside the first; 0: never.
            given_up: whether nobody is to try again.

        Raises:
            grpc.aio.AioRpcError: as the last attempt failed.
        """
        budget = self._budget(agent)
        budget.record(self._clock(), 0)
        most = self._settings.attempts
        most = most if attempts is None else min(attempts, most)
        tried = 0
        while True:
            tried += 1
            try:
                if hedge_after and tried == 1 < most:
                    return await self._hedged(agent, attempt, hedge_after, given_up)
                return await attempt()
            except grpc.aio.AioRpcError as failed:
                pause = self._pause(failed, tried) if tried < most else None
                if pause is None or pause >= deadline.seconds() or given_up():
                    raise
                if not self._spend(agent, "retry"):
                    raise
            await self._sleep(pause)

    async def _hedged(
        self,
        agent: str,
        attempt: Callable[[], Awaitable[T]],
        after: float,
        given_up: Callable[[], bool],
    ) -> T:
        """The first answer of two attempts; of two failures the first."""
        running = {asyncio.ensure_future(attempt())}
        try:
            done, _ = await asyncio.wait(running, timeout=after)
            if not done and not given_up() and self._spend(agent, "hedge"):
                running.add(asyncio.ensure_future(attempt()))
            return await _first(running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _pause(self, failed: grpc.aio.AioRpcError, tried: int) -> float | None:
        """Seconds before the next attempt; None: there is none."""
        if failed.code() is not grpc.StatusCode.UNAVAILABLE:
            return None
        for key, value in failed.trailing_metadata() or ():
            if key == _PUSHBACK:  # gRFC A6: what is no number of milliseconds says never
                match = _MILLISECONDS.fullmatch(str(value))
                return int(match[0]) / 1e3 if match else None
        most = min(self._longest, self._base * 2.0 ** (tried - 1))
        told = getattr(rpc.error_from_call(failed), "retry_after", None)
        least: float = 0.0 if told is None else told.total_seconds()
        return least + self._spread() * most

    def _spend(self, agent: str, event: str) -> bool:
        budget = self._budget(agent)
        now = self._clock()
        budget.turn(now)
        # The window counts a second attempt as a failure, and as a call.
        calls = budget.calls - budget.failures
        if budget.failures >= max(self._settings.spare, self._settings.budget * calls):
            self._on_event(agent, "exhausted")
            return False
        budget.record(now, 1)
        self._on_event(agent, event)
        return True

    def _budget(self, agent: str) -> Window:
        budget = self._budgets.get(agent)
        if budget is None:
            budget = self._budgets[agent] = Window(self._settings.window)
        return budget

    def keep_only(self, agents: Container[str]) -> None:
        """Forgets the budgets of agents that are gone."""
        self._budgets = {name: of for name, of in self._budgets.items() if name in agents}


async def _first(running: AbstractSet[asyncio.Future[T]]) -> T:
    failure: grpc.aio.AioRpcError | None = None
    waiting: AbstractSet[asyncio.Future[T]] = running
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            try:
                return task.result()
            except grpc.aio.AioRpcError as failed:
                # An answer of the agent counts at once; only a lack of one is waited out.
                if failed.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                failure = failure or failed
    assert failure is not None
    raise failure
