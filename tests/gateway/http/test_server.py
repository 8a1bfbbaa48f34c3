"""Start, stop and the ordinary life of the HTTP server."""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
from datetime import timedelta

import httpx
import pytest

from weft import rpc
from weft.gateway.http import HttpServer, HttpSettings
from weft.rpc.testing import wait_until


async def test_a_free_port_is_taken_and_told(open_server):
    _, server, _ = await open_server()
    assert server.address.startswith("127.0.0.1:")
    async with httpx.AsyncClient(base_url=f"http://{server.address}") as client:
        response = await client.post("/hello", content=b"body")
    assert response.text == "/hello body"
    assert "date" in response.headers
    assert "server" not in response.headers


async def test_signals_stay_the_processs_own(open_server):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    await open_server()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


async def test_a_taken_address_is_an_error_and_not_an_exit(open_server):
    app, server, _ = await open_server()
    port = int(server.address.rsplit(":", 1)[1])
    with pytest.raises(rpc.AddressInUseError, match=str(port)):
        await HttpServer(app, HttpSettings(port=port)).start()


async def test_connections_are_kept_alive(open_server):
    _, server, connect = await open_server()
    client = await connect()
    for n in range(50):
        assert (await client.get(f"/{n}")).body == b"/%d " % n
    assert server.connections == 1


async def test_stop_lets_running_requests_finish_and_takes_no_more(open_server):
    app, server, connect = await open_server()
    busy, idle = await connect(), await connect()
    await idle.get()
    await busy.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
    await wait_until(lambda: app.held == 1)

    stopping = asyncio.create_task(server.stop(timedelta(seconds=20)))
    assert await idle.ended()
    with pytest.raises(ConnectionRefusedError):
        await connect()
    assert not stopping.done()

    app.released.set()
    response = await busy.response()
    assert (response.body, response.headers["connection"]) == (b"/hold ", "close")
    await stopping
    assert server.connections == 0


async def test_stop_cuts_what_outlasts_the_grace(open_server):
    app, server, connect = await open_server()
    client = await connect()
    await client.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
    await wait_until(lambda: app.held == 1)
    await server.stop(timedelta(milliseconds=50))
    assert server.connections == 0
    assert (await client.response()).status == 500
    assert await client.ended()


async def test_stop_does_not_wait_for_callers_that_never_finish_their_request(open_server):
    _, server, connect = await open_server()
    clients = [await connect() for _ in range(5)]
    for client in clients:
        await client.send(b"GET /x HTTP/1.1\r\nHo")
    await wait_until(lambda: server.connections == 5)
    async with asyncio.timeout(1):
        await server.stop(timedelta(seconds=20))


async def test_it_starts_again_after_a_stop(open_server):
    _, server, connect = await open_server()
    await server.stop()
    await server.stop()
    await server.start()
    assert (await (await connect()).get()).status == 200


async def test_a_fault_of_the_application_is_a_500_and_the_server_lives(open_server, caplog):
    app, _, connect = await open_server()
    client = await connect()
    await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
    client.close()
    await wait_until(lambda: app.left == 1)
    assert (await (await connect()).get()).status == 200
    caplog.clear()


async def test_a_small_answer_is_one_segment(open_server):
    _, server, _ = await open_server()
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for _ in range(20):
        writer.write(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
        await reader.readuntil(b"/hello ")
    info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
    (segments_in,) = struct.unpack_from("I", info, 152)  # tcpi_data_segs_in
    assert segments_in == 20
    writer.close()
    await writer.wait_closed()
