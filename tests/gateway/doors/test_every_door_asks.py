"""No door, and no form of one, lets in a caller with no key where keys are asked for."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.gateway.doors.conftest import Wire, wire_to

SAY = "/weft.echo.v1.EchoService/Say"
REPEAT = "/weft.echo.v1.EchoService/Repeat"
EMPTY = b"\0\0\0\0\0"

# Method, path, content type, body; what is wrong with some of them is not told before who calls is known.
REQUESTS = [
    ("POST", SAY, "application/json", b"{}"),
    ("POST", SAY, "application/json", b"{"),
    ("POST", SAY, "application/proto", b""),
    ("POST", SAY, "application/grpc", b""),
    ("POST", SAY, "text/plain", b"a"),
    ("GET", f"{SAY}?encoding=json&message=%7B%7D", "", b""),
    ("GET", f"{SAY}?", "", b""),
    ("HEAD", f"{SAY}?encoding=json&message=%7B%7D", "", b""),
    ("POST", REPEAT, "application/json", b"{}"),
    ("POST", REPEAT, "application/proto", b""),
    ("POST", "/v1/echo:say", "application/json", b"{}"),
    ("POST", "/v1/echo:say", "text/plain", b"a"),
    ("POST", "/v1/echo:repeat", "application/json", b"{"),
    ("GET", "/v1/echo/a", "", b""),
    ("HEAD", "/v1/echo/a", "", b""),
    ("POST", "/a2a/echo", "application/json", b"{"),
    ("POST", "/a2a/-/message:send", "application/json", b"{"),
    ("POST", "/a2a/echo/message:stream", "text/plain", b"a"),
    ("GET", "/a2a/echo/tasks", "", b""),
    ("GET", "/a2a/echo/nothing", "", b""),
    ("GET", "/a2a/echo/extendedAgentCard", "", b""),
    ("GET", "/agents", "", b""),
    ("GET", "/agents/echo", "", b""),
    ("GET", "/agents/nobody", "", b""),
]
FRAMED = [
    (REPEAT, "application/connect+json", EMPTY),
    (REPEAT, "application/connect+proto", b"cut"),
    (SAY, "application/grpc-web+proto", EMPTY),
    (SAY, "application/grpc-web+json", b""),
    (REPEAT, "application/grpc-web", EMPTY),
    (REPEAT, "application/grpc-web-text", base64.b64encode(EMPTY)),
    (SAY, "application/grpc-web-text", b"!"),
]


async def framed_status(wire: Wire, path: str, kind: str, body: bytes, **key: str) -> str:
    given = {name.replace("_", "-"): value for name, value in key.items()}
    answer = await wire.ask("POST", path, {"content-type": kind} | given, body)
    assert answer.status == 200
    text = base64.b64decode(answer.body) if "text" in kind else answer.body
    if "connect" in kind:
        return json.loads(text[text.rindex(b'{"error"') :])["error"]["code"]
    return text.split(b"grpc-status: ")[1].split(b"\r\n")[0].decode()


@pytest.mark.parametrize("scheme", ["none", "revoked"])
async def test_who_has_no_key(own_with_keys: Any, scheme: str) -> None:
    mesh, good, revoked = own_with_keys
    wire = wire_to(mesh.gateway.url)
    key = {} if scheme == "none" else {"x-api-key": revoked.text}
    for method, path, kind, body in REQUESTS:
        headers = {"content-type": kind} | key if kind else key
        answer = await wire.ask(method, path, headers, body)
        assert answer.status == 401, (method, path, kind)
        assert "www-authenticate" in answer.headers
        if method != "HEAD":
            assert b"KEY_" in answer.body
    underscored = {name.replace("-", "_"): value for name, value in key.items()}
    for path, kind, body in FRAMED:
        status = await framed_status(wire, path, kind, body, **underscored)
        assert status in {"unauthenticated", "16"}, (path, kind)
    listed = await wire.ask("GET", "/agents", {"x-api-key": good.text})
    assert listed.status == 200
