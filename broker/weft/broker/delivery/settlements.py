"""What becomes of the messages of a queue that were in hand: handled, tried again, or dead."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from weft import rpc
from weft.broker.clock import Clock
from weft.broker.delivery.leases import Lease, Leases
from weft.broker.delivery.settling import Settler, Slip, Told
from weft.broker.errors import LeaseExpired
from weft.broker.functions import Ack, Death, Functions, Retry
from weft.broker.queues import Queue
from weft.v1.message_pb2 import Reply

log = logging.getLogger("weft.broker")

_MOST_ERROR = 2_000


class Settlements:
    """The settlements of a queue.

    Whoever settles has taken the lease off the table before. `told` is told when it is safe, by the number that it gave.

    Args:
        queue: whose messages they are.
        functions: settle.
        clock: the broker's.
    """

    def __init__(self, queue: Queue, *, functions: Functions, clock: Clock) -> None:
        self.leases = Leases(queue.policy.visibility_timeout.total_seconds(), self._expired)
        self.under_way: set[bytes] = set()
        self._queue = queue
        self._functions = functions
        self._clock = clock
        self._acks: dict[str, Settler[Ack]] = {}
        self._retries: Settler[Retry] = Settler(self._send_retries, self._done)
        self._deaths: Settler[Death] = Settler(self._send_deaths, self._done)

    def ack(
        self, leases: Sequence[Lease], told: Told | None = None, first: int = 0, *, consumer: str
    ) -> None:
        """Handled; the settlements are numbered from `first` on."""
        acks = [Ack(one.lease_id, one.size, one.key) for one in leases]
        self._ack(acks, Slip(leases, told, first), consumer)

    def complete(
        self,
        lease: Lease,
        reply: bytes,
        told: Told | None = None,
        number: int = 0,
        *,
        consumer: str,
    ) -> None:
        """Handled, with an answer."""
        ack = Ack(
            lease_id=lease.lease_id,
            size=lease.size,
            key=lease.key,
            identity=lease.identity,
            reply=reply,
        )
        self._ack([ack], Slip((lease,), told, number), consumer)

    def _ack(self, acks: Sequence[Ack], slip: Slip, consumer: str) -> None:
        settler = self._acks.get(consumer)
        if settler is None:
            settler = self._acks[consumer] = Settler(self._acking(consumer), self._done)
        self.under_way.update(ack.lease_id for ack in acks)
        settler.put(acks, slip)

    def retry(
        self,
        lease: Lease,
        told: Told | None = None,
        number: int = 0,
        *,
        attempt: int,
        delay_ms: int = 0,
    ) -> None:
        """Back into the queue."""
        due = self._clock.now_ms() + delay_ms if delay_ms else 0
        self.under_way.add(lease.lease_id)
        item = Retry(lease_id=lease.lease_id, attempt=attempt, due=due)
        self._retries.put((item,), Slip((lease,), told, number))

    def unused(
        self, lease: Lease, told: Told | None = None, number: int = 0, *, delay_ms: int = 0
    ) -> None:
        """Back into the queue; it was no attempt."""
        self.retry(lease, told, number, attempt=lease.attempt, delay_ms=delay_ms)

    def failed(
        self,
        lease: Lease,
        told: Told | None = None,
        number: int = 0,
        *,
        reason: str,
        error: str,
        delay_ms: int | None = None,
    ) -> None:
        """An attempt failed: another one after a pause (None: the policy's), or the dead letters."""
        if lease.attempt >= self._queue.policy.max_attempts:
            self.kill(lease, told, number, reason=reason, error=error)
            return
        if delay_ms is None:
            delay_ms = self._pause_ms(lease.attempt)
        self.retry(lease, told, number, attempt=lease.attempt + 1, delay_ms=delay_ms)

    def kill(
        self,
        lease: Lease,
        told: Told | None = None,
        number: int = 0,
        *,
        reason: str,
        error: str,
        reply: bytes = b"",
    ) -> None:
        """To the dead letters. Whoever awaits an answer gets `reply`, or that there will be none."""
        self.under_way.add(lease.lease_id)
        if not reply:
            lost = rpc.Aborted(f"The message was given up: {reason}.", reason="DEAD_LETTER")
            reply = Reply(error=rpc.status_proto(lost)).SerializeToString()
        item = Death(
            lease_id=lease.lease_id,
            reason=reason,
            error=error[:_MOST_ERROR],
            identity=lease.identity,
            reply=reply,
        )
        self._deaths.put((item,), Slip((lease,), told, number))

    def forget(self, consumers: Collection[str]) -> None:
        """Keeps nothing of consumers other than these."""
        self._acks = {
            name: settler
            for name, settler in self._acks.items()
            if settler.busy or name in consumers
        }

    async def settle(self) -> None:
        """Returns when all is safe."""
        for settler in self._settlers():
            await settler.settle()

    def cancel(self) -> None:
        """Ends at once, with whatever is under way."""
        for settler in self._settlers():
            settler.cancel()
        self.leases.close()

    def _settlers(self) -> list[Settler[Any]]:
        return [*self._acks.values(), self._retries, self._deaths]

    def _pause_ms(self, attempt: int) -> int:
        """How long until the next attempt: exponential, with full jitter.

        https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        policy = self._queue.policy
        longest = policy.max_backoff.total_seconds()
        most = min(longest, policy.backoff.total_seconds() * 2 ** min(attempt - 1, 40))
        return int(random.uniform(0, most) * 1000)  # noqa: S311 jitter

    def _done(self, slip: Slip, failed: Exception | None) -> None:
        leases, told, first = slip
        self.under_way.difference_update([lease.lease_id for lease in leases])
        if failed is not None and not isinstance(failed, LeaseExpired):
            # Nobody has them, and they are in our pending list: when these leases run out they are tried again.
            for lease in leases:
                lease.holder = None
            self.leases.grant(leases)
        if told is not None:
            told.settled(first, leases, failed)

    def _acking(self, consumer: str) -> Callable[[list[Ack]], Awaitable[Sequence[bytes]]]:
        async def send(acks: list[Ack]) -> Sequence[bytes]:
            settled = await self._functions.ack(
                self._queue, acks, now=self._clock.now_ms(), consumer=consumer
            )
            if settled.late:
                log.warning(
                    "acknowledgements came too late, or twice",
                    extra={"queue": self._queue.name, "late": len(settled.late)},
                )
            return settled.late

        return send

    async def _send_retries(self, retries: list[Retry]) -> Sequence[bytes]:
        await self._functions.retry(self._queue, retries, now=self._clock.now_ms())
        return ()

    async def _send_deaths(self, deaths: list[Death]) -> Sequence[bytes]:
        await self._functions.kill(self._queue, deaths, now=self._clock.now_ms())
        return ()

    def _expired(self, leases: list[Lease]) -> None:
        log.warning("leases ran out", extra={"queue": self._queue.name, "count": len(leases)})
        for lease in leases:
            if not lease.sent:
                self.unused(lease)
                continue
            who = lease.holder.consumer if lease.holder else "its consumer"
            # It has had the whole visibility timeout: the next one need not wait longer.
            self.failed(
                lease,
                reason="LEASE_EXPIRED",
                error=f"{who} did not settle it in time",
                delay_ms=0,
            )
