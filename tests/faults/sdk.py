"""The producer and the consumer of the suite, made with Weft's own client."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
import time
from datetime import timedelta

from google.rpc import status_pb2
from tests.faults import consumer, producer, workload
from tests.faults.connecting import cancelled
from tests.faults.history import Writer

from weft import rpc
from weft.agents.messaging import Consumer, Publisher, Receipt, Reject, Retry
from weft.v1 import message_pb2

_TICK = 0.015
_FRAME = 200
_PATIENCE = timedelta(seconds=8)
_CONCURRENCY = 50
_GRACE = timedelta(seconds=6)
_AGAIN = (rpc.Unavailable, rpc.ResourceExhausted, rpc.DeadlineExceeded, rpc.Aborted)


class SdkProducer(producer.Producer):
    """Publishes by `Publisher`, and again by itself what that gave up."""

    async def run(self) -> None:
        askers = [asyncio.create_task(self._ask_on()) for _ in range(self._settings.askers)]
        try:
            async with Publisher(
                self._settings.addresses, sender=self._settings.name, patience=_PATIENCE
            ) as publisher:
                self._queue.extend(self._open.values())
                while not self._finished():
                    self._publish(publisher)
                    await asyncio.sleep(_TICK)
                await asyncio.gather(*askers)
        finally:
            await cancelled(*askers)
            self._history.close()

    def _publish(self, publisher: Publisher) -> None:
        frame = list(itertools.islice(self._next(), _FRAME))
        for one in frame:
            self._note(one)
            self._sent[id(one)] = one
        self._history.write()
        for one in frame:
            receipt = publisher.publish_nowait(one.plan.message(self._settings.name))
            receipt.add_done_callback(functools.partial(self._on_receipt, one))

    def _on_receipt(self, one: producer.Sending, receipt: asyncio.Future[Receipt]) -> None:
        del self._sent[id(one)]
        if receipt.cancelled():
            return
        failed = receipt.exception()
        if failed is None:
            self._on_accepted(one, known=receipt.result().duplicate)
        elif isinstance(failed, _AGAIN):
            self._again(one)
        else:
            self._on_refused(one, repr(failed))
        self._history.write()


class SdkConsumer:
    """Consumes a queue by `Consumer`, with a handler."""

    def __init__(
        self, queue: str, settings: consumer.Settings, history: Writer, number: int
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._history = history
        self._choice = random.Random(f"{settings.seed}-{settings.name}-{queue}-{number}")
        self._replies = (f"{settings.name}.{number}-{count}" for count in itertools.count())
        self.consumer = Consumer(
            settings.addresses,
            queue,
            self._handle,
            concurrency=_CONCURRENCY,
            name=settings.name,
        )

    async def _handle(self, delivery: message_pb2.MessageDelivery) -> message_pb2.Reply | None:
        message, draw = delivery.message, self._choice.uniform(0, 100)
        note = functools.partial(
            self._note, message.id, message.key, delivery.attempt, delivery.lease_id
        )
        note("begin")
        if not workload.is_whole(message):
            note("corrupt")
        if self._queue == "slow":
            await asyncio.sleep(
                self._choice.uniform(0.5, 2.5) * workload.VISIBILITY.total_seconds()
            )
        elif draw < self._settings.hold:
            await asyncio.sleep(self._choice.uniform(0, 0.05))
        return self._end(note)

    def _note(
        self, name: str, key: str, attempt: int, lease: str, kind: str, text: str = ""
    ) -> None:
        self._history.note(kind, self._queue, name, key, attempt, lease, text)
        self._history.write()

    def _end(self, note: functools.partial[None]) -> message_pb2.Reply | None:
        mortal, draw = self._queue == "mortal", self._choice.uniform(0, 100)
        if mortal and (draw := draw - 5) < 0:
            note("reject", "UNFIT")
            raise Reject("UNFIT", "no use")
        if draw < (40 if mortal else self._settings.nack):
            note("nack")
            delay = timedelta(seconds=self._choice.uniform(0, 0.2))
            raise Retry("not now", delay=delay if self._choice.random() < 0.3 else None)
        if self._queue != workload.ASK:
            note("done")
            return None
        text = next(self._replies)
        reply = message_pb2.Reply(payload=text.encode())
        if self._choice.random() < 0.05:
            reply = message_pb2.Reply(error=status_pb2.Status(code=9, message=text))
        note("done", producer.outcome_of(reply))
        return reply


async def consume(settings: consumer.Settings, stop: asyncio.Event) -> None:
    """Consumes until it is asked to end."""
    history, number = consumer.new_history(settings)
    found = [SdkConsumer(queue, settings, history, number) for queue in settings.queues]
    running = [asyncio.create_task(one.consumer.run()) for one in found]
    waiting = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({waiting, *running}, return_when=asyncio.FIRST_COMPLETED)
    for task in done - {waiting}:
        task.result()  # raises what ended it
    until = time.monotonic() + _GRACE.total_seconds()
    await asyncio.gather(*(one.consumer.drain(_GRACE) for one in found))
    await asyncio.wait(running, timeout=max(0.0, until - time.monotonic()))
    await cancelled(*running)
    history.close()
