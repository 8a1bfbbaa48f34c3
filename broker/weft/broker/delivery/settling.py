"""Brings settlements to Redis: all that gathers while a call is under way goes with the next one."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from weft import rpc
from weft.broker.delivery.leases import Lease
from weft.broker.errors import LeaseExpired

log = logging.getLogger("weft.broker")

MOST = 500  # settlements a call
_UNDER_WAY = 2
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 1.0

Item = TypeVar("Item")


class Told(Protocol):
    """Who is told what became of its settlements."""

    def settled(self, first: int, leases: Sequence[Lease], failed: Exception | None) -> None:
        """Its settlements from number `first` on, of these leases, are safe, or have failed for good."""


class Slip(NamedTuple):
    """A run of settlements, and whose they are. `told`: nobody, where the broker settles by itself."""

    leases: Sequence[Lease]
    told: Told | None
    first: int


class Settler(Generic[Item]):
    """Sends items in batches, over and over until Redis has taken them: every call may be sent twice.

    Args:
        send: takes a batch to Redis; says which of its leases were not held any more.
        done: told of each run that is safe, or that Redis rejected.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Collection[bytes]]],
        done: Callable[[Slip, Exception | None], None],
    ) -> None:
        self._send = send
        self._tell = done
        self._runs: deque[tuple[Sequence[Item], Slip]] = deque()
        self._under_way = 0
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.Context()  # of no call: its deadline is not that of a consumer

    def put(self, items: Sequence[Item], slip: Slip) -> None:
        """Adds a run: an item for each lease of its slip."""
        if len(items) > MOST:
            for begin in range(0, len(items), MOST):
                some = slip.leases[begin : begin + MOST]
                self.put(items[begin : begin + MOST], Slip(some, slip.told, slip.first + begin))
            return
        self._runs.append((items, slip))
        if not self._scheduled and self._under_way < _UNDER_WAY:
            self._scheduled = True
            self._loop.call_soon(self._flush, context=self._context)

    @property
    def busy(self) -> bool:
        """Whether something is not safe yet."""
        return bool(self._tasks or self._runs)

    async def settle(self) -> None:
        """Returns when all is safe."""
        while self.busy:
            if self._tasks:
                await asyncio.wait(self._tasks)
            else:
                await asyncio.sleep(0)

    def cancel(self) -> None:
        """Gives up what is under way."""
        self._runs.clear()
        for task in self._tasks:
            task.cancel()

    def _flush(self) -> None:
        self._scheduled = False
        runs = self._runs
        while runs and self._under_way < _UNDER_WAY:
            items: list[Item] = []
            slips: list[Slip] = []
            while runs and len(items) + len(runs[0][0]) <= MOST:
                some, slip = runs.popleft()
                items += some
                slips.append(slip)
            self._under_way += 1
            task = self._loop.create_task(self._bring(items, slips), context=self._context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _bring(self, items: list[Item], slips: list[Slip]) -> None:
        try:
            failed, late = await self._until_taken(items)
        finally:
            self._under_way -= 1
            self._flush()
        tell = self._tell
        for slip in slips:
            if not late or late.isdisjoint([lease.lease_id for lease in slip.leases]):
                tell(slip, failed)
                continue
            for number, lease in enumerate(slip.leases, slip.first):
                gone = LeaseExpired() if lease.lease_id in late else None
                tell(Slip((lease,), slip.told, number), gone)

    async def _until_taken(self, items: list[Item]) -> tuple[Exception | None, set[bytes]]:
        pause, repeated = _FIRST_PAUSE, False
        while True:
            try:
                late = await self._send(items)
            except rpc.Unavailable:
                # The next try finds what the former one did, if it did anything: what is late then may be done.
                repeated = True
                await asyncio.sleep(pause)
                pause = min(_LAST_PAUSE, pause * 2)
            except Exception as failed:
                log.exception("Redis rejects settlements; their messages will be delivered again")
                return failed, set()
            else:
                return None, set() if repeated else set(late)
