"""Publisher, consumer and skills as messages, against a real broker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from weft import rpc
from weft.agents import Host, echo
from weft.agents.messaging import Consumer, Publisher, Reject, Retry, skill_of
from weft.agents.messaging.publisher import PublishFailed
from weft.broker import Broker
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.registry import Registry
from weft.rpc.testing import wait_until
from weft.support.v1 import supervisor_pb2, supervisor_pb2_grpc
from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2

Delivery = message_pb2.MessageDelivery
BEAT = timedelta(milliseconds=50)
SHORT = timedelta(seconds=0.5)


def message(text: str, queue: str = "inbox", **more: str) -> message_pb2.Message:
    return message_pb2.Message(recipient=queue, payload=text.encode(), **more)


async def status(
    admin: broker_pb2_grpc.BrokerServiceAsyncStub, queue: str = "inbox"
) -> broker_pb2.QueueStatus:
    return (await admin.Describe(broker_pb2.DescribeRequest(queue=queue))).status


async def test_many_publishes_travel_together_and_each_gets_its_receipt(
    broker: Broker, admin: broker_pb2_grpc.BrokerServiceAsyncStub
) -> None:
    async with Publisher(broker.address, sender="me") as publisher:
        receipts = await asyncio.gather(*(publisher.publish(message(str(n))) for n in range(500)))
    assert len({receipt.id for receipt in receipts}) == 500
    assert not any(receipt.duplicate for receipt in receipts)
    assert (await status(admin)).depth == 500


async def test_a_repeated_id_is_told(
    broker: Broker, admin: broker_pb2_grpc.BrokerServiceAsyncStub
) -> None:
    async with Publisher(broker.address, sender="me") as publisher:
        assert not (await publisher.publish(message("a", id="1"))).duplicate
        assert (await publisher.publish(message("a", id="1"))).duplicate


async def test_a_refusal_is_the_error_that_the_broker_gave(
    broker: Broker, admin: broker_pb2_grpc.BrokerServiceAsyncStub
) -> None:
    async with Publisher(broker.address, sender="me") as publisher:
        good = publisher.publish_nowait(message("good"))
        with pytest.raises(rpc.NotFound) as caught:
            await publisher.publish(message("lost", queue="nowhere"))
        assert caught.value.reason == "RECIPIENT_UNKNOWN"
        with pytest.raises(rpc.InvalidArgument) as invalid:
            await publisher.publish(message("bad", key="k" * 257))
        assert invalid.value.violations[0][0] == "message.key"
        assert (await good).id


async def test_without_a_broker_a_publish_fails_in_time() -> None:
    async with Publisher(
        "127.0.0.1:1", sender="me", patience=timedelta(milliseconds=200)
    ) as publisher:
        with pytest.raises(PublishFailed):
            await publisher.publish(message("nobody"))


async def test_a_publisher_goes_on_with_another_broker_and_nothing_is_stored_twice(
    redis_url: str, broker: Broker, admin: broker_pb2_grpc.BrokerServiceAsyncStub
) -> None:
    async with Broker(redis_url=redis_url, address="127.0.0.1:0", beat=BEAT, grace=SHORT) as second:
        first = Broker(redis_url=redis_url, address="127.0.0.1:0", beat=BEAT, grace=SHORT)
        await first.__aenter__()
        async with Publisher([first.address, second.address], sender="me") as publisher:
            sent = [publisher.publish_nowait(message(str(n))) for n in range(200)]
            await sent[0]
            stopping = asyncio.create_task(first.stop())
            sent += [publisher.publish_nowait(message(str(n))) for n in range(200, 400)]
            await asyncio.gather(*sent)
            await stopping
    assert (await status(admin)).published == 400


async def test_a_handler_that_returns_acknowledges(
    broker: Broker, admin: broker_pb2_grpc.BrokerServiceAsyncStub
) -> None:
    seen: list[str] = []

    async def handle(delivery: Delivery) -> None:
        seen.append(delivery.message.payload.decode())

    async with Publisher(broker.address, sender="me") as publisher:
        await asyncio.gather(*(publisher.publish(message(str(n))) for n in range(100)))
    async with Consumer(broker.address, "inbox", handle, concurrency=10):
        await wait_until(lambda: len(seen) == 100)
    assert sorted(map(int, seen)) == list(range(100))
    assert (await status(admin)).acked == 100


async def test_what_a_handler_raises_decides(
    broker: Broker, admin: broker_pb2_grpc.BrokerServiceAsyncStub
) -> None:
    tries: Counter[str] = Counter()

    async def handle(delivery: Delivery) -> None:
        text = delivery.message.payload.decode()
        tries[text] += 1
        match text:
            case "retry" if delivery.attempt == 1:
                raise Retry("busy", delay=timedelta(milliseconds=20))
            case "reject":
                raise Reject("UNKNOWN_CUSTOMER", "no such customer")
            case "wrong":
                raise rpc.InvalidArgument("is wrong", field="text")
            case "away":
                raise rpc.Unavailable

    async with Publisher(broker.address, sender="me") as publisher:
        for text in ("retry", "reject", "wrong", "away", "fine"):
            await publisher.publish(message(text))
    async with Consumer(broker.address, "inbox", handle):
        await wait_until(lambda: _settled(admin, depth=0))
    assert tries == {"retry": 2, "reject": 1, "wrong": 1, "away": 3, "fine": 1}
    found = await admin.ListDeadLetters(broker_pb2.ListDeadLettersRequest(queue="inbox"))
    assert {one.message.payload: (one.reason, one.attempts) for one in found.dead_letters} == {
        b"reject": ("UNKNOWN_CUSTOMER", 1),
        b"wrong": ("INVALID_ARGUMENT", 1),
        b"away": ("MAX_ATTEMPTS", 3),
    }


async def _settled(admin: broker_pb2_grpc.BrokerServiceAsyncStub, *, depth: int) -> bool:
    return (await status(admin)).depth == depth


async def test_a_long_handler_keeps_its_lease(
    broker: Broker, admin: broker_pb2_grpc.BrokerServiceAsyncStub
) -> None:
    begun: list[int] = []

    async def handle(delivery: Delivery) -> None:
        begun.append(delivery.attempt)
        await asyncio.sleep(1.2)  # more than twice the visibility timeout

    async with Publisher(broker.address, sender="me") as publisher:
        await publisher.publish(message("long"))
    async with (
        Consumer(broker.address, "inbox", handle),
        Consumer(broker.address, "inbox", handle),
    ):
        await wait_until(lambda: _settled(admin, depth=0))
    assert begun == [1]


async def test_a_consumer_finishes_on_another_broker_what_it_began(
    redis_url: str, broker: Broker, admin: broker_pb2_grpc.BrokerServiceAsyncStub
) -> None:
    first = Broker(
        redis_url=redis_url, address="127.0.0.1:0", beat=BEAT, grace=timedelta(milliseconds=50)
    )
    await first.__aenter__()
    begun: list[int] = []
    go_on = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        begun.append(delivery.attempt)
        await go_on.wait()

    async with Publisher(broker.address, sender="me") as publisher:
        await publisher.publish(message("moved"))
    consumer = Consumer([first.address], "inbox", handle)
    consumer._addresses._all.append(broker.address)
    async with consumer:
        await wait_until(lambda: len(begun) == 1)
        stopping = asyncio.create_task(first.stop())
        await stopping
        await wait_until(consumer.connected.is_set)
        go_on.set()
        await wait_until(lambda: _settled(admin, depth=0))
    assert (await status(admin)).acked == 1


async def test_a_drain_finishes_what_is_in_hand_and_takes_nothing_new(
    broker: Broker, admin: broker_pb2_grpc.BrokerServiceAsyncStub
) -> None:
    begun: list[str] = []
    go_on = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        begun.append(delivery.message.payload.decode())
        await go_on.wait()

    async with Publisher(broker.address, sender="me") as publisher:
        await publisher.publish(message("one"))
        consumer = Consumer(broker.address, "inbox", handle, concurrency=1)
        async with consumer:
            await wait_until(lambda: begun == ["one"])
            await publisher.publish(message("two"))
            draining = asyncio.create_task(consumer.drain())
            await asyncio.sleep(0)
            go_on.set()
            await draining
    found = await status(admin)
    assert (found.acked, found.depth, begun) == (1, 1, ["one"])


async def test_batches_are_settled_by_their_leases(
    broker: Broker, admin: broker_pb2_grpc.BrokerServiceAsyncStub
) -> None:
    seen: list[str] = []

    def take(deliveries: object) -> None:
        for delivery in deliveries:  # type: ignore[attr-defined]
            seen.append(delivery.message.id)
            consumer.ack(delivery.lease_id)

    policy = message_pb2.QueuePolicy(visibility_timeout={"seconds": 30})
    await admin.SetQueue(broker_pb2.SetQueueRequest(queue="inbox", policy=policy))
    consumer = Consumer(broker.address, "inbox", on_batch=take, concurrency=100)
    async with consumer, Publisher(broker.address, sender="me") as publisher:
        await asyncio.gather(*(publisher.publish(message(str(n))) for n in range(1_000)))
        await wait_until(lambda: _settled(admin, depth=0))
    assert len(set(seen)) == len(seen) == 1_000


def test_a_skill_is_named_by_its_servicer() -> None:
    skill = skill_of(echo_pb2_grpc.EchoServiceServicer.Say)
    assert (skill.path, skill.agent) == ("/weft.echo.v1.EchoService/Say", "echo")
    assert skill.request is echo_pb2.SayRequest


@pytest_asyncio.fixture
async def host(database_url: str, broker: Broker, fresh_xds: None) -> AsyncIterator[Host]:
    async with (
        Registry(
            database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0)
        ) as registry,
        Host(registry=registry.address, brokers=broker.address) as host,
    ):
        host.add(echo.Echo())
        yield host


async def test_a_skill_is_called_or_sent_with_one_method(host: Host) -> None:
    await host.start()
    mesh = host.mesh
    request = echo_pb2.SayRequest(text="hello")
    stub = mesh.stub(echo_pb2_grpc.EchoServiceStub)
    assert (await stub.Say(request)).text == "hello"
    receipt = await mesh.send(echo_pb2_grpc.EchoServiceServicer.Say, request, id="once")
    assert (receipt.id, receipt.duplicate) == ("once", False)
    response = await mesh.request(echo_pb2_grpc.EchoServiceServicer.Say, request)
    assert response.text == "hello"


async def test_a_request_gets_the_error_of_its_handler(host: Host) -> None:
    await host.start()
    with pytest.raises(rpc.NotFound):
        await host.mesh.request(
            echo_pb2_grpc.EchoServiceServicer.Say, echo_pb2.SayRequest(text="x", fail_with=5)
        )


async def test_a_repeated_request_gets_the_same_reply(host: Host) -> None:
    await host.start()
    for text in ("first", "second"):
        said = await host.mesh.request(
            echo_pb2_grpc.EchoServiceServicer.Say, echo_pb2.SayRequest(text=text), id="same"
        )
        assert said.text == "first"


async def test_nobody_waits_for_ever_for_a_reply(host: Host) -> None:
    await host.start()
    async with rpc.Channel(host.mesh._brokers) as channel:
        stub = broker_pb2_grpc.BrokerServiceStub(channel)
        await stub.SetQueue(broker_pb2.SetQueueRequest(queue="quiet"))
    with pytest.raises(rpc.DeadlineExceeded):
        await host.mesh.request(
            echo_pb2_grpc.EchoServiceServicer.Say,
            echo_pb2.SayRequest(text="x"),
            to="quiet",
            within=timedelta(milliseconds=300),
        )


async def test_events_of_a_topic_reach_every_handler_that_matches(host: Host) -> None:
    got: list[tuple[str, str]] = []

    async def on_created(event: echo_pb2.SayRequest, delivery: Delivery) -> None:
        got.append(("created", event.text + delivery.message.topic))

    async def on_anything(event: echo_pb2.SayRequest) -> None:
        got.append(("anything", event.text))

    host.on("orders.*.created", on_created)
    host.on("orders.>", on_anything, name="all")
    await host.start()
    await host.mesh.publish("orders.eu.created", echo_pb2.SayRequest(text="1"))
    await host.mesh.publish("orders.eu.sent", echo_pb2.SayRequest(text="2"))
    await wait_until(lambda: len(got) == 3)
    assert sorted(got) == [
        ("anything", "1"),
        ("anything", "2"),
        ("created", "1orders.eu.created"),
    ]


class Supervisor(supervisor_pb2_grpc.SupervisorServiceServicer):
    async def AnswerMail(
        self, request: supervisor_pb2.AnswerMailRequest, context: object
    ) -> supervisor_pb2.AnswerMailResponse:
        call = rpc.current_call()
        assert call is not None
        return supervisor_pb2.AnswerMailResponse(mail_id=str(call.first("weft-message-id")))


async def test_a_skill_for_messages_refuses_calls(host: Host) -> None:
    host.add(Supervisor())
    await host.start()
    stub = host.mesh.stub(supervisor_pb2_grpc.SupervisorServiceStub)
    with pytest.raises(Exception, match="durable messages only"):
        await stub.AnswerMail(supervisor_pb2.AnswerMailRequest())
    response = await host.mesh.request(
        supervisor_pb2_grpc.SupervisorServiceServicer.AnswerMail,
        supervisor_pb2.AnswerMailRequest(),
        id="m-1",
    )
    assert response.mail_id == "m-1"
