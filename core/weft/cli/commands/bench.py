"""`weft bench`: how fast this mesh is, on this machine, now."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from weft.cli import brokers, failures, output
from weft.cli.options import configured, examples, json_option
from weft.cli.spans import SPAN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weft.agents.messaging import Consumer, Publisher
    from weft.cli.brokers import Broker
    from weft.cli.progress import Counting
    from weft.config import Settings
    from weft.v1.message_pb2 import MessageDelivery

_DURABILITIES = ("default", "memory", "durable", "replicated")
_CALM = timedelta(seconds=2)  # at most, of messages at a steady rate, for latencies
_STAMP = struct.Struct(">d")
_DRAIN = 30.0  # seconds for what was accepted to be handled
_CREDIT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Rates in messages a second, times in milliseconds."""

    messages: int
    publish_per_second: float
    handle_per_second: float
    accepted_p50: float
    accepted_p99: float
    calm_per_second: float
    calm_accepted_p50: float
    calm_accepted_p99: float
    calm_handled_p50: float
    calm_handled_p99: float


@click.group(epilog=examples("weft bench broker"))
def bench() -> None:
    """Measure the mesh that runs."""


@bench.command(
    epilog=examples(
        "weft bench broker",
        "weft bench broker --duration 10s --size 4096 --in-flight 500 --json",
        "weft bench broker --durability memory",
    )
)
@click.option("--duration", type=SPAN, default="3s", show_default=True, metavar="SPAN")
@click.option("--size", type=click.IntRange(_STAMP.size), default=1_024, show_default=True)
@click.option("--in-flight", type=click.IntRange(1, 4_000), default=100, show_default=True)
@click.option(
    "--rate", type=click.IntRange(1), default=200, show_default=True, help="For latencies."
)
@click.option("--durability", type=click.Choice(_DURABILITIES), default="default")
@configured("broker")
@json_option
def broker(
    *,
    settings: Settings,
    duration: timedelta,
    size: int,
    in_flight: int,
    rate: int,
    durability: str,
    as_json: bool,
) -> None:
    """Publish and consume on a queue of its own: first as fast as it goes, then calmly for latencies.

    The queue is removed afterwards. What it measures includes this client, which is one process in Python.
    """
    from weft.cli import connect

    found = connect.run(_run(settings, duration, size, in_flight, rate, durability))
    if as_json:
        output.print_json({"size": size, "in_flight": in_flight, **asdict(found)})
    else:
        _show(found, size, in_flight)


def _show(found: _Found, size: int, in_flight: int) -> None:
    output.print_table(
        ["", ">MESSAGES/S", ">ACCEPTED p50", ">p99", ">HANDLED p50", ">p99"],
        [
            [
                f"publish, {size} B, {in_flight} in flight",
                f"{found.publish_per_second:,.0f}",
                *(_ms(found.accepted_p50), _ms(found.accepted_p99), "", ""),
            ],
            ["publish to acknowledged", f"{found.handle_per_second:,.0f}", "", "", "", ""],
            [
                "one after the other",
                f"{found.calm_per_second:,.0f}",
                *(_ms(found.calm_accepted_p50), _ms(found.calm_accepted_p99)),
                *(_ms(found.calm_handled_p50), _ms(found.calm_handled_p99)),
            ],
        ],
        "",
    )


def _ms(value: float) -> str:
    return output.milliseconds(timedelta(milliseconds=value))


