"""Answers that are sent as a whole, and those that cannot be."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from weft.gateway.guards import read_body
from weft.gateway.http import HttpServer, HttpSettings
from weft.gateway.http.exchange import Exchange


class App:
    """Answers with what the test says, and remembers whether each answer was sent as a whole."""

    def __init__(self):
        self.status, self.headers, self.body = 200, [], b'{"a": 1}'
        self.whole = []

    async def __call__(self, scope, receive, send):
        exchange = Exchange(scope, receive, send)
        await read_body(receive, exchange.headers, limit=1_000)
        sends = exchange.send_whole
        assert sends is not None

        def heard(*answer):
            self.whole.append(sends(*answer))
            return self.whole[-1]

        exchange.send_whole = heard
        await exchange.reply(self.status, self.body, headers=self.headers)


@pytest.fixture
async def served():
    app = App()
    async with (
        HttpServer(app, HttpSettings(port=0)) as server,
        httpx.AsyncClient(base_url=f"http://{server.address}") as client,
    ):
        yield app, client


async def test_an_answer_is_one_write(served):
    app, client = served
    app.headers = [(b"x-more", b"one"), (b"x-more", b"two")]
    for _ in range(3):
        answer = await client.post("/x", content=b"asked")
        assert (answer.status_code, answer.content) == (200, app.body)
        assert answer.headers.get_list("x-more") == ["one", "two"]
        assert answer.headers["content-length"] == "8"
        assert "date" in answer.headers
    assert app.whole == [True] * 3


@pytest.mark.parametrize(
    ("method", "given", "status", "more"),
    [
        ("HEAD", {}, 200, []),
        ("GET", {"connection": "close"}, 200, []),
        ("GET", {}, 200, [(b"connection", b"close")]),
    ],
)
async def test_what_is_no_ordinary_case_is_left_to_the_server(served, method, given, status, more):
    app, client = served
    app.status, app.headers = status, more
    for _ in range(2):
        answer = await client.request(method, "/x", headers=given)
        assert answer.status_code == status
        assert answer.content == (b"" if method == "HEAD" else app.body)
    assert app.whole == [False, False]


@pytest.mark.parametrize(
    "header",
    [
        (b"x-more", b"one\r\nset-cookie: a=b"),
        (b"x-more", b"one\x00"),
        (b"x more", b"one"),
        (b"x-more\r\nset-cookie", b"a=b"),
    ],
)
async def test_a_header_that_is_malformed_is_not_sent(served, header):
    app, client = served
    app.headers = [header]
    answer = await client.get("/x")
    assert answer.status_code == 500
    assert "set-cookie" not in answer.headers
    app.headers = []
    assert (await client.get("/x")).status_code == 200


async def test_requests_in_a_row_are_answered_in_their_order(served):
    app, client = served
    host, port = client.base_url.host, client.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 5)
    for _ in range(5):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(8) == app.body
    writer.close()
    assert app.whole == [True] * 5
