"""One Consume stream: credit, deliveries, settlements."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from weft import rpc
from weft.broker.delivery.leases import Lease
from weft.broker.delivery.post import Message, Post
from weft.broker.errors import LeaseExpired, LeaseUnknown
from weft.rpc import status_proto
from weft.v1 import broker_pb2 as pb
from weft.wire.v1.frames_pb2 import Deliveries

MOST_CREDIT = 100_000
_MOST_BUFFERED = 4 * 1024 * 1024  # bytes that wait for a consumer that does not take them
_MOST_FRAME = 1024 * 1024  # bytes of messages, unless a single one is larger
_MOST_DELAY_MS = 7 * 24 * 3600 * 1000
_MOST_REASON = 64
_MOST_NAMED = 100  # characters of a lease id that is none


class SettlementRejected(rpc.Internal):
    """Redis rejected the settlement; the message will be delivered again."""

    reason = "SETTLEMENT_REJECTED"


class Session:
    """A consumer.

    Args:
        post: the queue it consumes.
        consumer: its name, for people.
        session: what its streams have in common; empty: nothing.
        write: sends it a serialized frame; returns when the transport has taken it.
        fresh: whether what waits to be sent may still be delivered.
    """

    def __init__(
        self,
        post: Post,
        consumer: str,
        session: str,
        write: Callable[[bytes], Awaitable[None]],
        fresh: Callable[[], bool],
    ) -> None:
        self.consumer = consumer
        self.session = session
        self.credit = 0
        self._post = post
        self._settlements = post.settlements
        self._leases = post.settlements.leases
        self._write = write
        self._fresh = fresh
        self._outbox: list[Message] = []
        self._buffered = 0
        self._failures: list[bytes] = []
        self._begun = 0  # settlements, in the order they came
        self._settled = 0
        self._safe: dict[int, int] = {}  # beyond `_settled`: the first of a run -> how many
        self._draining = False
        self._said = 0
        self._news = asyncio.Event()
        self._written = asyncio.Event()

    # -- what it is given

    @property
    def room(self) -> int:
        """How many messages it takes now."""
        return 0 if self._draining or self._buffered > _MOST_BUFFERED else self.credit

    def deliver(self, messages: Sequence[Message]) -> None:
        """Gives it some."""
        self.credit -= len(messages)
        self._buffered += sum([len(message) for _, message, _ in messages])
        self._outbox += messages
        self._news.set()

    def drain(self) -> None:
        """Tells it to settle what it has and to connect elsewhere."""
        self._draining = True
        self._news.set()

    async def write(self) -> None:
        """Sends what there is, all of it per frame, until cancelled."""
        said_draining = False
        while True:
            await self._news.wait()
            self._news.clear()
            while True:
                frame = Deliveries(settled=self._settled, failures=self._failures)
                self._failures.clear()
                if self._draining and not said_draining:
                    frame.draining = said_draining = True
                size = self._fill(frame)
                await self._write(frame.SerializeToString())
                self._buffered -= size
                self._said = frame.settled
                self._written.set()
                if not self._outbox:
                    break
            if self.credit:
                self._post.wake()

    def _fill(self, frame: Deliveries) -> int:
        """Moves messages from the outbox into a frame; their bytes."""
        if not self._outbox:
            return 0
        if not self._fresh():
            # This process stood still: others may deliver these by now.
            self.abandon()
            return 0
        add = frame.deliveries.add
        size = count = 0
        for lease, message, published in self._outbox:
            length = len(message)
            if count and size + length > _MOST_FRAME:
                break
            count += 1
            if not lease.deadline:  # it ran out while it waited here
                self._buffered -= length
                self.credit += 1
                continue
            lease.sent = True
            size += length
            add(
                lease_id=lease.lease_id,
                message=message,
                attempt=lease.attempt,
                publish_time_ms=published,
            )
        del self._outbox[:count]
        return size

    # -- what it says

    def take(self, request: pb.ConsumeRequest) -> None:
        """Takes a frame of the consumer.

        Raises:
            InvalidArgument: it is no frame that may come now, or a field is out of range.
        """
        self._leases.catch_up()
        if request.HasField("open"):
            raise rpc.InvalidArgument("only the first frame opens", field="open")
        if request.credit:
            self.add_credit(request.credit)
        self._settle(request)
        if request.leave:
            self._draining = True
            self._release()
        self._post.wake()

    def _settle(self, request: pb.ConsumeRequest) -> None:
        if request.ack:
            self._ack(request.ack)
        for completion in request.complete:
            if (lease := self._end(completion.lease_id)) is not None:
                reply = completion.reply.SerializeToString()
                self._settlements.complete(
                    lease, reply, self, self._number(), consumer=self.consumer
                )
        for nack in request.nack:
            self._nack(nack)
        for reject in request.reject:
            self._reject(reject)
        for lease_id in request.extensions:
            if (lease := self._held(lease_id)) is not None:
                self._leases.extend(lease)
                self._count(self._number())

    def _ack(self, lease_ids: Sequence[str]) -> None:
        get, end = self._leases.get, self._leases.end
        run: list[Lease] = []
        for lease_id in lease_ids:
            lease = get(lease_id.encode())
            if lease is not None and lease.holder is self:
                end(lease.lease_id)
                run.append(lease)
            else:
                self._ack_run(run)
                run = []
                self._refuse(lease_id)
        self._ack_run(run)

    def _ack_run(self, run: Sequence[Lease]) -> None:
        if run:
            self._settlements.ack(run, self, self._begun, consumer=self.consumer)
            self._begun += len(run)

    def add_credit(self, credit: int) -> None:
        """Takes more deliveries.

        Raises:
            InvalidArgument: it would be too many.
        """
        if self.credit + credit > MOST_CREDIT:
            raise rpc.InvalidArgument(
                f"the sum of open credit may be {MOST_CREDIT:,} at most", field="credit"
            )
        self.credit += credit

    def _nack(self, nack: pb.Nack) -> None:
        delay = None
        if nack.HasField("delay"):
            delay = nack.delay.seconds * 1000 + nack.delay.nanos // 1_000_000
            if not 0 <= delay <= _MOST_DELAY_MS:
                raise rpc.InvalidArgument("must be from 0 to 7 days", field="nack.delay")
        if (lease := self._end(nack.lease_id)) is None:
            return
        if nack.unused:
            self._settlements.unused(lease, self, self._number(), delay_ms=delay or 0)
        else:
            self._settlements.failed(
                lease,
                self,
                self._number(),
                reason="MAX_ATTEMPTS",
                error=nack.error or "its consumer gave no reason",
                delay_ms=delay,
            )

    def _reject(self, reject: pb.Reject) -> None:
        if not 1 <= len(reject.reason) <= _MOST_REASON:
            raise rpc.InvalidArgument(
                f"must be 1 to {_MOST_REASON} characters", field="reject.reason"
            )
        if (lease := self._end(reject.lease_id)) is not None:
            reply = reject.reply.SerializeToString() if reject.HasField("reply") else b""
            self._settlements.kill(
                lease,
                self,
                self._number(),
                reason=reject.reason,
                error=reject.error,
                reply=reply,
            )

    def _held(self, lease_id: str) -> Lease | None:
        """A lease of this stream; otherwise the settlement has failed."""
        lease = self._leases.get(lease_id.encode())
        if lease is not None and lease.holder is self:
            return lease
        self._refuse(lease_id)
        return None

    def _refuse(self, lease_id: str) -> None:
        metadata = {"lease_id": lease_id[:_MOST_NAMED]}
        ran_out = self._leases.ran_out(lease_id.encode())
        self._fail(
            lease_id,
            LeaseExpired(metadata=metadata) if ran_out else LeaseUnknown(metadata=metadata),
        )
        self._count(self._number())

    def _end(self, lease_id: str) -> Lease | None:
        lease = self._held(lease_id)
        return None if lease is None else self._leases.end(lease.lease_id)

    def _fail(self, lease_id: str, error: rpc.Error) -> None:
        failure = pb.SettleFailure(lease_id=lease_id[:_MOST_NAMED], status=status_proto(error))
        self._failures.append(failure.SerializeToString())

    def _number(self) -> int:
        """The number of the next settlement."""
        self._begun += 1
        return self._begun - 1

    def settled(self, first: int, leases: Sequence[Lease], failed: Exception | None) -> None:
        """Settlements of this stream are safe, or have failed for good."""
        if failed is not None:
            for lease in leases:
                error = failed if isinstance(failed, LeaseExpired) else SettlementRejected()
                self._fail(lease.lease_id.decode(), error)
        self._count(first, len(leases))

    def _count(self, first: int, count: int = 1) -> None:
        self._safe[first] = count
        while (more := self._safe.pop(self._settled, 0)) > 0:
            self._settled += more
        self._news.set()

    # -- its end

    async def finished(self) -> None:
        """Returns when every settlement is safe and said so; for the end of a stream."""
        while self._settled < self._begun or self._said < self._settled:
            self._written.clear()
            await self._written.wait()

    def abandon(self) -> None:
        """Puts back what it was given and never sent; that was no attempt."""
        for lease, message, _ in self._outbox:
            self._buffered -= len(message)
            self.credit += 1
            if self._leases.end(lease.lease_id) is not None:
                self._settlements.unused(lease)
        self._outbox.clear()

    def _release(self) -> None:
        """Puts back what was given to it and is not settled."""
        for lease in self._leases.of(self):
            self._leases.end(lease.lease_id)
            self._settlements.unused(lease)
