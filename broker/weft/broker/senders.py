"""Limits of senders: messages a second over all queues and brokers (GCRA).

`check` never waits. Each broker has its own view of a sender's bucket: as Redis told it last, and what this broker has
let through since. That is paid in Redis at once, in the background, for all senders in one write; what cannot be paid
yet is a debt, and nothing more is let through until time has paid it. So one broker is exact, and several are off by what
they let through within one round trip, or within the 100 ms after which a busy view is renewed. Over time they are exact.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Any, Protocol

import grpc

from weft import rpc
from weft.broker import layout
from weft.broker.bells import Bells
from weft.broker.clock import Clock
from weft.broker.functions import Functions
from weft.broker.policy import rate_violations
from weft.broker.queues import CONFIG_SHARD
from weft.v1 import broker_pb2 as pb
from weft.v1.message_pb2 import RateLimit

log = logging.getLogger("weft.broker")

Context = grpc.aio.ServicerContext[Any, Any]

_LIMITS = "{weft}:senders"  # hash: sender -> serialized weft.v1.RateLimit
_CHANGED = b"senders"
_MOST_SENDER = 200
_RENEWED = 0.1  # seconds after which the view of a busy sender is renewed
_BUSY = 5.0  # seconds since its last message for which a sender is busy
_AGAIN = 0.5  # seconds after a failure
_PATIENCE = 1.0  # seconds for Redis to answer, so that one silent node does not stop all limits
_ROUNDING = 0.001  # ms


class Runs(Protocol):
    """What is used of weft.broker.redis.Redis."""

    async def run(self, shard: int, *command: bytes | str | float) -> Any:
        """Sends a command that may be sent twice."""


class _Meter:
    """A sender's bucket as this broker sees it. Times in ms by the brokers' clock.

    Attributes:
        arrival: when the next message is due if all came evenly (the theoretical arrival time of GCRA).
        unpaid: messages that Redis does not know of.
        used: when the last one was let through, by the monotonic clock.
        paying: it is being paid, and looked at again then.
        timer: when it is paid next.
    """

    __slots__ = (
        "arrival",
        "interval",
        "limit",
        "paying",
        "sender",
        "span",
        "timer",
        "unpaid",
        "used",
    )

    def __init__(self, sender: str, limit: RateLimit) -> None:
        self.sender = sender
        self.limit = limit
        self.interval = 1000 / limit.per_second
        self.span = limit.burst * self.interval
        self.arrival = 0.0
        self.unpaid = 0
        self.used = 0.0
        self.paying = False
        self.timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """Ends its timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Senders:
    """All limits, and how much of each is used.

    Args:
        redis: where limits are kept.
        functions: share them among brokers.
        bells: tell and hear of changes.
        clock: the broker's.
    """

    def __init__(self, redis: Runs, functions: Functions, bells: Bells, clock: Clock) -> None:
        self._redis = redis
        self._functions = functions
        self._bells = bells
        self._clock = clock
        self._meters: dict[str, _Meter] = {}
        self._due: set[_Meter] = set()
        self._news = asyncio.Event()
        self._stale = False
        bells.on_change(self._heard)
        bells.on_reset(self._doubt)

    def check(self, sender: str, count: int) -> float:
        """Seconds until the sender may publish so many messages; 0: now, and they are counted.

        More messages than the limit's burst are never let through at once.
        """
        meter = self._meters.get(sender)
        if meter is None:
            return 0.0
        now = self._clock.now_ms()
        arrival = max(meter.arrival, now) + count * meter.interval
        early = arrival - meter.span - now
        if early > _ROUNDING:
            return early / 1000
        meter.arrival = arrival
        meter.unpaid += count
        meter.used = monotonic()
        if not meter.paying:
            self._pay_soon(meter)
        return 0.0

    async def load(self) -> None:
        """Reads all limits; at start and whenever something may have changed unheard."""
        self._stale = False
        found = await self._redis.run(CONFIG_SHARD, "HGETALL", _LIMITS)
        limits = {
            sender.decode(): RateLimit.FromString(record)
            for sender, record in zip(found[::2], found[1::2], strict=True)
        }
        for sender, meter in list(self._meters.items()):
            if limits.get(sender) != meter.limit:
                meter.stop()
                del self._meters[sender]
        for sender in limits.keys() - self._meters.keys():
            meter = self._meters[sender] = _Meter(sender, limits[sender])
            self._pay_soon(meter)  # what other brokers let through before counts

    async def run(self) -> None:
        """Shares with the other brokers for ever; for a task of its own."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                with rpc.Deadline.after_seconds(_PATIENCE).applied():
                    if self._stale:
                        await self._reload()
                    due, self._due = self._due, set()
                    await asyncio.gather(*(self._pay(meter) for meter in due))
        finally:
            for meter in self._meters.values():
                meter.stop()

    async def SetSenderLimit(
        self, request: pb.SetSenderLimitRequest, _: Context
    ) -> pb.SetSenderLimitResponse:
        """See broker.proto."""
        wrong = []
        if not 1 <= len(request.sender) <= _MOST_SENDER or "\0" in request.sender:
            wrong.append(("sender", f"must be 1 to {_MOST_SENDER} characters without NUL"))
        if request.HasField("limit"):
            wrong += rate_violations(request.limit, "limit")
        if wrong:
            raise rpc.InvalidArgument(violations=wrong)
        if request.HasField("limit"):
            record = request.limit.SerializeToString(deterministic=True)
            await self._redis.run(CONFIG_SHARD, "HSET", _LIMITS, request.sender, record)
        else:
            await self._redis.run(CONFIG_SHARD, "HDEL", _LIMITS, request.sender)
        await self.load()
        await self._bells.announce(_CHANGED)
        return pb.SetSenderLimitResponse()

    async def _reload(self) -> None:
        try:
            await self.load()
        except rpc.Unavailable:
            log.warning("limits of senders could not be read again yet")
            self._doubt()

    async def _pay(self, meter: _Meter) -> None:
        """Tells Redis what was let through, and takes its view."""
        meter.paying = True
        meter.stop()
        delay: float | None = _AGAIN
        try:
            delay = await self._paid(meter)
        except rpc.Unavailable:
            log.warning("a sender's limit is not shared now", extra={"sender": meter.sender})
        finally:
            meter.paying = False
        if delay is not None and self._meters.get(meter.sender) is meter:
            loop = asyncio.get_running_loop()
            meter.timer = loop.call_later(delay, self._pay_soon, meter)

    async def _paid(self, meter: _Meter) -> float | None:
        """Pays; seconds until that should be done again."""
        unpaid, granted, wait = meter.unpaid, 0, 0
        if unpaid:
            granted, wait = await self._functions.limit_sender(
                meter.sender,
                now=self._clock.now_ms(),
                per_second=meter.limit.per_second,
                burst=meter.limit.burst,
                wanted=unpaid,
            )
        shard = layout.shard_of(meter.sender)
        key = f"{layout.tag(shard)}:s:{meter.sender}"  # see weft.broker.functions
        arrival = float(await self._redis.run(shard, "GET", key) or 0)
        meter.unpaid -= granted
        meter.arrival = max(arrival, self._clock.now_ms()) + meter.unpaid * meter.interval
        if granted < unpaid:
            return max(wait, 1) / 1000
        if meter.unpaid:  # let through meanwhile
            return 0.0
        return _RENEWED if monotonic() - meter.used < _BUSY else None

    def _pay_soon(self, meter: _Meter) -> None:
        self._due.add(meter)
        self._news.set()

    def _heard(self, what: bytes) -> None:
        if what == _CHANGED:
            self._doubt()

    def _doubt(self) -> None:
        self._stale = True
        self._news.set()
