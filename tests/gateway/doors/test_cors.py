"""Pages of other origins: who may call, what they may read, and what a preflight is told."""

from __future__ import annotations

import pytest
from tests.gateway.conftest import routed, running
from tests.gateway.doors.conftest import wire_to

from weft.gateway.http.cors import Cors

PAGE = "https://app.example.com"
OTHER = "https://evil.example.com"
SAY = "/weft.echo.v1.EchoService/Say"
ASKING = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "content-type, connect-protocol-version, connect-timeout-ms",
}


@pytest.fixture
async def listed(fresh_xds, database_url):
    """A gateway that one page may call."""
    async with running(database_url, cors=Cors([PAGE, "http://localhost:5173/"])) as made:
        await routed(made.http)
        yield wire_to(made.gateway.url)


def granted(answer):
    return answer.headers.get("access-control-allow-origin")


async def test_pages_that_are_listed(listed):
    asked = await listed.ask("OPTIONS", SAY, ASKING | {"origin": PAGE})
    assert asked.status == 204
    assert granted(asked) == PAGE
    assert asked.headers["access-control-allow-headers"] == ASKING["access-control-request-headers"]
    assert "POST" in asked.headers["access-control-allow-methods"].split(", ")
    assert int(asked.headers["access-control-max-age"]) > 0
    assert "origin" in asked.headers["vary"]
    assert "access-control-allow-credentials" not in asked.headers

    json = {"content-type": "application/json", "origin": PAGE}
    answer = await listed.ask("POST", SAY, json, b"{}")
    assert (answer.status, granted(answer), answer.headers["vary"]) == (200, PAGE, "origin")
    assert "traceparent" in answer.headers["access-control-expose-headers"]
    local = await listed.ask("POST", SAY, json | {"origin": "http://localhost:5173"}, b"{}")
    assert granted(local) == "http://localhost:5173"
    # A page reads errors too, those of the door and those before it.
    for path, body in ((SAY, b'{"failWith":5}'), (SAY, b"{"), ("/nowhere", b"{}")):
        assert granted(await listed.ask("POST", path, json, body)) == PAGE
    assert granted(await listed.ask("GET", "/openapi.json", {"origin": PAGE})) == PAGE
    for kind in ("application/grpc-web+proto", "application/connect+proto"):
        path = SAY if "web" in kind else "/weft.echo.v1.EchoService/Repeat"
        framed = await listed.ask("POST", path, json | {"content-type": kind}, b"\0" * 5)
        assert (framed.status, granted(framed)) == (200, PAGE)

    # The rest of the world, on the same gateway.
    for headers in ({}, {"origin": OTHER}, {"origin": "null"}, {"origin": PAGE + ".evil.com"}):
        answer = await listed.ask("POST", SAY, json | {"origin": ""} | headers, b"{}")
        assert (answer.status, granted(answer)) == (200, None)
        assert answer.headers["vary"] == "origin"
    refused = await listed.ask("OPTIONS", SAY, ASKING | {"origin": OTHER})
    assert (refused.status, granted(refused)) == (403, None)
    assert b"ORIGIN_NOT_ALLOWED" in refused.body
    injected = ASKING | {"origin": PAGE, "access-control-request-headers": 'a"b(c)'}
    odd = await listed.ask("OPTIONS", SAY, injected)
    assert "access-control-allow-headers" not in odd.headers
    plain = await listed.ask("OPTIONS", SAY, {"origin": PAGE})  # no preflight
    assert (plain.status, plain.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")


@pytest.mark.parametrize(
    ("method", "site", "status"),
    [
        ("POST", "cross-site", 403),
        ("POST", "same-site", 403),
        ("POST", "same-origin", 200),
        ("POST", "none", 200),
        ("GET", "cross-site", 200),
    ],
)
async def test_by_default_no_other_site_may_change_anything(wire, method, site, status):
    path = SAY if method == "POST" else "/v1/echo/a"
    answer = await wire.ask(method, path, {"origin": OTHER, "sec-fetch-site": site})
    assert (answer.status, granted(answer)) == (status, None)
    assert "vary" not in answer.headers


async def test_by_default_a_preflight_is_refused(wire):
    assert (await wire.ask("OPTIONS", SAY, ASKING | {"origin": PAGE})).status == 403


class Sent:
    """Takes what would be sent."""

    def __init__(self):
        self.messages = []

    async def __call__(self, message):
        self.messages.append(message)


async def answer_of(cors, method="OPTIONS", **headers):
    from weft.gateway.http.exchange import Exchange

    sent = Sent()
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"method": method, "raw_path": b"/", "query_string": b"", "headers": given}
    exchange = Exchange(scope, None, sent)
    if not await cors.ends(exchange):
        await exchange.reply(200, b"", headers=[(b"trailer-a", b"b")])
    start = sent.messages[0]
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}


async def test_any_origin():
    cors = Cors(["*"])
    status, headers = await answer_of(cors, origin=OTHER, access_control_request_method="POST")
    assert (status, headers["access-control-allow-origin"]) == (204, "*")
    status, headers = await answer_of(cors, "POST", origin=OTHER, sec_fetch_site="cross-site")
    assert (status, headers["access-control-allow-origin"]) == (200, "*")
    assert "trailer-a" in headers["access-control-expose-headers"].split(", ")


async def test_credentials_are_given_where_they_are_named():
    cors = Cors([PAGE], credentials=True)
    for method in ("OPTIONS", "POST"):
        asked = {"origin": PAGE, "access_control_request_method": "POST"}
        _, headers = await answer_of(cors, method, **asked)
        assert headers["access-control-allow-credentials"] == "true"
        assert headers["access-control-allow-origin"] == PAGE
    _, headers = await answer_of(cors, "POST", origin=OTHER)
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize(
    "origin",
    ["app.example.com", "https://a/b", "https://", "https://*.a.com", "null", "http://a:x"],
)
def test_what_is_no_origin(origin):
    with pytest.raises(ValueError, match="is not an origin"):
        Cors([origin])


def test_any_origin_with_credentials_is_refused():
    with pytest.raises(ValueError, match="credentials"):
        Cors(["*"], credentials=True)
    Cors(["", " "], credentials=True)  # none
