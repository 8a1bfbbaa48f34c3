"""Skills and topics as a host handles them: answers, overload, events, calls made on the way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TypeAlias

import pytest
from google.protobuf import duration_pb2

from weft import rpc
from weft.agents import Host
from weft.agents.messaging import Consumer, Publisher
from weft.broker import Broker
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2, broker_pb2_grpc, identity_pb2, message_pb2

Admin: TypeAlias = "broker_pb2_grpc.BrokerServiceAsyncStub"
Delivery = message_pb2.MessageDelivery
SAY = "/weft.echo.v1.EchoService/Say"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def say(text: str, **fields: str) -> message_pb2.Message:
    found = message_pb2.Message(
        recipient="echo", method=SAY, payload=echo_pb2.SayRequest(text=text).SerializeToString()
    )
    for name, value in fields.items():
        setattr(found, name, value)
    return found


async def test_answers_to_messages_of_one_id_by_two_senders_both_arrive(
    broker: Broker, host: Host, admin: Admin
) -> None:
    await host.start()
    answers: list[message_pb2.Message] = []

    async def handle(delivery: Delivery) -> None:
        answers.append(delivery.message)

    for sender in ("ada", "bob"):
        async with Publisher(broker.address, sender=sender) as publisher:
            await publisher.publish(
                say(sender, id="käse 100%", reply_to="inbox", correlation_id="x")
            )
    async with Consumer(broker.address, "inbox", handle):
        await wait_until(lambda: len(answers) == 2)
    assert {echo_pb2.SayResponse.FromString(one.payload).text for one in answers} == {"ada", "bob"}
    assert {(one.sender, one.correlation_id) for one in answers} == {("echo", "käse 100%")}


async def test_an_agent_at_its_limit_spends_no_attempts(host: Host, admin: Admin) -> None:
    policy = message_pb2.QueuePolicy(max_attempts=1)
    await admin.SetQueue(broker_pb2.SetQueueRequest(queue="echo", policy=policy))
    await host.start()
    stub = host.mesh.stub(echo_pb2_grpc.EchoServiceStub)
    slow = echo_pb2.SayRequest(text="slow", delay=duration_pb2.Duration(nanos=600_000_000))
    busy = [asyncio.ensure_future(stub.Say(slow)) for _ in range(5)]
    await wait_until(lambda: host._members[0].load.in_flight == 5)
    response = await host.mesh.request(
        echo_pb2_grpc.EchoServiceServicer.Say, echo_pb2.SayRequest(text="by message")
    )
    assert response.text == "by message"
    await asyncio.gather(*busy)


async def test_an_event_that_is_none_is_a_dead_letter_at_once(host: Host, admin: Admin) -> None:
    async def on_event(event: echo_pb2.SayRequest) -> None:
        raise AssertionError(event)

    host.on("orders.>", on_event)
    await host.start()
    await host.mesh.publish_message(message_pb2.Message(topic="orders.eu", payload=b"\xff\xff"))
    listing = broker_pb2.ListDeadLettersRequest(queue="echo.on-event")

    async def dead() -> list[tuple[str, int]]:
        found = await admin.ListDeadLetters(listing)
        return [(one.reason, one.attempts) for one in found.dead_letters]

    await wait_until(lambda: _is(dead, [("PAYLOAD_MALFORMED", 1)]))


async def _is(ask: object, expected: object) -> bool:
    return bool(await ask() == expected)  # type: ignore[operator]


async def test_a_handler_of_events_calls_on_in_the_name_and_trace_of_the_sender(
    host: Host,
) -> None:
    callers: list[tuple[str, str, str]] = []
    stub = host.mesh.stub(echo_pb2_grpc.EchoServiceStub)

    async def on_event(event: echo_pb2.SayRequest) -> None:
        call = rpc.current_call()
        assert call is not None
        said = await stub.Say(event)
        callers.append((said.caller, call.trace_id, call.conversation))

    host.on("orders.>", on_event)
    await host.start()
    for number in range(2):
        identity = identity_pb2.Identity(subject=f"user-{number}")
        event = message_pb2.Message(
            topic="orders.eu", traceparent=TRACE, conversation=f"c-{number}", identity=identity
        )
        await host.mesh.publish_message(event)
    await wait_until(lambda: len(callers) == 2)
    trace = TRACE.split("-")[1]
    assert sorted(callers) == [("user-0", trace, "c-0"), ("user-1", trace, "c-1")]


async def test_a_skill_handles_a_topic(broker: Broker, host: Host, admin: Admin) -> None:
    answers: list[bytes] = []

    async def handle(delivery: Delivery) -> None:
        answers.append(delivery.message.payload)

    host.on("orders.*", echo_pb2_grpc.EchoServiceServicer.SayOnce)
    host.on("orders.>", echo_pb2_grpc.EchoServiceServicer.SayOnce, name="again")
    await host.start()
    event = echo_pb2.SayOnceRequest(say=echo_pb2.SayRequest(text="once"))
    await host.mesh.publish_message(
        message_pb2.Message(topic="orders.eu", payload=event.SerializeToString(), reply_to="inbox")
    )
    async with Consumer(broker.address, "inbox", handle):
        await wait_until(lambda: len(answers) == 2)  # one of each subscription
    assert echo_pb2.SayOnceResponse.FromString(answers[0]).said.text == "once"


async def test_handlers_that_cannot_be_are_refused_before_anything_runs(host: Host) -> None:
    async def on_number(event: int) -> None: ...

    async def on_much(event: echo_pb2.SayRequest, delivery: Delivery, more: str) -> None: ...

    async def on_event(event: echo_pb2.SayRequest) -> None: ...

    for wrong in (on_number, on_much):
        with pytest.raises(TypeError):
            host.on("orders", wrong)
    host.on("orders", on_event)
    with pytest.raises(ValueError, match="already"):
        host.on("invoices", on_event)
    with pytest.raises(ValueError, match="no agent of this host serves"):
        host.on("orders", broker_pb2_grpc.BrokerServiceServicer.Publish, name="x")


async def test_a_host_whose_topic_no_broker_takes_says_so(host: Host) -> None:
    async def on_event(event: echo_pb2.SayRequest) -> None: ...

    host.on("NOT A PATTERN", on_event)
    with pytest.raises(rpc.InvalidArgument):
        await host.start()


async def test_a_host_starts_without_its_broker_and_handles_messages_when_it_is_there(
    redis_url: str, broker: Broker, host: Host
) -> None:
    got: list[str] = []

    async def on_event(event: echo_pb2.SayRequest) -> None:
        got.append(event.text)

    host.on("orders.>", on_event)
    await broker.stop()
    await host.start()
    stub = host.mesh.stub(echo_pb2_grpc.EchoServiceStub)
    assert (await stub.Say(echo_pb2.SayRequest(text="a call"))).text == "a call"
    async with Broker(redis_url=redis_url, address=broker.address):
        await wait_until(
            lambda: len(host._members[0].consumers) == 2, timeout=timedelta(seconds=10)
        )
        await host.mesh.publish("orders.eu", echo_pb2.SayRequest(text="an event"))
        await wait_until(lambda: got == ["an event"])
        await host.stop()
