"""A queue with consumers: reads what they have credit for, and shares it out."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from weft import rpc
from weft.broker.clock import Clock
from weft.broker.delivery.leases import Holder, Lease
from weft.broker.delivery.recovery import Recovery, Sends
from weft.broker.delivery.settlements import Settlements
from weft.broker.delivery.shares import ALL, Shares
from weft.broker.functions import Functions
from weft.broker.layout import GROUP, PAYLOAD_ELSEWHERE, Entry
from weft.broker.queues import Queue
from weft.broker.redis import ReplyError

log = logging.getLogger("weft.broker")

_MOST_READ = 256  # messages a read
_MOST_BYTES = 4 * 1024 * 1024  # that a read should bring
_LATER = 1_000  # ms until a message is tried again whose content could not be had
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 1.0  # seconds until a read is tried again

Message = tuple[Lease, bytes, int]  # with its bytes, and when it was published


class Loads(Protocol):
    """What is used of weft.broker.publishing.Payloads."""

    async def load(self, entry: Entry) -> bytes:
        """The message of an entry, wherever it is."""


class Receiver(Holder, Protocol):
    """A consumer that is given messages."""

    @property
    def room(self) -> int:
        """How many messages it takes now."""

    def deliver(self, messages: Sequence[Message]) -> None:
        """Gives it some."""


class Post:
    """Delivers a queue.

    Args:
        queue: what is delivered.
        redis: where it is read.
        functions: settle.
        clock: the broker's.
        payloads: have the large messages.
        instance: id of this broker.
        fresh: whether the other brokers still count with this one; what is read must not be delivered otherwise.
        doubt: told when something may have been read that did not arrive.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        redis: Sends,
        functions: Functions,
        clock: Clock,
        payloads: Loads,
        instance: str,
        fresh: Callable[[], bool],
        doubt: Callable[[], None],
    ) -> None:
        self.queue = queue
        self.receivers: list[Receiver] = []
        self.settlements = Settlements(queue, functions=functions, clock=clock)
        self._redis = redis
        self._functions = functions
        self._clock = clock
        self._payloads = payloads
        self._instance = instance
        self._fresh = fresh
        self._doubt = doubt
        self._recovery = Recovery(
            queue,
            self.settlements,
            redis=redis,
            functions=functions,
            instance=instance,
        )
        self._shares = Shares()
        self._ready = ALL
        self._turn = 0
        self._entry_bytes = 0.0  # of late
        self._reading: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._pause = _FIRST_PAUSE
        self._closed = False
        self._taking = False
        self._lock = asyncio.Lock()  # whoever has it is the only one to read
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.Context()

    def join(self, receiver: Receiver) -> None:
        """Begins to deliver to a consumer."""
        self.receivers.append(receiver)

    def leave(self, receiver: Receiver) -> None:
        """Stops it; its leases stay until they are settled, resumed or run out."""
        self.receivers = [one for one in self.receivers if one is not receiver]  # it may be closed
        for lease in self.settlements.leases.of(receiver):
            lease.holder = None
        self.settlements.forget({one.consumer for one in self.receivers})

    # -- reading

    def wake(self, ready: int = 0) -> None:
        """Reads, if there may be messages (`ready`: bits of the priorities that have new ones) and room for them."""
        self._ready |= ready
        if self._reading is None and not self._taking and self._again is None and self._may_read():
            self._reading = self._loop.create_task(self._read(), context=self._context)

    def _may_read(self) -> bool:
        return bool(self._ready and self._may_deliver())

    def _may_deliver(self) -> bool:
        # `fresh` changes without a word while it is wrong; `recover` is called when it is right again.
        return bool(self.receivers and not self.queue.paused and not self._closed and self._fresh())

    async def _read(self) -> None:
        try:
            while self._may_read() and (room := self._room()):
                async with self._lock:
                    await self._read_some(min(room, self._most_read()))
                self._pause = _FIRST_PAUSE
        except rpc.Unavailable:
            self._read_again()
        except ReplyError as failed:
            await self._repair(failed)
            self._read_again()
        except Exception:
            log.exception("a queue cannot be read", extra={"queue": self.queue.name})
            self._read_again()
        finally:
            self._reading = None

    def _read_again(self) -> None:
        """A refusal, unlike a lost connection, ends without a word: nobody else would wake us."""
        if not self._closed:
            delay = random.uniform(self._pause / 2, self._pause)  # noqa: S311 jitter
            self._again = self._loop.call_later(delay, self._resume_reading)
            self._pause = min(_LAST_PAUSE, self._pause * 2)

    def _resume_reading(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self.wake(ALL)

    def _room(self) -> int:
        return sum(receiver.room for receiver in self.receivers)

    def _most_read(self) -> int:
        """Few, where messages are large: nobody knows how large the next ones are."""
        if not self._entry_bytes:
            return _MOST_READ
        return max(1, min(_MOST_READ, int(_MOST_BYTES / self._entry_bytes)))

    async def _read_some(self, credit: int) -> None:
        shares = self._shares.split(credit, self._ready)
        for priority in shares:
            self._ready &= ~(1 << priority)  # unless it turns out to have more, or rings meanwhile
        asked = [
            self._redis.send(
                self.queue.shard,
                *("XREADGROUP", "GROUP", GROUP, self._instance, "COUNT", count),
                *("STREAMS", f"{self.queue.key}:{priority}", ">"),
            )
            for priority, count in shares.items()
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        failed: BaseException | None = None
        for (priority, count), answer in zip(shares.items(), answers, strict=True):
            if isinstance(answer, BaseException):
                failed = answer
                self._ready |= 1 << priority
                continue
            rows = answer[0][1] if answer else []
            if len(rows) >= count:
                self._ready |= 1 << priority
            if rows:
                prefix = b"%d:" % priority
                await self._load_all(self._sort([(prefix + row[0], row[1][1]) for row in rows]))
        if failed is not None:
            raise failed

    # -- taking what is published

    async def reserve(self) -> int:
        """How many messages a publish may take for the consumers at once, because none of the queue waits; mostly 0.

        Where it is not 0, nothing is read until `took` or `missed` is called.
        """
        if (
            self._ready
            or self._taking
            or self._reading is not None
            or self._again is not None
            or self._lock.locked()
            or not self._may_deliver()
        ):
            return 0
        room = min(self._room(), self._most_read())
        if room > 0:
            self._taking = True
            await self._lock.acquire()
        return max(0, room)

    def took(self, taken: Sequence[tuple[bytes, bytes]]) -> None:
        """These are taken: lease ids and packed entries."""
        elsewhere = self._sort(taken) if taken else []
        self._taking = False
        if elsewhere:
            self._reading = self._loop.create_task(self._finish(elsewhere), context=self._context)
        else:
            self._lock.release()
            self.wake()

    def missed(self) -> None:
        """The publish failed: nobody knows what it has taken."""
        self._taking = False
        self._lock.release()
        self._doubt()

    async def _finish(self, elsewhere: Sequence[tuple[Lease, Entry]]) -> None:
        try:
            await self._load_all(elsewhere)
        finally:
            self._lock.release()
            self._reading = None
            self.wake()

    # -- delivering

    def _sort(self, taken: Sequence[tuple[bytes, bytes]]) -> list[tuple[Lease, Entry]]:
        """Delivers what can be; those whose content is elsewhere."""
        now, fresh = self._clock.now_ms(), self._fresh()
        ready: list[Message] = []
        elsewhere: list[tuple[Lease, Entry]] = []
        size = 0
        for lease_id, stored in taken:
            size += len(stored)
            entry = Entry.unpack(stored)
            lease = Lease(
                lease_id, None, 0.0, entry.attempt, entry.key, entry.identity, len(stored)
            )
            if not fresh:
                # Others may have taken it over by now; if not, it goes back.
                self.settlements.unused(lease)
            elif entry.expires and entry.expires <= now:
                self.settlements.kill(
                    lease, reason="EXPIRED", error="it expired before it was delivered"
                )
            elif entry.flags & PAYLOAD_ELSEWHERE:
                elsewhere.append((lease, entry))
            else:
                ready.append((lease, entry.message, entry.published))
        self._entry_bytes = (self._entry_bytes + size / len(taken)) / 2
        if not fresh:
            log.warning("messages were read too late", extra={"queue": self.queue.name})
        self._deal(ready)
        return elsewhere

    async def _load_all(self, elsewhere: Sequence[tuple[Lease, Entry]]) -> None:
        if elsewhere:
            await asyncio.gather(*(self._load(lease, entry) for lease, entry in elsewhere))

    async def _load(self, lease: Lease, entry: Entry) -> None:
        try:
            message = await self._payloads.load(entry)
        except rpc.DataLoss as failed:
            self.settlements.kill(lease, reason=failed.reason, error=failed.message)
        except rpc.Error:
            self.settlements.unused(lease, delay_ms=_LATER)
        else:
            self._deal([(lease, message, entry.published)])

    def _deal(self, messages: list[Message]) -> None:
        """Gives messages to the consumers that have room, in turn."""
        self.settlements.leases.grant([lease for lease, _, _ in messages])
        takers = [receiver for receiver in self.receivers if receiver.room]
        self._turn += 1
        index = 0
        for position in range(len(takers)):
            receiver = takers[(self._turn + position) % len(takers)]
            fair = -(-(len(messages) - index) // (len(takers) - position))
            index += self._give(receiver, messages[index : index + fair])
        for receiver in takers:  # what the later ones left, for those that have room yet
            index += self._give(receiver, messages[index:])
        for lease, _, _ in messages[index:]:  # those they were read for have gone
            self.settlements.leases.end(lease.lease_id)
            self.settlements.unused(lease)

    @staticmethod
    def _give(receiver: Receiver, messages: list[Message]) -> int:
        """Gives a consumer as many as it has room for; how many."""
        some = messages[: receiver.room]
        for lease, _, _ in some:
            lease.give(receiver)
        if some:
            receiver.deliver(some)
        return len(some)

    async def _repair(self, failed: ReplyError) -> None:
        extra = {"queue": self.queue.name, "why": str(failed)}
        if failed.code != "NOGROUP":
            log.error("a queue cannot be read", extra=extra)
            return
        log.error("the streams of a queue are gone; they are made anew", extra=extra)
        try:
            await self._functions.declare(self.queue)
        except (rpc.Unavailable, ReplyError):
            log.exception("they cannot be made", extra=extra)

    # -- keeping true

    async def resume(self, lease_ids: Sequence[bytes], receiver: Receiver) -> list[bytes]:
        """Gives leases of a broken stream to a new one; returns those that are lost.

        Raises:
            rpc.Unavailable: Redis is away.
        """
        return await self._recovery.resume(lease_ids, receiver)

    async def recover(self) -> None:
        """After a connection was lost: puts back what was read and never arrived, forgets what Redis forgot.

        Raises:
            rpc.Unavailable: Redis is away again.
        """
        async with (
            self._lock
        ):  # no read is under way: its answer would look like something that never arrived
            await self._recovery.recover()
        self._resume_reading()

    # -- its end

    async def close(self) -> int:
        """Returns when all is settled: how many messages consumers still have in hand.

        Those are left pending. Their consumers go on with them at another broker; what nobody resumes goes back when the
        others take over. Cancel it to give up.
        """
        self._closed = True
        self.receivers = []  # what a read brings yet goes back
        if self._reading is not None:
            await asyncio.wait((self._reading,))
        async with self._lock:  # what a publish takes yet goes back too
            await self.settlements.settle()
        in_hand = len(self.settlements.leases)
        self.settlements.leases.close()
        return in_hand

    def cancel(self) -> None:
        """Ends at once, with whatever is under way."""
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        if self._reading is not None:
            self._reading.cancel()
        self.settlements.cancel()
