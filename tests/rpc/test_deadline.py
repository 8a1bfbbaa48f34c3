"""One absolute deadline; what is left of it travels on."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import timedelta

import grpc
import pytest

from weft import rpc
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import channel_for

ADD = echo_pb2_grpc.add_EchoServiceServicer_to_server


class Relay(Echo):
    """Asks another echo, after a while."""

    def __init__(self, channel: rpc.Channel) -> None:
        super().__init__()
        self.next = echo_pb2_grpc.EchoServiceStub(channel)

    async def Say(self, request: echo_pb2.SayRequest, context: object) -> echo_pb2.SayResponse:
        await asyncio.sleep(
            0.2
        )  # it is time that is tested; gRPC rounds what is left up by some milliseconds
        return await self.next.Say(request)


def slow(seconds: float) -> echo_pb2.SayRequest:
    request = echo_pb2.SayRequest(text="x")
    request.delay.FromTimedelta(timedelta(seconds=seconds))
    return request


async def test_the_rest_of_the_budget_travels_over_hops() -> None:
    async with channel_for(ADD, Echo()) as last, channel_for(ADD, Relay(last)) as first:
        answer = await echo_pb2_grpc.EchoServiceStub(first).Say(echo_pb2.SayRequest(), timeout=3)
    assert timedelta(seconds=1) < answer.time_left.ToTimedelta() < timedelta(seconds=2.9)


async def test_a_call_without_a_deadline_gets_the_one_its_contract_declares() -> None:
    async with channel_for(ADD, Echo()) as channel:
        answer = await echo_pb2_grpc.EchoServiceStub(channel).Say(echo_pb2.SayRequest())
        assert timedelta(seconds=9) < answer.time_left.ToTimedelta() < timedelta(seconds=11)
        said = await echo_pb2_grpc.EchoServiceStub(channel).SayOnce(echo_pb2.SayOnceRequest())
        assert timedelta(seconds=29) < said.said.time_left.ToTimedelta() < timedelta(seconds=31)


async def test_a_server_limits_callers_that_name_no_deadline() -> None:
    seen: list[float] = []

    class Asking(Echo):
        async def Say(self, request: echo_pb2.SayRequest, context: object) -> echo_pb2.SayResponse:
            deadline = rpc.Deadline.current()
            assert deadline is not None
            seen.append(deadline.seconds())
            return echo_pb2.SayResponse()

    async with (
        channel_for(ADD, Asking()) as channel,
        grpc.aio.insecure_channel(channel.target) as bare,
    ):
        await echo_pb2_grpc.EchoServiceStub(bare).Say(echo_pb2.SayRequest())
    assert 9 < seen[0] <= 10


async def test_an_applied_deadline_limits_calls_made_in_its_block() -> None:
    async with channel_for(ADD, Echo()) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        began = time.monotonic()
        with (
            rpc.Deadline.after(timedelta(milliseconds=100)).applied(),
            pytest.raises(grpc.aio.AioRpcError) as caught,
        ):
            await stub.Say(slow(20))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 1


async def test_a_deadline_that_passed_makes_no_call() -> None:
    async with channel_for(ADD, Echo()) as channel:
        with (
            rpc.Deadline.after(timedelta(seconds=-1)).applied(),
            pytest.raises(grpc.aio.AioRpcError) as caught,
        ):
            await echo_pb2_grpc.EchoServiceStub(channel).Say(echo_pb2.SayRequest())
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_an_inner_deadline_never_outlives_the_outer_one() -> None:
    outer = rpc.Deadline.after(timedelta(seconds=1))
    with outer.applied(), rpc.Deadline.after(timedelta(seconds=5)).applied() as effective:
        assert effective == outer
        assert rpc.Deadline.current() == outer
    assert rpc.Deadline.current() is None


def test_a_deadline_says_what_is_left() -> None:
    passed = rpc.Deadline.after(timedelta(seconds=-3))
    assert passed.expired()
    assert passed.seconds() == 0
    assert passed.remaining() == timedelta(0)
    with pytest.raises(rpc.DeadlineExceeded):
        passed.check()
    never = rpc.Deadline.after_seconds(math.inf)
    assert not never.expired()
    assert never.remaining() == timedelta.max
    assert passed.min(never) == passed
    assert never.min(None) == never


async def test_the_handler_is_cancelled_when_its_caller_s_time_is_up() -> None:
    ended = asyncio.Event()

    class Waiting(Echo):
        async def Say(self, request: echo_pb2.SayRequest, context: object) -> echo_pb2.SayResponse:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

    async with channel_for(ADD, Waiting()) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await echo_pb2_grpc.EchoServiceStub(channel).Say(echo_pb2.SayRequest(), timeout=0.05)
        async with asyncio.timeout(2):
            await ended.wait()
