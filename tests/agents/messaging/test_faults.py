"""What goes wrong around publishers and consumers stays where it went wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeAlias

import grpc
import pytest

from weft import rpc
from weft.agents.messaging import Consumer, Publisher, Reject, Retry
from weft.agents.messaging.calls import Calls
from weft.agents.messaging.publisher import PublishFailed
from weft.agents.messaging.sending import Sending
from weft.broker import Broker
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2

Admin: TypeAlias = "broker_pb2_grpc.BrokerServiceAsyncStub"
Delivery = message_pb2.MessageDelivery


def message(payload: str | bytes, queue: str = "inbox") -> message_pb2.Message:
    content = payload if isinstance(payload, bytes) else payload.encode()
    return message_pb2.Message(recipient=queue, payload=content)


async def status(admin: Admin, queue: str = "inbox") -> broker_pb2.QueueStatus:
    return (await admin.Describe(broker_pb2.DescribeRequest(queue=queue))).status


async def test_a_lost_lease_costs_no_credit(broker: Broker, admin: Admin) -> None:
    begun: list[int] = []
    ended: list[str] = []
    stuck = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        begun.append(delivery.attempt)
        if len(begun) == 1:
            time.sleep(1.0)  # noqa: ASYNC251 the process stands still for twice the visibility timeout
            try:
                await stuck.wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

    async with (
        Publisher(broker.address, sender="me") as publisher,
        Consumer(broker.address, "inbox", handle, concurrency=1),
    ):
        await publisher.publish(message("one"))
        await wait_until(lambda: ended == ["cancelled"])
        await wait_until(lambda: len(begun) == 2)
        await publisher.publish(message("two"))
        await wait_until(lambda: len(begun) == 3)


@pytest.mark.parametrize(
    "failure",
    [Reject(""), Reject("R" * 100), Retry(delay=timedelta(days=30)), Retry(delay=-timedelta(1))],
    ids=["no reason", "long reason", "long delay", "negative delay"],
)
async def test_what_the_broker_would_refuse_ends_no_consumer(
    broker: Broker, admin: Admin, failure: Exception
) -> None:
    seen: list[str] = []

    async def handle(delivery: Delivery) -> None:
        seen.append(delivery.message.payload.decode())
        if seen == ["bad"]:
            raise failure

    async with (
        Publisher(broker.address, sender="me") as publisher,
        Consumer(broker.address, "inbox", handle),
    ):
        await publisher.publish(message("bad"))
        await wait_until(lambda: seen == ["bad"])
        await publisher.publish(message("good"))
        await wait_until(lambda: "good" in seen)


async def test_a_batch_that_raises_is_tried_again(broker: Broker, admin: Admin) -> None:
    attempts: list[int] = []

    def take(deliveries: Sequence[Delivery]) -> None:
        attempts.extend(delivery.attempt for delivery in deliveries)
        if attempts == [1]:
            raise ValueError
        for delivery in deliveries:
            consumer.ack(delivery.lease_id)

    consumer = Consumer(broker.address, "inbox", on_batch=take)
    async with Publisher(broker.address, sender="me") as publisher, consumer:
        await publisher.publish(message("once more"))
        await wait_until(lambda: attempts == [1, 2])


async def test_replies_that_fit_no_frame_together_are_all_stored(
    broker: Broker, admin: Admin
) -> None:
    together = asyncio.Event()
    begun: list[str] = []

    async def handle(delivery: Delivery) -> bytes:
        begun.append(delivery.message.id)
        if len(begun) == 40:
            together.set()
        await together.wait()
        return bytes(500_000)

    async with (
        Publisher(broker.address, sender="me") as publisher,
        Consumer(broker.address, "inbox", handle, concurrency=40),
    ):
        await asyncio.gather(*(publisher.publish(message(str(n))) for n in range(40)))
        await wait_until(lambda: _acked(admin, 40), timeout=timedelta(seconds=10))


async def test_a_reply_too_large_for_the_broker_becomes_an_error(
    broker: Broker, admin: Admin
) -> None:
    async def handle(delivery: Delivery) -> bytes:
        return bytes(int(delivery.message.payload))

    await admin.SetQueue(broker_pb2.SetQueueRequest(queue="slow"))
    async with (
        Publisher(broker.address, sender="me") as publisher,
        Consumer(broker.address, "slow", handle),
    ):
        for size in (20_000_000, 9_900_000, 10):
            await publisher.publish(message(str(size), queue="slow"))
        await wait_until(lambda: _acked(admin, 3, "slow"), timeout=timedelta(seconds=10))


async def _acked(admin: Admin, count: int, queue: str = "inbox") -> bool:
    return (await status(admin, queue)).acked == count


@pytest.mark.parametrize("size", [9_500_000, 17_000_000])
async def test_a_message_too_large_takes_no_other_with_it(
    broker: Broker, admin: Admin, size: int
) -> None:
    async with Publisher(broker.address, sender="me", patience=timedelta(seconds=5)) as publisher:
        small = [publisher.publish_nowait(message("small")) for _ in range(3)]
        large = publisher.publish_nowait(message(bytes(size)))
        small += [publisher.publish_nowait(message("small")) for _ in range(3)]
        await asyncio.gather(*small)
        with pytest.raises(rpc.InvalidArgument, match="larger"):
            await large


async def test_large_messages_share_no_frame_that_is_too_large(
    redis_url: str, database_url: str
) -> None:
    sizes = [1_900_000, 7_900_000, 1_900_000, 7_900_000]
    policy = message_pb2.QueuePolicy(durability=message_pb2.DURABILITY_MEMORY)
    async with (
        Broker(redis_url=redis_url, database_url=database_url, address="127.0.0.1:0") as broker,
        rpc.Channel(broker.address) as channel,
        Publisher(broker.address, sender="me", patience=timedelta(seconds=10)) as publisher,
    ):
        admin = broker_pb2_grpc.BrokerServiceStub(channel)
        await admin.SetQueue(broker_pb2.SetQueueRequest(queue="inbox", policy=policy))
        await asyncio.gather(*(publisher.publish(message(bytes(size))) for size in sizes))
        assert (await status(admin)).depth == len(sizes)


def begin_with_the_first(sending: Sending) -> None:
    sending._calls = Calls(sending._brokers)
    sending._calls._addresses._next = 0


async def test_requests_outlive_the_broker_that_they_were_sent_to(
    redis_url: str, broker: Broker, admin: Admin
) -> None:
    """All that wait on one connection go on with the next broker, each by itself."""

    async def handle(delivery: Delivery) -> bytes:
        await go_on.wait()
        return echo_pb2.SayResponse(text="said").SerializeToString()

    go_on = asyncio.Event()
    first = Broker(redis_url=redis_url, address="127.0.0.1:0", grace=timedelta(milliseconds=10))
    await first.__aenter__()
    method = echo_pb2_grpc.EchoServiceServicer.Say
    async with (
        Consumer(broker.address, "inbox", handle),
        Sending(f"{first.address},{broker.address}", sender="me") as sending,
    ):
        begin_with_the_first(sending)
        asked = [
            asyncio.create_task(
                sending.request(method, echo_pb2.SayRequest(text=str(n)), to="inbox")
            )
            for n in range(10)
        ]
        await wait_until(lambda: _depth(admin, 10))
        await first.stop()
        go_on.set()
        said = await asyncio.gather(*asked)
    assert [one.text for one in said] == ["said"] * 10


async def _depth(admin: Admin, count: int) -> bool:
    return (await status(admin)).depth == count


async def test_a_broadcast_goes_on_with_the_next_broker(broker: Broker, admin: Admin) -> None:
    async with Sending(f"127.0.0.1:1,{broker.address}", sender="me") as sending:
        begin_with_the_first(sending)
        got = await sending.broadcast(
            "in*", echo_pb2_grpc.EchoServiceServicer.Say, echo_pb2.SayRequest(text="all")
        )
    assert got == ["inbox"]


async def test_a_drain_returns_what_comes_late(broker: Broker, admin: Admin) -> None:
    begun: list[str] = []
    go_on = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        begun.append(delivery.message.payload.decode())
        await go_on.wait()

    consumer = Consumer(broker.address, "inbox", handle, concurrency=10)
    async with Publisher(broker.address, sender="me") as publisher, consumer:
        await publisher.publish(message("one"))
        await wait_until(lambda: begun == ["one"])
        draining = asyncio.create_task(consumer.drain())
        await asyncio.sleep(0)
        await publisher.publish(message("two"))
        go_on.set()
        await draining
        await wait_until(lambda: _depth(admin, 1))
    assert begun == ["one"]


async def test_what_a_drain_does_not_finish_goes_back_at_once(broker: Broker, admin: Admin) -> None:
    await admin.SetQueue(
        broker_pb2.SetQueueRequest(queue="slow")  # visibility timeout of 30 s
    )
    attempts: list[int] = []

    async def hang(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        await asyncio.Event().wait()

    async def handle(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)

    consumer = Consumer(broker.address, "slow", hang)
    async with Publisher(broker.address, sender="me") as publisher, consumer:
        await publisher.publish(message("one", queue="slow"))
        await wait_until(lambda: len(attempts) == 1)
        await consumer.drain(timedelta(milliseconds=50))
    async with Consumer(broker.address, "slow", handle):
        await wait_until(lambda: len(attempts) == 2)


async def test_publishes_beyond_the_window_wait_for_room(broker: Broker, admin: Admin) -> None:
    async with Publisher(broker.address, sender="me") as publisher:
        many = [asyncio.create_task(publisher.publish(message("x"))) for _ in range(6_000)]
        await asyncio.sleep(0)
        assert len(publisher._queued) <= 4_096
        gone = many[4_500:4_600]
        for task in gone:
            task.cancel()
        await asyncio.gather(*many, return_exceptions=True)
    assert (await status(admin)).depth == 5_900


async def test_what_a_silent_broker_does_not_answer_is_given_up_in_time() -> None:
    """A broker that is connected and hangs, as when it is stopped."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        began = time.monotonic()
        async with Publisher(
            f"{host}:{port}", sender="me", patience=timedelta(milliseconds=200)
        ) as publisher:
            given_up = publisher.publish_nowait(message("nobody reads"))
            with pytest.raises(PublishFailed), rpc.Deadline.after_seconds(0.1).applied():
                await publisher.publish(message("nobody answers"))
            with pytest.raises(PublishFailed):
                await given_up
        assert time.monotonic() - began < 2
        with pytest.raises(RuntimeError, match="closed"):
            publisher.publish_nowait(message("too late"))


