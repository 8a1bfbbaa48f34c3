"""Security headers of answers, and bounds of requests, at every door."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import httpx
import pytest
from tests.gateway.conftest import routed, running
from tests.gateway.doors.a2a_client import VERSION
from tests.gateway.doors.conftest import wire_to
from tests.gateway.entries import Entry, Why
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

SAY = "/weft.echo.v1.EchoService/Say"
REPEAT = "/weft.echo.v1.EchoService/Repeat"
JSON = {"content-type": "application/json"}
# Door, method, path, headers, body; some succeed, some fail.
REQUESTS: dict[str, tuple[str, str, dict[str, str], bytes]] = {
    "rest": ("POST", "/v1/echo:say", JSON, b'{"text": "x"}'),
    "rest, get": ("GET", "/v1/echo/x", {}, b""),
    "rest, head": ("HEAD", "/v1/echo/x", {}, b""),
    "rest, options": ("OPTIONS", "/v1/echo/x", {}, b""),
    "rest, wrong": ("POST", "/v1/echo:say", JSON, b"{"),
    "sse": ("POST", "/v1/echo:repeat", JSON, b'{"count": 1}'),
    "connect": ("POST", SAY, JSON, b"{}"),
    "connect, get": ("GET", f"{SAY}?encoding=json&message=%7B%7D", {}, b""),
    "connect, stream": (
        "POST", REPEAT, {"content-type": "application/connect+proto"}, b"\0\0\0\0\0"
    ),
    "grpc-web": ("POST", SAY, {"content-type": "application/grpc-web+proto"}, b"\0\0\0\0\0"),
    "mcp": ("POST", "/mcp", JSON, b"{}"),
    "mcp, wrong": ("GET", "/mcp", {}, b""),
    "a2a": ("POST", "/a2a/echo", {**JSON, **VERSION}, b'{"jsonrpc": "2.0", "id": 1, "method": "X"}'),
    "a2a, http": ("GET", "/a2a/echo/tasks", VERSION, b""),
    "a2a, card": ("GET", "/a2a/echo/.well-known/agent-card.json", {}, b""),
    "job": ("POST", "/v1/echo:say", {**JSON, "prefer": "respond-async"}, b"{}"),
    "jobs": ("GET", "/v1/jobs", {}, b""),
    "websocket, refused": ("GET", f"/ws{SAY}", {}, b""),
    "agents": ("GET", "/agents", {}, b""),
    "breakers": ("GET", "/breakers", {}, b""),
    "page": ("GET", "/docs", {}, b""),
    "home": ("GET", "/", {}, b""),
    "openapi": ("GET", "/openapi.json", {}, b""),
    "health": ("GET", "/healthz", {}, b""),
    "nothing": ("GET", "/nothing", {}, b""),
    "not allowed": ("DELETE", "/v1/echo/x", {}, b""),
}  # fmt: skip


async def ask(http: httpx.AsyncClient, door: str, **further: str) -> httpx.Response:
    method, path, headers, body = REQUESTS[door]
    return await http.request(method, path, headers={**headers, **further}, content=body)


@pytest.mark.parametrize(
    "door",
    [
        pytest.param(door, marks=pytest.mark.gateway_only(Why.WEB_HEADERS))
        if door == "grpc-web"
        else door
        for door in REQUESTS
    ],
)
async def test_every_answer_has_them_once(http: httpx.AsyncClient, door: str) -> None:
    answer = await ask(http, door)
    assert answer.status_code < 500
    found = [(name.lower(), value) for name, value in answer.headers.multi_items()]
    for name, value in (
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
    ):
        assert [v for n, v in found if n == name] == [value], name
    assert "server" not in answer.headers
    assert "strict-transport-security" not in answer.headers  # not behind TLS
    if door == "page":
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("door", [door for door in REQUESTS if REQUESTS[door][0] == "GET"])
async def test_no_cache_on_the_way_keeps_what_was_made_for_a_caller(
    http: httpx.AsyncClient, door: str
) -> None:
    answer = await ask(http, door, **{"x-request-id": "1"})
    public = {"page", "home", "openapi", "health", "nothing", "websocket, refused", "mcp, wrong"}
    if door == "a2a, card":
        assert "max-age" in answer.headers["cache-control"]
    elif door not in public:
        assert answer.headers["cache-control"] == "no-store"


async def test_refusals_of_callers_are_not_kept(own_with_keys: Any) -> None:
    mesh, good, bad = own_with_keys
    for key, status in ((bad.text, 401), (good.text, 200)):
        answer = await mesh.http.get("/v1/echo/x", headers={"x-api-key": key})
        assert answer.status_code == status
        assert answer.headers["cache-control"] == "no-store"


async def test_a_websocket_has_them_too(entry: Entry) -> None:
    url = f"ws{entry.url.removeprefix('http')}/ws{SAY}"
    async with connect(url) as socket:
        assert socket.response is not None
        assert socket.response.headers["x-content-type-options"] == "nosniff"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, origin="https://elsewhere.example"):  # type: ignore[arg-type]
            pass
    assert refused.value.response.headers["x-content-type-options"] == "nosniff"


async def test_hsts_where_the_operator_says_so(fresh_xds: None, database_url: str) -> None:
    """TLS may end at a proxy before the gateway."""
    async with running(database_url, hsts=timedelta(days=1)) as mesh:
        answer = await mesh.http.get("/healthz")
        assert answer.headers["strict-transport-security"] == "max-age=86400"


BIG = {
    "one header": lambda: {"x-big": "x" * 70_000},
    "many headers": lambda: {f"x-{n}": "1" for n in range(200)},
}


@pytest.mark.parametrize("kind", BIG)
@pytest.mark.parametrize("door", ["rest", "connect, get", "sse", "grpc-web", "mcp", "a2a", "page"])
async def test_a_head_that_is_too_large(http: httpx.AsyncClient, door: str, kind: str) -> None:
    answer = await ask(http, door, **BIG[kind]())
    assert answer.status_code == 431
    assert answer.json()["error"]["details"][0]["reason"] == "HEADERS_TOO_LARGE"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/v1/echo/{}", f"{SAY}?message={{}}", "/mcp?{}", "/a2a/{}", "/agents/{}", "/{}"]
)
async def test_a_target_that_is_too_long(http: httpx.AsyncClient, path: str) -> None:
    wire = wire_to(str(http.base_url))
    assert (await wire.ask("GET", path.format("x" * 70_000))).status == 431
    # And one that is just long is served as any other.
    assert (await http.get(path.format("x" * 50_000))).status_code < 500


async def test_a_websocket_with_too_large_a_head(entry: Entry) -> None:
    url = f"ws{entry.url.removeprefix('http')}/ws{SAY}"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, additional_headers={"x-big": "x" * 70_000}):
            pass
    assert refused.value.response.status_code == 431


@pytest.mark.gateway_only(Why.LARGE_GRPC)
async def test_metadata_that_is_too_large(entry: Entry) -> None:
    async with grpc.aio.insecure_channel(entry.grpc_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(SAY)(b"", metadata=(("x-big", "x" * 70_000),), timeout=20)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_body_that_is_too_large(fresh_xds: None, database_url: str) -> None:
    async with running(database_url, max_body=4096) as mesh:
        await routed(mesh.http)
        for door in ("rest", "sse", "connect", "connect, stream", "grpc-web", "mcp", "a2a", "job"):
            method, path, headers, _ = REQUESTS[door]
            framed = door in {"connect, stream", "grpc-web"}
            body = b"\0\0\0\x13\x88" + b"x" * 5000 if framed else b"{" + b" " * 5000
            answer = await mesh.http.request(method, path, headers=headers, content=body)
            assert answer.status_code == (200 if framed else 413), door
            assert b"larger than 4096 bytes" in answer.content
