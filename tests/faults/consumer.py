"""A consumer of all queues that acknowledges, fails, refuses, extends, forgets, and takes up again what it had in hand."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.rpc import status_pb2
from tests.faults import workload
from tests.faults.connecting import PATIENCE, Addresses, cancelled, channel, worth_again
from tests.faults.history import Writer
from tests.faults.producer import outcome_of

from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2

_VISIBILITY = workload.VISIBILITY.total_seconds()
_CREDIT = 100
_HOLDERS = 20  # messages a queue's consumer works on for a while, at most


@dataclass(frozen=True, slots=True)
class Settings:
    """What a consumer is told. Shares of the deliveries it does not simply acknowledge are in percent."""

    name: str
    folder: str
    addresses: list[str]
    queues: list[str]
    seed: int = 0
    nack: float = 3.0
    forget: float = 0.3
    hold: float = 5.0


@dataclass(slots=True)
class Held:
    """A delivery in hand. `settlement`: how it ends, once that is decided."""

    lease: str
    id: str
    attempt: int
    key: str
    settlement: tuple[str, Any] | None = None


@dataclass(slots=True)
class Frame:
    """What the next frame will say, and what is noted once it is settled, in the order of the protocol."""

    credit: int = 0
    ack: list[Held] = field(default_factory=list)
    complete: list[Held] = field(default_factory=list)
    nack: list[Held] = field(default_factory=list)
    reject: list[Held] = field(default_factory=list)
    extend: list[Held] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.credit or self.ack or self.complete or self.nack or self.reject or self.extend
        )

    def add(self, held: Held) -> None:
        assert held.settlement is not None
        getattr(self, held.settlement[0]).append(held)

    def settlements(self) -> list[tuple[str, Held]]:
        kinds = ("ack", "complete", "nack", "reject", "extend")
        return [(kind, held) for kind in kinds for held in getattr(self, kind)]

    def request(self) -> broker_pb2.ConsumeRequest:
        return broker_pb2.ConsumeRequest(
            credit=self.credit,
            ack=[held.lease for held in self.ack],
            complete=[
                broker_pb2.Completion(lease_id=held.lease, reply=_content(held))
                for held in self.complete
            ],
            nack=[_content(held) for held in self.nack],
            reject=[_content(held) for held in self.reject],
            extensions=[held.lease for held in self.extend],
        )


def _content(held: Held) -> Any:
    assert held.settlement is not None
    return held.settlement[1]


class QueueConsumer:
    """Consumes one queue over one stream after the other."""

    def __init__(
        self, queue: str, settings: Settings, addresses: Addresses, history: Writer, number: int
    ) -> None:
        self.queue = queue
        self._settings = settings
        self._addresses = addresses
        self._history = history
        self._choice = random.Random(f"{settings.seed}-{settings.name}-{queue}-{number}")
        self._replies = (f"{settings.name}.{number}-{count}" for count in itertools.count())
        self._held: dict[str, Held] = {}
        self._holding: set[asyncio.Task[None]] = set()
        self.ending = False
        # Of the present stream:
        self._frame = Frame()
        self._unsettled: deque[tuple[str, Held, int]] = deque()
        self._settled = 0
        self._failed: dict[str, status_pb2.Status] = {}  # may come before all up to it are settled
        self._something = asyncio.Event()
        self._draining = False
        self._opened = False

    async def run(self) -> None:
        """Until it is ending and nothing is in hand."""
        try:
            while not self._finished():
                async with channel(self._addresses.next()) as found:
                    await self._converse(broker_pb2_grpc.BrokerServiceStub(found))
                await asyncio.sleep(self._choice.uniform(0, 0.1))
        finally:
            await cancelled(*self._holding)

    def end(self) -> None:
        self.ending = True
        self._something.set()

    def _finished(self) -> bool:
        return self.ending and not self._held

    async def _converse(self, stub: Any) -> None:
        self._frame, self._unsettled, self._settled, self._failed = Frame(), deque(), 0, {}
        self._draining = self._opened = False
        call = stub.Consume()
        resumed = time.monotonic_ns()
        sending = asyncio.create_task(self._send_on(call))
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                self._on_response(response, resumed)
        except grpc.aio.AioRpcError as error:
            if not worth_again(error):
                raise
        except asyncio.CancelledError:
            if (this := asyncio.current_task()) is not None and this.cancelling():
                raise
        finally:
            await cancelled(sending)
            call.cancel()
            if self._choice.random() < 0.2:  # some do not take up what they had in hand
                self._held.clear()

    async def _send_on(self, call: Any) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                opening = broker_pb2.ConsumeOpen(
                    queue=self.queue, consumer=self._settings.name, resume=list(self._held)
                )
                await call.write(broker_pb2.ConsumeRequest(open=opening))
                while not self._opened:
                    await self._signal()
            self._frame.credit += 0 if self.ending else _CREDIT
            while not (self._finished() or self._hangs() or self._has_left()):
                if self._frame:
                    await self._send(call)
                else:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.5):
                            await self._signal()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
            pass
        call.cancel()

    async def _signal(self) -> None:
        await self._something.wait()
        self._something.clear()

    async def _send(self, call: Any) -> None:
        frame, self._frame = self._frame, Frame()
        now = time.monotonic_ns()
        for kind, held in frame.settlements():
            self._unsettled.append((kind, held, now))
            if kind == "extend":
                self._note("extend", held)
        self._history.write()
        async with asyncio.timeout(PATIENCE):
            await call.write(frame.request())

    def _hangs(self) -> bool:
        waits = time.monotonic_ns() - self._unsettled[0][2] if self._unsettled else 0
        return waits > PATIENCE * 1e9

    def _has_left(self) -> bool:
        return self._draining and not self._unsettled

    def _note(self, kind: str, held: Held, note: str = "") -> None:
        self._history.note(kind, self.queue, held.id, "", held.attempt, held.lease, note)

    def _on_response(self, response: broker_pb2.ConsumeResponse, resumed: int) -> None:
        if response.HasField("opened"):
            self._on_opened(response.opened, resumed)
        self._failed.update((failure.lease_id, failure.status) for failure in response.failures)
        while self._settled < response.settled:
            self._settled += 1
            kind, held, sent = self._unsettled.popleft()
            self._on_settled(kind, held, sent, self._failed.get(held.lease))
        for delivery in response.deliveries:
            self._on_delivery(delivery)
        self._draining |= response.draining
        self._history.write()
        self._something.set()

    def _on_opened(self, opened: broker_pb2.ConsumeOpened, resumed: int) -> None:
        for lease in opened.lost:
            self._note("lost", self._held.pop(lease), "not resumed")
        for held in self._held.values():
            self._note("extended", held, str(resumed))
            if held.settlement is not None:
                self._frame.add(held)
        self._opened = True

    def _on_settled(
        self, kind: str, held: Held, sent: int, failure: status_pb2.Status | None
    ) -> None:
        if failure is not None:
            self._held.pop(held.lease, None)
            self._note("lost", held, failure.message)
        elif kind == "extend":
            self._note("extended", held, str(sent))
        else:
            self._held.pop(held.lease, None)
            if kind in {"ack", "complete"}:
                self._note("acked", held)

    def _on_delivery(self, delivery: message_pb2.MessageDelivery) -> None:
        message = delivery.message
        held = Held(delivery.lease_id, message.id, delivery.attempt, message.key)
        self._history.note("begin", self.queue, held.id, held.key, held.attempt, held.lease)
        if not workload.is_whole(message):
            self._note("corrupt", held)
        self._held[held.lease] = held
        draw = self._choice.uniform(0, 100)
        if self.queue == "slow" and not self.ending:
            self._begin(self._work_long(held))
        elif (draw := draw - self._settings.forget) < 0:
            del self._held[held.lease]
            self._frame.credit += 1
        elif (draw := draw - self._settings.hold) < 0 and len(self._holding) < _HOLDERS:
            self._begin(self._work(held))
        else:
            self._finish(held)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._holding.add(task)
        task.add_done_callback(self._holding.discard)

    async def _work(self, held: Held) -> None:
        await asyncio.sleep(self._choice.uniform(0, 0.05))
        self._finish_late(held)

    async def _work_long(self, held: Held) -> None:
        """Longer than the visibility timeout, with extensions."""
        until = time.monotonic() + self._choice.uniform(0.5, 2.5) * _VISIBILITY
        while time.monotonic() < until and not self.ending:
            await asyncio.sleep(_VISIBILITY / 4)
            if self._held.get(held.lease) is not held:
                return
            if self._opened:
                self._frame.extend.append(held)
                self._something.set()
        self._finish_late(held)

    def _finish_late(self, held: Held) -> None:
        if self._held.get(held.lease) is held:
            self._finish(held)
            self._history.write()
            self._something.set()

    def _finish(self, held: Held) -> None:
        held.settlement = self._settlement(held)
        if held in self._frame.extend:  # it would fail behind its settlement
            self._frame.extend.remove(held)
        self._frame.add(held)
        self._frame.credit += not self.ending

    def _settlement(self, held: Held) -> tuple[str, Any]:
        """Decides, and notes it before it is sent."""
        mortal, draw = self.queue == "mortal", self._choice.uniform(0, 100)
        if mortal and (draw := draw - 5) < 0:
            self._note("reject", held, "UNFIT")
            return "reject", broker_pb2.Reject(lease_id=held.lease, reason="UNFIT", error="no use")
        if (draw := draw - (40 if mortal else self._settings.nack)) < 0:
            return "nack", self._nack(held)
        if self.queue == workload.ASK:
            reply = message_pb2.Reply(payload=next(self._replies).encode())
            if draw < 5:
                reply = message_pb2.Reply(
                    error=status_pb2.Status(code=9, message=reply.payload.decode())
                )
            self._note("done", held, outcome_of(reply))
            return "complete", reply
        self._note("done", held)
        return "ack", None

    def _nack(self, held: Held) -> broker_pb2.Nack:
        nack = broker_pb2.Nack(lease_id=held.lease, error="not now")
        draw = self._choice.random()
        if draw < 0.3:
            nack.unused = True
        elif draw < 0.5:
            nack.delay.FromMilliseconds(self._choice.randint(0, 200))
        self._note("nack", held, "unused" if nack.unused else "")
        return nack


def new_history(settings: Settings) -> tuple[Writer, int]:
    """A new file, and how many there were."""
    folder = Path(settings.folder)
    number = len(list(folder.glob(f"{settings.name}.*.log")))
    return Writer(folder / f"{settings.name}.{number:03}.log"), number


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Consumes until it is asked to end."""
    history, number = new_history(settings)
    consumers = [
        QueueConsumer(
            queue, settings, Addresses(settings.addresses, place + number), history, number
        )
        for place, queue in enumerate(settings.queues)
    ]
    async with asyncio.TaskGroup() as group:
        for consumer in consumers:
            group.create_task(consumer.run())
        await stop.wait()
        for consumer in consumers:
            consumer.end()
    history.close()
