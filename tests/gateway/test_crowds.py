"""Hundreds of callers that stay and ask for nothing, by every way on which they can; benchmarks/idle_clients.py has 10,000."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
import pytest
from tests.gateway.conftest import Mesh
from websockets.asyncio.client import connect

from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway.doors import heartbeat
from weft.rpc.testing import wait_until

MANY = 200
WAITING = b'{"count": 2, "pause": "50s"}'
ASKING = (
    b"POST /v1/echo:repeat HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    b"accept: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(WAITING)
) + WAITING


async def by_events(mesh: Mesh, stack: contextlib.AsyncExitStack) -> None:
    host, _, port = mesh.gateway.url.removeprefix("http://").rpartition(":")
    for _ in range(MANY):
        _, writer = await asyncio.open_connection(host, int(port))
        stack.callback(writer.close)
        writer.write(ASKING)


async def by_websocket(mesh: Mesh, stack: contextlib.AsyncExitStack) -> None:
    url = mesh.gateway.url.replace("http://", "ws://")
    for _ in range(MANY):
        dialled = connect(f"{url}/ws/weft.echo.v1.EchoService/Repeat")
        await (await stack.enter_async_context(dialled)).send(WAITING.decode())


async def by_grpc(mesh: Mesh, stack: contextlib.AsyncExitStack) -> None:
    dialled = grpc.aio.insecure_channel(mesh.gateway.grpc_address)
    stub = echo_pb2_grpc.EchoServiceStub(await stack.enter_async_context(dialled))
    request = echo_pb2.RepeatRequest(count=2)
    request.pause.seconds = 50
    for _ in range(MANY):
        call: Any = stub.Repeat(request)
        stack.callback(call.cancel)
        waiting = asyncio.ensure_future(call.read())
        stack.push_async_callback(asyncio.wait, [waiting])
        stack.callback(waiting.cancel)


@pytest.mark.parametrize("way", [by_events, by_websocket, by_grpc])
async def test_they_keep_nobody_waiting_and_leave_nothing(mesh: Mesh, way: Any) -> None:
    before = len(asyncio.all_tasks())
    async with contextlib.AsyncExitStack() as stack:
        await way(mesh, stack)
        await wait_until(lambda: mesh.in_flight == MANY)
        for _ in range(20):
            assert (await mesh.http.get("/v1/echo/hello")).status_code == 200
    await wait_until(lambda: mesh.in_flight == 0)
    # Beside the crowd's tasks the mesh has some that come and go.
    await wait_until(lambda: len(asyncio.all_tasks()) < before + 20)


async def test_an_answer_that_is_long_in_coming_begins_without_a_message(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_QUIET", 0.05)
    for fail, last in ((0, "event: end\ndata: {}"), (5, 'event: error\ndata: {"error"')):
        asked = {"count": 1, "pause": "0.3s", "failWith": fail}
        answer = await mesh.http.post("/v1/echo:repeat", json=asked)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        sign, *events = answer.text.strip().split("\n\n")
        assert sign == ": keep-alive"
        said, end = [event for event in events if event != sign]
        assert said.startswith("data: {")
        assert end.startswith(last)


async def test_callers_that_read_nothing_keep_nobody_waiting(mesh: Mesh) -> None:
    host, _, port = mesh.gateway.url.removeprefix("http://").rpartition(":")
    text = b'{"count": 100000, "text": "%s"}' % (b"x" * 8_000)
    asking = ASKING.partition(b"content-length")[0] + b"content-length: %d\r\n\r\n" % len(text)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            _, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(asking + text)
        await wait_until(lambda: mesh.in_flight == 20)
        for _ in range(20):
            assert (await mesh.http.get("/v1/echo/hello")).status_code == 200
        assert mesh.in_flight == 20
    await wait_until(lambda: mesh.in_flight == 0)