async def _run(
    settings: Settings,
    duration: timedelta,
    size: int,
    in_flight: int,
    rate: int,
    durability: str,
) -> _Found:
    from weft.agents.messaging import Consumer, Publisher
    from weft.cli.progress import Counting

    queue = f"bench-{secrets.token_hex(4)}"
    async with contextlib.AsyncExitStack() as stack:
        control = await stack.enter_async_context(brokers.connected(settings.broker))
        await _make(control, queue, durability)
        stack.push_async_callback(_remove, control, queue)
        handled = _Handled()
        consumer = Consumer(
            control.addresses,
            queue,
            on_batch=handled.take,
            concurrency=_CREDIT,
            name="weft bench",
            mtls=control.mtls,
        )
        handled.consumer = consumer
        await stack.enter_async_context(consumer)
        publisher = await stack.enter_async_context(
            Publisher(control.addresses, sender=brokers.sender(), mtls=control.mtls)
        )
        counting = stack.enter_context(Counting("messages"))
        load = _Load(publisher, queue, size, handled, counting)
        began = time.perf_counter()
        fast = await load.fast(duration.total_seconds(), in_flight)
        published = time.perf_counter() - began
        await handled.all(load.count)
        whole = time.perf_counter() - began
        total = load.count
        handled.times.clear()
        began = time.perf_counter()
        calm = await load.calm(min(_CALM, duration).total_seconds(), rate)
        spent = time.perf_counter() - began
        await handled.all(load.count)
        return _Found(
            messages=load.count,
            publish_per_second=round(total / published, 1),
            handle_per_second=round(total / whole, 1),
            accepted_p50=_quantile(fast, 0.5),
            accepted_p99=_quantile(fast, 0.99),
            calm_per_second=round(len(calm) / spent, 1),
            calm_accepted_p50=_quantile(calm, 0.5),
            calm_accepted_p99=_quantile(calm, 0.99),
            calm_handled_p50=_quantile(handled.times, 0.5),
            calm_handled_p99=_quantile(handled.times, 0.99),
        )


class _Handled:
    """What the consumer got: acknowledged at once."""

    def __init__(self) -> None:
        self.consumer: Consumer | None = None
        self.count = 0
        self.times: list[float] = []  # seconds from publish to here
        self._news = asyncio.Event()

    def take(self, deliveries: Sequence[MessageDelivery]) -> None:
        """Handles a batch."""
        assert self.consumer is not None
        now = time.perf_counter()
        for delivery in deliveries:
            self.times.append(now - _STAMP.unpack_from(delivery.message.payload)[0])
            self.consumer.ack(delivery.lease_id)
        self.count += len(deliveries)
        self._news.set()

    async def all(self, count: int) -> None:
        """Returns when so many were handled.

        Raises:
            Failure: that takes too long.
        """
        try:
            async with asyncio.timeout(_DRAIN):
                while self.count < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise failures.Failure(
                f"Only {self.count} of {count} messages came back within {_DRAIN:g} s."
            ) from None


class _Load:
    """Publishes."""

    def __init__(
        self, publisher: Publisher, queue: str, size: int, handled: _Handled, counting: Counting
    ) -> None:
        self.count = 0
        self._publisher = publisher
        self._queue = queue
        self._padding = bytes(size - _STAMP.size)
        self._handled = handled
        self._counting = counting

    async def fast(self, seconds: float, in_flight: int) -> list[float]:
        """As many as go, so many at a time; how long each took."""
        times: list[float] = []
        end = time.perf_counter() + seconds

        async def one_by_one() -> None:
            while time.perf_counter() < end:
                times.append(await self._publish())

        async with asyncio.TaskGroup() as tasks:
            for _ in range(in_flight):
                tasks.create_task(one_by_one())
            tasks.create_task(self._tell(lambda: time.perf_counter() < end))
        return times

    async def calm(self, seconds: float, rate: int) -> list[float]:
        """So many a second; how long each took."""
        began, times = time.perf_counter(), []
        for number in range(int(seconds * rate)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            times.append(await self._publish())
        return times

    async def _publish(self) -> float:
        from weft.v1.message_pb2 import Message

        began = time.perf_counter()
        payload = _STAMP.pack(began) + self._padding
        await self._publisher.publish(Message(recipient=self._queue, payload=payload))
        self.count += 1
        return time.perf_counter() - began

    async def _tell(self, going: Callable[[], bool]) -> None:
        while going():
            self._counting.show(self.count, f" published, {self._handled.count:,} handled")
            await asyncio.sleep(0.1)


async def _make(control: Broker, queue: str, durability: str) -> None:
    from weft.v1 import broker_pb2, message_pb2

    word = "UNSPECIFIED" if durability == "default" else durability.upper()
    policy = message_pb2.QueuePolicy(durability=message_pb2.Durability.Value(f"DURABILITY_{word}"))
    policy.retention.FromSeconds(0)  # the archive is for messages that mean something
    await control.call("SetQueue", broker_pb2.SetQueueRequest(queue=queue, policy=policy))


async def _remove(control: Broker, queue: str) -> None:
    from weft.v1 import broker_pb2

    await control.call("DeleteQueue", broker_pb2.DeleteQueueRequest(queue=queue))


def _quantile(times: Sequence[float], share: float) -> float:
    """In milliseconds."""
    ordered = sorted(times)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1_000, 3)