async def test_what_is_published_is_what_it_was_then(broker: Broker, admin: Admin) -> None:
    payloads: list[bytes] = []

    async def handle(delivery: Delivery) -> None:
        payloads.append(delivery.message.payload)

    changed = message("before")
    async with Publisher(broker.address, sender="me") as publisher:
        accepted = publisher.publish_nowait(changed)
        changed.payload = b"after"
        await accepted
    async with Consumer(broker.address, "inbox", handle):
        await wait_until(lambda: payloads == [b"before"])


async def test_prefetched_messages_wait_their_turn_and_keep_their_leases(
    broker: Broker, admin: Admin
) -> None:
    now = most = 0
    attempts: list[int] = []

    async def handle(delivery: Delivery) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        attempts.append(delivery.attempt)
        await asyncio.sleep(0.2)
        now -= 1

    async with (
        Publisher(broker.address, sender="me") as publisher,
        Consumer(broker.address, "inbox", handle, concurrency=2, prefetch=8),
    ):
        await asyncio.gather(*(publisher.publish(message(str(n))) for n in range(10)))
        await wait_until(lambda: _acked(admin, 10))  # takes twice the visibility timeout
    assert most == 2
    assert attempts == [1] * 10


async def test_a_queue_that_is_deleted_is_consumed_again_when_it_is_back(
    broker: Broker, admin: Admin
) -> None:
    seen: list[str] = []

    async def handle(delivery: Delivery) -> None:
        seen.append(delivery.message.payload.decode())

    async with Publisher(broker.address, sender="me") as publisher:
        consumer = Consumer(broker.address, "inbox", handle)
        async with consumer:
            await consumer.connected.wait()
            await admin.DeleteQueue(broker_pb2.DeleteQueueRequest(queue="inbox"))
            await admin.SetQueue(broker_pb2.SetQueueRequest(queue="inbox"))
            await publisher.publish(message("again"))
            await wait_until(lambda: seen == ["again"])


