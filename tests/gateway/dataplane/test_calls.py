"""Calls of real gRPC servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.gateway.dataplane.agents import Agent, agent_at, begin, mesh_of, unary

from weft.gateway.dataplane import CallFailed, Mesh
from weft.rpc.testing import wait_until

C = grpc.StatusCode


async def test_a_message_comes_back(mesh: Mesh) -> None:
    assert (await unary(mesh, "Echo", b"hello"))[0] == b"hello"
    assert (await unary(mesh, "Echo", b""))[0] == b""


@pytest.mark.parametrize("size", [16_379, 16_384, 65_530, 65_536, 1_000_000, 4 * 1024 * 1024])
async def test_large_messages_both_ways(mesh: Mesh, size: int) -> None:
    message = os.urandom(size)
    assert (await unary(mesh, "Echo", message))[0] == message


async def test_an_answer_that_is_too_large(mesh: Mesh) -> None:
    with pytest.raises(CallFailed) as failed:
        await unary(mesh, "Big", b"16777217")
    assert failed.value.code() is C.RESOURCE_EXHAUSTED
    assert len((await unary(mesh, "Big", b"16777216"))[0]) == 16_777_216


async def test_packed_answers(mesh: Mesh) -> None:
    assert (await unary(mesh, "Packed", b"100000"))[0] == b"z" * 100_000
    with pytest.raises(CallFailed) as failed:
        await unary(mesh, "Packed", b"17000000")  # 17 kB on the wire
    assert failed.value.code() is C.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("code", [code for code in C if code is not C.OK])
async def test_every_status(mesh: Mesh, code: grpc.StatusCode) -> None:
    with pytest.raises(CallFailed) as failed:
        await unary(mesh, "Fail", b"%d" % code.value[0])
    assert failed.value.code() is code
    assert failed.value.details() == "Grüße: 100 %\n"
    assert dict(failed.value.trailing) == {
        "grpc-status-details-bin": b"\x00\xff\x01detail",
        "x-more": "text",
    }
    assert not failed.value.unseen


async def test_a_method_nobody_has(mesh: Mesh) -> None:
    with pytest.raises(CallFailed) as failed:
        await unary(mesh, "Nothing")
    assert failed.value.code() is C.UNIMPLEMENTED


async def test_metadata_both_ways(mesh: Mesh) -> None:
    sent = (
        ("x-text", "a, b"),
        ("x-two-bin", b"\x00\xff,"),
        ("x-two-bin", b""),
        ("x-long", "l" * 4000),
    )
    _, call = await unary(mesh, "Meta", b"", sent=sent)
    assert sorted(call.leading) == sorted(sent)
    left = int(str(dict(call.trailing)["x-left-ms"]))
    assert 9_000 < left <= 10_000


async def test_messages_of_a_stream_in_order(mesh: Mesh) -> None:
    call = await begin(mesh, "Count", b"100 1000")
    count = 0
    while (message := await call.receive()) is not None:
        assert message == b"x" * 100
        count += 1
    assert count == 1000


async def test_a_conversation(mesh: Mesh) -> None:
    call = await begin(mesh, "Chat")
    await call.begun()  # before anything was said
    assert ("welcome", "yes") in call.leading
    for size in (0, 1, 70_000, 300_000):
        assert await call.send(b"m" * size)
        assert await call.receive() == b"m" * size
    call.close_sending()
    assert await call.receive() is None
    assert not await call.send(b"late")


async def test_what_is_not_read_is_not_made(mesh: Mesh, agent: Agent) -> None:
    call = await begin(mesh, "Count", b"10000 5000")
    await call.begun()
    before = -1
    while agent.taken != before:
        before = agent.taken
        await asyncio.sleep(0.2)
    assert agent.taken < 150  # a window, and what the server's core keeps
    count = 0
    while await call.receive() is not None:
        count += 1
    assert count == 5000


async def test_an_agent_that_reads_nothing_holds_its_sender(mesh: Mesh) -> None:
    call = await begin(mesh, "Deaf")
    sent = 0

    async def send() -> None:
        nonlocal sent
        while await call.send(b"m" * 10_000):
            sent += 1

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(send(), 0.5)
    assert sent < 1000
    call.cancel()


@pytest.mark.parametrize("options", [{"http2__lookahead_bytes": 64, "http2__bdp_probe": 0}])
async def test_an_agent_with_a_tiny_window(options: dict[str, int]) -> None:
    async with agent_at(**options) as agent, mesh_of(agent.address) as mesh:
        messages = [os.urandom(100_000) for _ in range(20)]
        answers = await asyncio.gather(*(unary(mesh, "Echo", each) for each in messages))
        assert [answer for answer, _ in answers] == messages


async def test_calls_that_wait_for_their_turn_can_be_given_up() -> None:
    async with agent_at(max_concurrent_streams=1) as agent, mesh_of(agent.address) as mesh:
        first = asyncio.create_task(unary(mesh, "Hang"))
        await agent.hanging.wait()
        with pytest.raises(CallFailed) as failed:
            await unary(mesh, "Echo", seconds=0.2)
        assert failed.value.code() is C.DEADLINE_EXCEEDED
        waiting = asyncio.create_task(unary(mesh, "Echo"))
        (connection,) = mesh._connections
        await wait_until(lambda: connection._queue)
        first.cancel()
        assert (await waiting)[0] == b""
        assert agent.calls == 1


async def test_many_calls_at_once(mesh: Mesh) -> None:
    messages = [os.urandom(n * 37 % 5000) for n in range(800)]
    answers = await asyncio.gather(*(unary(mesh, "Echo", each) for each in messages))
    assert [answer for answer, _ in answers] == messages


async def test_a_deadline_ends_the_call_at_both_ends(mesh: Mesh, agent: Agent) -> None:
    begun = time.monotonic()
    with pytest.raises(CallFailed) as failed:
        await unary(mesh, "Hang", seconds=0.3)
    assert failed.value.code() is C.DEADLINE_EXCEEDED
    assert time.monotonic() - begun < 1
    await asyncio.wait_for(agent.ended.wait(), 2)


async def test_a_deadline_that_has_passed(mesh: Mesh, agent: Agent) -> None:
    with pytest.raises(CallFailed) as failed:
        await unary(mesh, "Echo", seconds=0)
    assert failed.value.code() is C.DEADLINE_EXCEEDED
    assert agent.calls == 0


async def test_a_caller_that_goes_away_ends_the_call_at_the_agent(mesh: Mesh, agent: Agent) -> None:
    calling = asyncio.create_task(unary(mesh, "Hang"))
    await agent.hanging.wait()
    calling.cancel()
    await asyncio.wait_for(agent.ended.wait(), 2)
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_nobody_listens() -> None:
    async with mesh_of("127.0.0.1:1") as mesh:
        with pytest.raises(CallFailed) as failed:
            await asyncio.wait_for(unary(mesh, "Echo"), 1)
        assert failed.value.code() is C.UNAVAILABLE
        assert failed.value.unseen


async def test_no_address() -> None:
    async with mesh_of() as mesh:
        with pytest.raises(CallFailed) as failed:
            await asyncio.wait_for(unary(mesh, "Echo"), 0.1)
        assert failed.value.unseen


async def test_somebody_listens_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with mesh_of(f"127.0.0.1:{silent.getsockname()[1]}") as mesh:
            with pytest.raises(CallFailed) as failed:
                await unary(mesh, "Echo", seconds=0.3)
            assert failed.value.code() is C.DEADLINE_EXCEEDED
            assert failed.value.unseen


async def test_calls_go_to_all_addresses_in_turn() -> None:
    async with agent_at() as one, agent_at() as other, mesh_of(one.address, other.address) as mesh:
        await unary(mesh, "Echo")
        await wait_until(lambda: all(each.connection for each in mesh._agents["a"]._ring))
        before = one.calls, other.calls
        for _ in range(10):
            await unary(mesh, "Echo")
        assert (one.calls - before[0], other.calls - before[1]) == (5, 5)


async def test_an_address_that_is_gone_gets_no_new_calls_and_ends_its_own() -> None:
    async with agent_at() as one, agent_at() as other, mesh_of(one.address) as mesh:
        call = await begin(mesh, "Chat")
        await call.send(b"a")
        assert await call.receive() == b"a"
        mesh.update({"a": [other.address]})
        for _ in range(5):
            await unary(mesh, "Echo")
        assert (one.calls, other.calls) == (0, 5)
        await call.send(b"b")
        assert await call.receive() == b"b"
        call.close_sending()
        assert await call.receive() is None
        await wait_until(lambda: len(mesh._connections) == 1)


async def test_an_agent_that_is_gone_ends_nothing_under_way(agent: Agent) -> None:
    async with mesh_of(agent.address) as mesh:
        call = await begin(mesh, "Chat")
        await call.begun()
        mesh.update({})
        assert not mesh.knows("a")
        await call.send(b"still")
        assert await call.receive() == b"still"
        call.cancel()


async def test_nothing_is_lost_while_an_agent_drains_and_stops() -> None:
    async with agent_at() as one, agent_at() as other, mesh_of(one.address, other.address) as mesh:
        stopped = asyncio.Event()

        async def caller() -> int:
            made = 0
            while not stopped.is_set():
                await unary(mesh, "Echo")
                made += 1
            return made

        calling = [asyncio.create_task(caller()) for _ in range(16)]
        await wait_until(lambda: one.calls > 100)
        mesh.update({"a": [other.address]})  # as the registry tells before an agent stops
        await asyncio.sleep(0.1)
        await one.server.stop(5)
        before = other.calls
        await wait_until(lambda: other.calls > before + 50)
        stopped.set()
        assert sum(await asyncio.gather(*calling)) == one.calls + other.calls


async def test_an_agent_that_comes_back_is_called_again() -> None:
    async with agent_at() as agent, mesh_of(agent.address) as mesh:
        await unary(mesh, "Echo")
        await agent.server.stop(0)
        with pytest.raises(CallFailed):
            await unary(mesh, "Echo")
        async with agent_at(agent.address):

            async def answers() -> bool:
                with contextlib.suppress(CallFailed):
                    return (await unary(mesh, "Echo", b"again"))[0] == b"again"
                return False

            await wait_until(answers)


_CHILD = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from tests.gateway.dataplane.agents import agent_at
async def main():
    async with agent_at() as agent:
        print(agent.address, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
def child() -> Any:
    root = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, root], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    process.kill()
    process.stdout.close()
    process.wait()


async def test_a_process_that_is_killed_takes_its_calls_with_it_at_once(child: Any) -> None:
    process, address = child
    async with agent_at() as other, mesh_of(address) as mesh:
        calls = [asyncio.create_task(unary(mesh, "Hang")) for _ in range(20)]
        await unary(mesh, "Echo")
        mesh.update({"a": [address, other.address]})
        process.send_signal(signal.SIGKILL)
        begun = time.monotonic()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - begun < 1
        assert {failed.code() for failed in ended} == {C.UNAVAILABLE}
        assert not any(failed.unseen for failed in ended)  # who knows
        assert (await unary(mesh, "Echo", b"on"))[0] == b"on"


async def test_a_process_that_hangs_is_noticed(child: Any, monkeypatch: Any) -> None:
    process, address = child
    monkeypatch.setattr("weft.gateway.dataplane.connection._KEEPALIVE", 0.3)
    monkeypatch.setattr("weft.gateway.dataplane.connection._PONG", 0.3)
    async with mesh_of(address) as mesh:
        await unary(mesh, "Echo")
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(CallFailed) as failed:
            await asyncio.wait_for(unary(mesh, "Echo", seconds=30), 5)
        assert failed.value.code() is C.UNAVAILABLE


async def test_a_quiet_call_is_kept_alive(mesh: Mesh, monkeypatch: Any) -> None:
    monkeypatch.setattr("weft.gateway.dataplane.connection._KEEPALIVE", 0.1)
    with pytest.raises(CallFailed) as failed:
        await unary(mesh, "Hang", seconds=1.5)
    assert failed.value.code() is C.DEADLINE_EXCEEDED


async def test_nothing_is_left_of_calls(mesh: Mesh) -> None:
    await asyncio.gather(*(unary(mesh, "Echo") for _ in range(50)))
    for code in (1, 5, 14):
        with contextlib.suppress(CallFailed):
            await unary(mesh, "Fail", b"%d" % code)
    with contextlib.suppress(CallFailed):
        await unary(mesh, "Hang", seconds=0.05)
    (connection,) = mesh._connections
    assert not connection._calls
    assert not connection._queue
    assert not connection._stalled
