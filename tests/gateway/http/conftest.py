from __future__ import annotations

import asyncio
import contextlib

import orjson
import pytest
import uvloop

from weft.gateway.guards import PayloadTooLarge, read_body
from weft.gateway.http import HttpServer, HttpSettings


def pytest_asyncio_loop_factories():
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


async def answer(send, status, body, headers=()):
    head = [(b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


class Echo:
    """Answers with the path and the body; /hold waits for `released`, /early answers without reading, /endless
    answers with 50 MB in pieces."""

    def __init__(self):
        self.seen = []
        self.headers = []
        self.held = 0
        self.left = 0
        self.sent = 0
        self.released = asyncio.Event()

    async def __call__(self, scope, receive, send):
        path = scope["path"]
        self.seen.append(path)
        self.headers = scope["headers"]
        if path.startswith("/hold"):
            self.held += 1
            await self.released.wait()
        if path == "/early":
            await answer(send, 401, b"no")
            return
        if path == "/large":
            await answer(send, 200, b"x" * 50_000_000)
            return
        if path == "/endless":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(5_000):
                await asyncio.sleep(
                    0
                )  # to send to who is gone, or has room, takes no turn of the loop
                self.sent += 10_000
                await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
        try:
            body = await read_body(receive, scope["headers"], limit=1_000_000)
        except PayloadTooLarge as error:
            close = [(b"connection", b"close")]
            await answer(send, error.http_status, error.message.encode(), close)
        except Exception:
            self.left += 1
            raise
        else:
            await answer(send, 200, path.encode() + b" " + body)


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def reason(self):
        return orjson.loads(self.body)["error"]["details"][0]["reason"]


class Client:
    """A raw connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def flood(self, chunk, times):
        """Sends for as long as the other side takes it; gives the chunks that went out."""
        for sent in range(times):
            try:
                await self.send(chunk)
            except (ConnectionError, OSError):
                return sent
        return times

    async def response(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Response(int(first.split()[1]), headers, body)

    async def ended(self):
        """Waits for the other side to end; True when nothing came before that."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read() == b""
        return True

    async def get(self, path="/x", headers=""):
        await self.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n".encode())
        return await self.response()

    def close(self):
        self.writer.close()


@pytest.fixture
async def open_server():
    """Starts servers over an Echo and connections to them, and ends all of them."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**settings):
            app = Echo()
            server = HttpServer(app, HttpSettings(port=0, **settings))
            await stack.enter_async_context(server)

            async def connect():
                host, port = server.address.rsplit(":", 1)
                client = Client(*await asyncio.open_connection(host, int(port)))
                stack.callback(client.close)
                return client

            return app, server, connect

        yield start
