"""A queue with consumers: its leases, its settlements, and the reading of what they have credit for."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from weft import rpc
from weft.broker import layout
from weft.broker.clock import Clock
from weft.broker.delivery.leases import Holder, Lease, Leases
from weft.broker.delivery.settling import Settler
from weft.broker.delivery.shares import ALL, Shares
from weft.broker.functions import Ack, Death, Functions, Retry
from weft.broker.layout import GROUP, HEAD_BYTES, PAYLOAD_ELSEWHERE, Entry
from weft.broker.queues import Queue
from weft.broker.redis import ReplyError

log = logging.getLogger("weft.broker")

_MOST_READ = 256  # messages a read
_RECOVERED = 1_000  # pending entries looked at in one go
_LATER = 1_000  # ms until a message is tried again whose content could not be had
_MOST_ERROR = 2_000


class Reads(Protocol):
    """What is used of weft.broker.redis.Redis."""

    def send(self, shard: int, *command: bytes | str | float) -> asyncio.Future[Any]:
        """Sends a command once."""


class Loads(Protocol):
    """What is used of weft.broker.publishing.Payloads."""

    async def load(self, entry: Entry) -> bytes:
        """The message of an entry, wherever it is."""


class Receiver(Holder, Protocol):
    """A consumer that is given messages."""

    @property
    def room(self) -> int:
        """How many messages it takes now."""

    def deliver(self, lease: Lease, message: bytes, published: int) -> None:
        """Gives it one."""

    def flush(self) -> None:
        """Says that this was all for now."""


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
    """

    def __init__(
        self,
        queue: Queue,
        *,
        redis: Reads,
        functions: Functions,
        clock: Clock,
        payloads: Loads,
        instance: str,
        fresh: Callable[[], bool],
    ) -> None:
        self.queue = queue
        self.receivers: list[Receiver] = []
        self._redis = redis
        self._functions = functions
        self._clock = clock
        self._payloads = payloads
        self._instance = instance
        self._fresh = fresh
        self.leases = Leases(queue.policy.visibility_timeout.total_seconds(), self._expired)
        self._acks: dict[str, Settler[Ack]] = {}
        self._retries: Settler[Retry] = Settler(self._send_retries)
        self._deaths: Settler[Death] = Settler(self._send_deaths)
        self._settling: set[bytes] = set()
        self._shares = Shares()
        self._ready = ALL
        self._turn = 0
        self._reading: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.Context()

    # -- reading

    def join(self, receiver: Receiver) -> None:
        """Begins to deliver to a consumer."""
        self.receivers.append(receiver)

    def leave(self, receiver: Receiver) -> None:
        """Stops it; its leases stay until they are settled, resumed or run out."""
        self.receivers.remove(receiver)
        for lease in self.leases.of(receiver):
            lease.holder = None

    def wake(self, ready: int = 0) -> None:
        """Reads, if there may be messages (`ready`: bits of the priorities that have new ones) and room for them."""
        self._ready |= ready
        if self._reading is None and self._ready and self.receivers and not self.queue.paused:
            self._reading = self._loop.create_task(self._read(), context=self._context)

    async def _read(self) -> None:
        try:
            async with self._lock:
                while self._ready and not self.queue.paused and (credit := self._room()):
                    await self._read_some(min(credit, _MOST_READ))
        except rpc.Unavailable:
            pass  # the reset that follows the new connection wakes it, and finds what was read in vain
        except ReplyError as failed:
            await self._repair(failed)
        finally:
            self._reading = None

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
                await self._take(priority, rows)
        if failed is not None:
            raise failed

    async def _take(self, priority: int, rows: Sequence[Any]) -> None:
        if not self._fresh():
            # Others may have taken them over by now; `recover` looks after those that nobody did.
            log.warning(
                "messages were read too late to be delivered", extra={"queue": self.queue.name}
            )
            return
        now = self._clock.now_ms()
        ready: list[tuple[Lease, bytes, int]] = []
        expired: list[Lease] = []
        prefix = b"%d:" % priority
        for entry_id, fields in rows:
            stored = fields[1]
            entry = Entry.unpack(stored)
            lease = Lease(
                prefix + entry_id, None, 0.0, entry.attempt, entry.key, entry.identity, len(stored)
            )
            if entry.expires and entry.expires <= now:
                expired.append(lease)
            elif entry.flags & PAYLOAD_ELSEWHERE:
                await self._load(lease, entry)
            else:
                ready.append((lease, entry.message, entry.published))
        for lease in expired:
            self.kill(lease, "EXPIRED", "it expired before it was delivered")
        self._deal(ready)

    async def _load(self, lease: Lease, entry: Entry) -> None:
        try:
            message = await self._payloads.load(entry)
        except rpc.DataLoss as failed:
            self.kill(lease, failed.reason, failed.message)
        except rpc.Error:
            self.retry(lease, attempt=lease.attempt, due=self._clock.now_ms() + _LATER)
        else:
            self._deal([(lease, message, entry.published)])

    def _deal(self, messages: list[tuple[Lease, bytes, int]]) -> None:
        """Gives messages to the consumers that have room, in turn."""
        self.leases.grant(lease for lease, _, _ in messages)
        index = 0
        takers = [receiver for receiver in self.receivers if receiver.room]
        self._turn += 1
        for position in range(len(takers)):
            receiver = takers[(self._turn + position) % len(takers)]
            fair = -(-(len(messages) - index) // (len(takers) - position))
            share = min(receiver.room, fair)
            for lease, message, published in messages[index : index + share]:
                lease.holder = receiver
                receiver.deliver(lease, message, published)
            index += share
            receiver.flush()
        rest = messages[index:]
        for receiver in takers:
            while rest and receiver.room:
                lease, message, published = rest.pop(0)
                lease.holder = receiver
                receiver.deliver(lease, message, published)
            receiver.flush()
        for lease, _, _ in rest:  # those they were read for have gone
            self.leases.end(lease.lease_id)
            self.retry(lease, attempt=lease.attempt)

    def _room(self) -> int:
        return sum(receiver.room for receiver in self.receivers)

    async def _repair(self, failed: ReplyError) -> None:
        if failed.code != "NOGROUP":
            log.error(
                "a queue cannot be read", extra={"queue": self.queue.name, "why": str(failed)}
            )
            return
        log.error(
            "the streams of a queue are gone; they are made anew", extra={"queue": self.queue.name}
        )
        try:
            await self._functions.declare(self.queue)
        except rpc.Unavailable:
            return
        self._loop.call_soon(self.wake, ALL)

    # -- settling

    def now_ms(self) -> int:
        """By the broker's clock."""
        return self._clock.now_ms()

    def ack(
        self, lease: Lease, done: Callable[[], None], *, consumer: str, reply: bytes = b""
    ) -> None:
        """Handled. The lease has been taken off."""
        settler = self._acks.get(consumer)
        if settler is None:
            settler = self._acks[consumer] = Settler(self._acking(consumer))
        item = Ack(
            lease_id=lease.lease_id,
            size=lease.size,
            key=lease.key,
            identity=lease.identity if reply else b"",
            reply=reply,
        )
        settler.put(item, self._settled(lease, done))

    def retry(
        self,
        lease: Lease,
        done: Callable[[], None] = lambda: None,
        *,
        attempt: int,
        due: int = 0,
    ) -> None:
        """Back into the queue."""
        item = Retry(lease_id=lease.lease_id, attempt=attempt, due=due)
        self._retries.put(item, self._settled(lease, done))

    def failed(
        self,
        lease: Lease,
        done: Callable[[], None] = lambda: None,
        *,
        reason: str,
        error: str,
        delay_ms: int | None = None,
    ) -> None:
        """An attempt failed: another one after a pause, or the dead letters."""
        policy = self.queue.policy
        if lease.attempt >= policy.max_attempts:
            self.kill(lease, reason, error, done)
            return
        if delay_ms is None:
            delay_ms = int(self._pause(lease.attempt) * 1000)
        due = self._clock.now_ms() + delay_ms if delay_ms else 0
        self.retry(lease, done, attempt=lease.attempt + 1, due=due)

    def kill(
        self,
        lease: Lease,
        reason: str,
        error: str,
        done: Callable[[], None] = lambda: None,
        *,
        reply: bytes = b"",
    ) -> None:
        """To the dead letters."""
        item = Death(
            lease_id=lease.lease_id,
            reason=reason,
            error=error[:_MOST_ERROR],
            identity=lease.identity if reply else b"",
            reply=reply,
        )
        self._deaths.put(item, self._settled(lease, done))

    def _pause(self, attempt: int) -> float:
        """Seconds until the next attempt: exponential, with full jitter.

        https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        policy = self.queue.policy
        longest = policy.max_backoff.total_seconds()
        most = min(longest, policy.backoff.total_seconds() * 2 ** min(attempt - 1, 40))
        return random.uniform(0, most)  # noqa: S311 jitter

    def _settled(self, lease: Lease, done: Callable[[], None]) -> Callable[[], None]:
        self._settling.add(lease.lease_id)

        def safe() -> None:
            self._settling.discard(lease.lease_id)
            done()

        return safe

    def _acking(self, consumer: str) -> Callable[[list[Ack]], Awaitable[object]]:
        async def send(acks: list[Ack]) -> None:
            settled = await self._functions.ack(
                self.queue, acks, now=self._clock.now_ms(), consumer=consumer
            )
            if settled.done < len(acks):
                log.warning(
                    "acknowledgements came too late, or twice",
                    extra={"queue": self.queue.name, "late": len(acks) - settled.done},
                )

        return send

    async def _send_retries(self, retries: list[Retry]) -> None:
        await self._functions.retry(self.queue, retries, now=self._clock.now_ms())

    async def _send_deaths(self, deaths: list[Death]) -> None:
        await self._functions.kill(self.queue, deaths, now=self._clock.now_ms())

    def _expired(self, leases: list[Lease]) -> None:
        log.warning("leases ran out", extra={"queue": self.queue.name, "count": len(leases)})
        for lease in leases:
            error = f"{lease.holder.consumer if lease.holder else 'its consumer'} did not settle it in time"
            # The consumer has had the whole visibility timeout: the next one need not wait longer.
            self.failed(lease, reason="LEASE_EXPIRED", error=error, delay_ms=0)

    # -- keeping true

    async def resume(self, lease_ids: Sequence[bytes], receiver: Receiver) -> list[bytes]:
        """Gives leases of a broken stream to a new one; returns those that are lost.

        Raises:
            rpc.Unavailable: Redis is away.
        """
        elsewhere = []
        for lease_id in lease_ids:
            lease = self.leases.get(lease_id)
            if lease is None:
                elsewhere.append(lease_id)
            else:
                lease.holder = receiver
                self.leases.extend(lease)
        lost = [one for one in elsewhere if one in self._settling or not _valid(one)]
        asked = [one for one in elsewhere if one not in lost]
        found = await self._functions.claim(self.queue, asked)
        for lease_id, stored in zip(asked, found, strict=True):
            if stored is None:
                lost.append(lease_id)
                continue
            entry = Entry.unpack(stored)
            self.leases.grant(
                [
                    Lease(
                        lease_id,
                        receiver,
                        0.0,
                        entry.attempt,
                        entry.key,
                        entry.identity,
                        len(stored),
                    )
                ]
            )
        return lost

    async def recover(self) -> None:
        """After a connection was lost: puts back what was read and never arrived, forgets what Redis forgot.

        Raises:
            rpc.Unavailable: Redis is away again.
        """
        async with self._lock:
            for priority in layout.PRIORITIES:
                await self._recover(priority)
        self.wake(ALL)

    async def _recover(self, priority: int) -> None:
        prefix = b"%d:" % priority
        known = {lease.lease_id for lease in self.leases.all() if lease.lease_id.startswith(prefix)}
        pending: set[bytes] = set()
        begin = "-"
        while True:
            rows = await self._redis.send(
                self.queue.shard,
                *("XPENDING", f"{self.queue.key}:{priority}", GROUP),
                *(begin, "+", _RECOVERED, self._instance),
            )
            pending.update(prefix + row[0] for row in rows)
            if len(rows) < _RECOVERED:
                break
            begin = "(" + rows[-1][0].decode()
        for lease_id in pending - known - self._settling:
            self._release(lease_id)
        for lease_id in known - pending:
            if lease_id in self.leases:
                self.leases.end(lease_id)
                log.error(
                    "Redis has forgotten a message that was in hand",
                    extra={"queue": self.queue.name, "lease_id": lease_id.decode()},
                )

    def _release(self, lease_id: bytes) -> None:
        self._settling.add(lease_id)
        self._loop.create_task(self._read_again(lease_id), context=self._context)

    async def _read_again(self, lease_id: bytes) -> None:
        """Puts a message back that was read but not delivered; it was no attempt."""
        try:
            [stored] = await self._functions.claim(self.queue, [lease_id])
        except rpc.Unavailable:
            stored = None
        finally:
            self._settling.discard(lease_id)
        if stored is not None:
            entry = Entry.unpack(stored)
            lease = Lease(lease_id, None, 0.0, entry.attempt, b"", b"", HEAD_BYTES)
            self.retry(lease, attempt=entry.attempt)

    @property
    def busy(self) -> bool:
        """Whether it has consumers, messages in hand or settlements under way."""
        return bool(
            self.receivers
            or len(self.leases)
            or self._settling
            or any(settler.busy for settler in self._settlers())
        )

    def _settlers(self) -> list[Settler[Any]]:
        return [*self._acks.values(), self._retries, self._deaths]

    async def close(self) -> None:
        """Puts back what is in hand, and returns when all is settled. Cancel it to give that up."""
        for lease in self.leases.all():
            self.leases.end(lease.lease_id)
            self.retry(lease, attempt=lease.attempt)
        for settler in self._settlers():
            await settler.settle()
        self.leases.close()

    def cancel(self) -> None:
        """Ends at once, with whatever is under way."""
        if self._reading is not None:
            self._reading.cancel()
        for settler in self._settlers():
            settler.cancel()
        self.leases.close()


def _valid(lease_id: bytes) -> bool:
    priority, colon, entry_id = lease_id.partition(b":")
    numbers = entry_id.split(b"-")
    return (
        priority in {b"1", b"2", b"3"}
        and bool(colon)
        and len(numbers) == 2  # noqa: PLR2004 milliseconds and sequence
        and all(number.isdigit() for number in numbers)
    )
