"""Runners: calls are made, retried, cancelled, taken over; streams are kept in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.gateway.jobs.conftest import (
    ANN,
    REPEAT,
    SAY,
    SAY_ONCE,
    Opening,
    Store,
    new_job,
)

from weft import rpc
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway.guards import Breakers
from weft.gateway.jobs import Job, Message, State
from weft.gateway.jobs.progress import ProgressLimits
from weft.gateway.jobs.runner import Runner, RunnerSettings
from weft.gateway.upstream import Upstream
from weft.rpc.testing import wait_until

SHORT = timedelta(milliseconds=600)


class Counting(Echo):
    calls = 0
    dropped = 0

    async def Say(self, request: Any, context: Any) -> Any:
        self.calls += 1
        try:
            return await super().Say(request, context)
        except asyncio.CancelledError:
            self.dropped += 1
            raise


@pytest.fixture
async def echo() -> Counting:
    return Counting("one")


@pytest.fixture
async def address(echo: Counting) -> AsyncIterator[str]:
    server = rpc.Server()
    server.add(echo_pb2_grpc.add_EchoServiceServicer_to_server, echo)
    async with server:
        yield server.address


@contextlib.asynccontextmanager
async def running(store: Store, address: str, **settings: Any) -> AsyncIterator[asyncio.Task[None]]:
    upstream = Upstream(Breakers(None), own={"echo": address})  # no registry between
    runner = Runner(
        store.database,
        upstream,
        store.bells,
        settings=RunnerSettings(**({"lease": SHORT, "drain": timedelta(0)} | settings)),
    )
    task = asyncio.create_task(runner.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
        await upstream.close()


def say(text: str = "", **further: Any) -> bytes:
    request = echo_pb2.SayRequest(text=text, **further)
    return bytes(request.SerializeToString())


def slow(seconds: float) -> bytes:
    request = echo_pb2.SayRequest(text="slow")
    request.delay.FromTimedelta(timedelta(seconds=seconds))
    return bytes(request.SerializeToString())


async def ended(store: Store, job: Job, seconds: float = 10) -> Job:
    found = await store.jobs.wait(ANN, job.id, seconds)
    assert found.state.ended, found
    return found


async def test_a_job_is_run_in_its_callers_name(store: Store, address: str) -> None:
    async with running(store, address):
        job = await store.jobs.begin(new_job(request=say("hello")))
        found = await ended(store, job)
    assert found.state is State.SUCCEEDED
    assert found.response is not None
    said = echo_pb2.SayResponse.FromString(found.response)
    assert (said.text, said.caller) == ("hello", ANN.subject)
    assert 50 < said.time_left.seconds <= 60


async def test_failures_are_kept(store: Store, address: str) -> None:
    async with running(store, address):
        found = await ended(store, await store.jobs.begin(new_job(request=say(fail_with=5))))
    assert found.state is State.FAILED
    assert isinstance(found.error, rpc.NotFound)
    assert found.error.message == "The caller asked for this failure."


async def test_many_jobs_by_two_runners(
    store: Store, opening: Opening, address: str, echo: Counting
) -> None:
    long = timedelta(seconds=60)  # a runner that is slow loses none
    async with (
        opening() as other,
        running(store, address, lease=long),
        running(other, address, lease=long, at_once=4),
    ):
        jobs = await asyncio.gather(
            *(store.jobs.begin(new_job(request=say(f"{n}"))) for n in range(60))
        )
        found = [await ended(store, job) for job in jobs]
    texts = {echo_pb2.SayResponse.FromString(job.response or b"").text for job in found}
    assert texts == {f"{n}" for n in range(60)}
    assert echo.calls == 60


async def test_a_stream_is_kept_in_order_and_watched_from_elsewhere(
    store: Store, opening: Opening, address: str
) -> None:
    request = echo_pb2.RepeatRequest(text="x", count=250, fail_with=9)
    async with opening() as other, running(other, address):
        new = new_job(method=REPEAT, streams=True, request=request.SerializeToString())
        job = await store.jobs.begin(new)
        changes = [change async for change in store.jobs.watch(ANN, job.id)]
    messages = [change for change in changes if isinstance(change, Message)]
    assert [message.number for message in messages] == list(range(1, 251))
    numbers = [echo_pb2.RepeatResponse.FromString(each.content).number for each in messages]
    assert numbers == list(range(250))
    last = changes[-1]
    assert isinstance(last, Job)
    assert isinstance(last.error, rpc.FailedPrecondition)
    behind = [each async for each in store.jobs.watch(ANN, job.id, after=248)]
    assert [each.number for each in behind if isinstance(each, Message)] == [249, 250]


async def test_of_a_long_stream_the_newest_is_kept(store: Store, address: str) -> None:
    request = echo_pb2.RepeatRequest(text="x" * 100, count=500)
    async with running(store, address, progress=ProgressLimits(messages=40, size=2_500)):
        new = new_job(method=REPEAT, streams=True, request=request.SerializeToString())
        job = await ended(store, await store.jobs.begin(new))
    kept = await store.jobs.messages(ANN, job.id)
    assert job.messages == 500
    assert [each.number for each in kept] == list(range(500 - len(kept) + 1, 501))
    assert 10 < len(kept) < 40


async def test_cancelling_drops_the_call(
    store: Store, opening: Opening, address: str, echo: Counting
) -> None:
    async with opening() as other, running(store, address, lease=timedelta(seconds=60)):
        job = await store.jobs.begin(new_job(request=slow(30)))
        await wait_until(lambda: echo.calls == 1)
        await other.jobs.cancel(ANN, job.id)
        found = await ended(store, job)
        await wait_until(lambda: echo.dropped == 1)
    assert found.state is State.CANCELLED
    assert isinstance(found.error, rpc.Cancelled)


@pytest.mark.parametrize(
    ("further", "state", "calls"),
    [({}, State.SUCCEEDED, 2), ({"method": SAY_ONCE, "repeatable": False}, State.FAILED, 1)],
)
async def test_jobs_of_a_runner_that_died(
    store: Store,
    opening: Opening,
    address: str,
    echo: Counting,
    further: dict[str, Any],
    state: State,
    calls: int,
) -> None:
    request = slow(0.4)
    if further:
        once = echo_pb2.SayOnceRequest()
        once.say.MergeFromString(request)
        request = bytes(once.SerializeToString())
    async with opening() as dying, running(dying, address) as first:
        job = await store.jobs.begin(new_job(request=request, **further))
        await wait_until(lambda: echo.calls == 1)
        # Its connections are gone before it can say anything.
        dying.database._pool.terminate()
        first.cancel()
    async with running(store, address):
        found = await ended(store, job)
    assert found.state is state
    assert echo.calls == calls
    if state is State.FAILED:
        assert found.error is not None
        assert found.error.reason == "JOB_OUTCOME_UNKNOWN"
    else:
        assert found.losses == 1


async def test_a_stream_that_is_run_again_begins_anew(
    store: Store, opening: Opening, address: str
) -> None:
    request = echo_pb2.RepeatRequest(text="x", count=8)
    request.pause.FromTimedelta(timedelta(milliseconds=100))
    new = new_job(method=REPEAT, streams=True, request=request.SerializeToString())
    async with opening() as dying, running(dying, address) as first:
        job = await store.jobs.begin(new)
        async for change in store.jobs.watch(ANN, job.id):
            if isinstance(change, Message) and change.number == 2:
                break
        dying.database._pool.terminate()
        first.cancel()
    async with running(store, address):
        found = await ended(store, job)
    kept = await store.jobs.messages(ANN, job.id)
    numbers = [echo_pb2.RepeatResponse.FromString(each.content).number for each in kept]
    assert numbers == list(range(8))
    assert kept[-1].number == found.messages > 8


async def test_a_job_waits_for_an_agent_that_is_away(store: Store, echo: Counting) -> None:
    server = rpc.Server()
    await server.start()
    address = server.address
    await server.stop()
    async with running(store, address):
        job = await store.jobs.begin(
            new_job(method=SAY_ONCE, repeatable=False, request=b"", time=timedelta(seconds=30))
        )
        await wait_until(lambda: any("changed" in said for said in store.said))
        again = rpc.Server(address)
        again.add(echo_pb2_grpc.add_EchoServiceServicer_to_server, echo)
        async with again:
            found = await ended(store, job, 20)
    assert found.state is State.SUCCEEDED
    assert echo.calls == 1


async def test_a_gateway_that_stops_gives_its_jobs_back(
    store: Store, address: str, echo: Counting
) -> None:
    job = await store.jobs.begin(new_job(request=slow(30)))
    once = await store.jobs.begin(
        new_job(
            method=SAY_ONCE,
            repeatable=False,
            request=echo_pb2.SayOnceRequest(
                say=echo_pb2.SayRequest.FromString(slow(30))
            ).SerializeToString(),
        )
    )
    async with running(store, address, lease=timedelta(seconds=60)):
        await wait_until(lambda: echo.calls == 2)
    assert (await store.jobs.get(ANN, job.id)).state is State.QUEUED
    lost = await store.jobs.get(ANN, once.id)
    assert lost.state is State.FAILED
    assert lost.error is not None
    assert lost.error.reason == "JOB_OUTCOME_UNKNOWN"


async def test_a_job_ends_with_its_deadline(store: Store, address: str) -> None:
    async with running(store, address):
        new = new_job(method=SAY, request=slow(30), time=timedelta(milliseconds=500))
        found = await ended(store, await store.jobs.begin(new))
    assert found.state is State.FAILED
    assert isinstance(found.error, rpc.DeadlineExceeded)


@contextlib.asynccontextmanager
async def cut_off(address: str) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """A way to a server that can be cut."""
    host, _, port = address.rpartition(":")
    writers: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inward, outward = await asyncio.open_connection(host, int(port))
        writers.extend((writer, outward))
        await asyncio.gather(pass_on(reader, outward), pass_on(inward, writer))

    def cut() -> None:
        for each in writers:
            each.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", cut
        cut()


async def test_an_agent_that_goes_away_within_a_call(
    store: Store, address: str, echo: Counting
) -> None:
    once = echo_pb2.SayOnceRequest(say=echo_pb2.SayRequest.FromString(slow(0.4)))
    async with cut_off(address) as (way, cut), running(store, way):
        single = await store.jobs.begin(
            new_job(method=SAY_ONCE, request=once.SerializeToString(), repeatable=False)
        )
        twice = await store.jobs.begin(new_job(request=slow(0.4)))
        await wait_until(lambda: echo.calls == 2)
        cut()
        found = await ended(store, single)
        assert found.state is State.FAILED
        assert found.error is not None
        assert found.error.reason == "JOB_OUTCOME_UNKNOWN"
        assert (await ended(store, twice)).state is State.SUCCEEDED
    assert echo.calls == 3