async def test_a_name_that_no_queue_can_have_ends_the_consumer(broker: Broker) -> None:
    async def handle(delivery: Delivery) -> None: ...

    async with Consumer(broker.address, "NOT A NAME", handle) as consumer:
        with pytest.raises(rpc.InvalidArgument):
            await consumer.wait()


class Breaking(grpc.GenericRpcHandler):
    """Ends calls as gRPC says it of a connection that breaks, and answers what comes after `times` of them."""

    def __init__(self, code: grpc.StatusCode, times: int) -> None:
        self._code = code
        self.left = times

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, _: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if self.left:
            self.left -= 1
            await context.abort(self._code, "Stream removed")
        return broker_pb2.RequestResponse(id="q").SerializeToString()


@pytest.mark.parametrize("code", ["UNAVAILABLE", "UNKNOWN", "INTERNAL"])
async def test_a_call_whose_connection_breaks_is_made_again(code: str) -> None:
    server = grpc.aio.server()
    breaking = Breaking(grpc.StatusCode[code], times=2)
    server.add_generic_rpc_handlers((breaking,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    calls = Calls(f"127.0.0.1:{port}")
    try:
        answer = await calls("Request", broker_pb2.RequestRequest())
    finally:
        await calls.close()
        await server.stop(None)
    assert answer.id == "q"
    assert breaking.left == 0


async def test_what_the_broker_refuses_is_asked_once(broker: Broker) -> None:
    calls = Calls(broker.address)
    try:
        with pytest.raises(rpc.NotFound):
            await calls("Describe", broker_pb2.DescribeRequest(queue="nobody"))
    finally:
        await calls.close()
