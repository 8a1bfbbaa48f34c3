"""The proxy does what it is told, in a process of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
import redis.asyncio
from redis.exceptions import RedisError
from tests.faults.framing import Http2, Resp, RespRequests
from tests.faults.processes import Child, python
from tests.faults.proxy import Remote

from weft import embedded, rpc
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import wait_until


@pytest_asyncio.fixture
async def proxy(short_folder: Path) -> AsyncIterator[Remote]:
    control = short_folder / "proxy"
    child = Child(python("tests.faults.proxy", str(control)), short_folder / "proxy.log")
    child.start()
    try:
        await wait_until(control.exists)
        remote = Remote(control)
        yield remote
        await remote.close()
    finally:
        child.kill()
        control.unlink(missing_ok=True)


@pytest_asyncio.fixture
async def echo(proxy: Remote) -> AsyncIterator[int]:
    """The port of link "a" to a server that says what it hears."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield await proxy.open("a", f"{host}:{port}")
    server.close()


async def ask(port: int, said: bytes = b"hello") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(said)
        return await reader.readexactly(len(said))
    finally:
        writer.close()


async def test_passes_on(proxy: Remote, echo: int) -> None:
    big = bytes(range(256)) * 20_000
    assert await ask(echo, big) == big
    counted = await proxy.count("a")
    assert counted["bytes"] == 2 * len(big)


async def test_cuts(proxy: Remote, echo: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", echo)
    writer.write(b"x")
    assert await reader.read(1) == b"x"
    assert await proxy.cut("a") == 1
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()
    assert await ask(echo) == b"hello"


async def test_refuses(proxy: Remote, echo: int) -> None:
    await proxy.refuse("a", refuse=True)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await ask(echo)
    await proxy.refuse("a", refuse=False)
    assert await ask(echo) == b"hello"


async def test_delays_each_way(proxy: Remote, echo: int) -> None:
    await proxy.set("a", "up", delay=0.1)
    begin = time.monotonic()
    await ask(echo)
    assert 0.1 <= time.monotonic() - begin < 0.2
    await proxy.set("a", "both", delay=0.1)
    begin = time.monotonic()
    await ask(echo)
    assert time.monotonic() - begin >= 0.2


async def test_stalls_until_it_is_well_again(proxy: Remote, echo: int) -> None:
    await proxy.set("a", "down", stall=True)
    asked = asyncio.create_task(ask(echo))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asked), 0.1)
    await proxy.set("a")
    assert await asked == b"hello"


async def test_trickles(proxy: Remote, echo: int) -> None:
    await proxy.set("a", "up", trickle=10)
    begin = time.monotonic()
    assert await ask(echo, b"x" * 100) == b"x" * 100
    assert time.monotonic() - begin >= 0.08


async def test_garbles(proxy: Remote, echo: int) -> None:
    await proxy.set("a", "up", garble=0.5)
    assert await ask(echo, b"x" * 100) != b"x" * 100


async def test_damage_of_redis_protocol_breaks_the_connection(
    proxy: Remote, servers: embedded.Endpoints
) -> None:
    path = servers.redis_url.removeprefix("unix://").partition("?")[0]
    port = await proxy.open("redis", path, "resp")
    for way in ("up", "down"):
        async with redis.asyncio.Redis(port=port, single_connection_client=True) as client:
            assert await client.ping()
            await proxy.set("redis", way, damage=1)
            with pytest.raises(RedisError):  # a server says "Protocol error" and closes behind it
                await client.get("x")
            assert (await proxy.count("redis"))["damage"] == 0


class Echo(echo_pb2_grpc.EchoServiceServicer):
    async def Say(self, request, context):
        return echo_pb2.SayResponse(text=request.text)


async def test_damage_of_http2_breaks_the_connection(proxy: Remote) -> None:
    server = rpc.Server("127.0.0.1:0")
    server.add(echo_pb2_grpc.add_EchoServiceServicer_to_server, Echo())
    async with server:
        port = await proxy.open("grpc", server.address, "http2")
        for way in ("up", "down"):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = echo_pb2_grpc.EchoServiceStub(channel)
                request = echo_pb2.SayRequest(text="hello")
                assert (await stub.Say(request)).text == "hello"
                connections = (await proxy.count("grpc"))["connections"]
                await proxy.set("grpc", way, damage=1)
                # The frame that is hit is a call's, or the answer to a ping beside it.
                while (count := await proxy.count("grpc"))["connections"] == connections:
                    try:
                        await stub.Say(request, timeout=5)
                    except grpc.aio.AioRpcError as error:
                        # A client whose answer was damaged says UNKNOWN, "Stream removed".
                        assert error.code() in {  # noqa: PT017
                            grpc.StatusCode.UNAVAILABLE,
                            grpc.StatusCode.UNKNOWN,
                        }
                assert count["damage"] == 0
                assert (await stub.Say(request, timeout=5)).text == "hello"


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_elements_are_found_however_the_bytes_are_cut(step: int) -> None:
    frames = [
        b"\0\0\x05\0\0\0\0\0\1hello",
        b"\0\0\0\4\1\0\0\0\0",
        b"\0\1\x2c\0\0\0\0\0\1" + b"x" * 300,
    ]
    assert starts(Http2(client=True), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(frames), step) == [
        24, 38, 47,
    ]  # fmt: skip
    replies = b"+OK\r\n:5\r\n$3\r\na\nb\r\n$-1\r\n%1\r\n$0\r\n\r\n_\r\n"
    assert starts(Resp(), replies, step) == [0, 5, 9, 18, 23, 27, 33]
    commands = b"*2\r\n$3\r\nGET\r\n$2\r\n*1\r\n" * 2
    assert starts(RespRequests(), commands, step) == [0, 21]


def starts(framing: Http2 | Resp, data: bytes, step: int) -> list[int]:
    return [
        begin + offset
        for begin in range(0, len(data), step)
        for offset in framing.feed(data[begin : begin + step])
    ]
