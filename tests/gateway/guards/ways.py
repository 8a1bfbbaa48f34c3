"""Every way from outside to the agent vault: each door in each form that it takes."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import grpc
from tests.gateway.doors.a2a_client import URI, VERSION
from tests.gateway.doors.mcp_client import Session, messages, modern
from tests.gateway.guards.house import SERVICE, STREAMS, House
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from weft import rpc

Headers = Mapping[str, str]

_EMPTY = b"\0\0\0\0\0"
_IDS = itertools.count(1)
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a caller was told.

    Attributes:
        status: name of the gRPC status that it means; "OK": the agent, or a job, was reached.
        text: all of it.
        answer: the agent's message, where it is plain to see.
        http: status of HTTP; 0: there is none.
        challenge: WWW-Authenticate.
        missing: scopes that the caller was told it lacks.
    """

    status: str
    text: str
    answer: Any = None
    http: int = 0
    challenge: str = ""
    missing: frozenset[str] = field(default=frozenset())


_Way = Callable[[House, str, Headers], Awaitable[Said]]


def _told(status: str, text: str, **further: Any) -> Said:
    found = text.partition('"missing_scopes":"')[2].partition('"')[0]
    return Said(status=status, text=text, missing=frozenset(found.split()), **further)


def _by_http(answer: Any) -> Said:
    codes = {
        200: "OK", 202: "OK", 400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED",
    }  # fmt: skip
    return _told(
        codes.get(answer.status_code, str(answer.status_code)),
        answer.text,
        http=answer.status_code,
        challenge=answer.headers.get("www-authenticate", ""),
        answer=answer,
    )


async def _post(
    house: House, path: str, headers: Headers, body: bytes = b"{}", **further: str
) -> Any:
    given = {name.replace("_", "-"): value for name, value in further.items()}
    return await house.http.post(path, content=body, headers={**_JSON, **given, **headers})


async def _rest(house: House, method: str, headers: Headers) -> Said:
    return _by_http(await _post(house, f"/v1/vault:{method.lower()}", headers))


async def _rest_get(house: House, method: str, headers: Headers) -> Said:
    del method
    return _by_http(await house.http.get("/v1/vault", headers=dict(headers)))


def _accepting(kind: str) -> _Way:
    async def way(house: House, method: str, headers: Headers) -> Said:
        path = f"/v1/vault:{method.lower()}"
        return _by_http(await _post(house, path, headers, accept=kind))

    return way


async def _job_by_rest(house: House, method: str, headers: Headers) -> Said:
    path = f"/v1/vault:{method.lower()}"
    return _by_http(await _post(house, path, headers, prefer="respond-async"))


async def _job_by_connect(house: House, method: str, headers: Headers) -> Said:
    return _by_http(await _post(house, f"/{SERVICE}/{method}", headers, prefer="respond-async"))


async def _connect(house: House, method: str, headers: Headers) -> Said:
    return _by_http(await _post(house, f"/{SERVICE}/{method}", headers))


async def _connect_proto(house: House, method: str, headers: Headers) -> Said:
    kind = {"content-type": "application/proto", **headers}
    return _by_http(await _post(house, f"/{SERVICE}/{method}", kind, b""))


async def _connect_get(house: House, method: str, headers: Headers) -> Said:
    path = f"/{SERVICE}/{method}?encoding=json&message={quote('{}')}"
    return _by_http(await house.http.get(path, headers=dict(headers)))


def _connect_stream(kind: str, body: bytes) -> _Way:
    async def way(house: House, method: str, headers: Headers) -> Said:
        given = {"content-type": kind, **headers}
        answer = await _post(house, f"/{SERVICE}/{method}", given, body)
        if answer.status_code != 200:
            return _by_http(answer)
        content, last = answer.content, b""
        while content:
            size = int.from_bytes(content[1:5], "big")
            last, content = content[5 : 5 + size], content[5 + size :]
        failed = json.loads(last).get("error")
        status = failed["code"].upper() if failed else "OK"
        return _with_details(status, answer.text, (failed or {}).get("details", ()))

    return way


def _with_details(status: str, text: str, details: Any) -> Said:
    """`text`, with what Connect and gRPC-Web have in binary."""
    shown = text + json.dumps([one.get("debug", {}) for one in details], separators=(",", ":"))
    return _told(status, shown)


def _from_text(content: bytes) -> bytes:
    """What stands in base64, whose pieces may each have been padded."""
    pieces = re.findall(rb"[A-Za-z0-9+/]+=*", content)
    return b"".join(base64.b64decode(piece) for piece in pieces)


def _grpc_web(kind: str) -> _Way:
    async def way(house: House, method: str, headers: Headers) -> Said:
        body = base64.b64encode(_EMPTY) if "text" in kind else _EMPTY
        given = {"content-type": kind, **headers}
        answer = await _post(house, f"/{SERVICE}/{method}", given, body)
        content = _from_text(answer.content) if "text" in kind else answer.content
        lines = content.rpartition(b"grpc-status: ")[2].decode("latin-1").split("\r\n")
        details = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        encoded = details.get("grpc-status-details-bin", "")
        shown = base64.b64decode(encoded + "=" * (-len(encoded) % 4)).decode("latin-1")
        (status,) = (code.name for code in grpc.StatusCode if str(code.value[0]) == lines[0])
        return Said(status=status, text=f"{lines} {shown}")

    return way


async def by_grpc(channel: grpc.aio.Channel, house: House, method: str, headers: Headers) -> Said:
    """A call of gRPC by this channel."""
    streams = STREAMS.get(method, (False, False))
    sides = ["stream" if one else "unary" for one in streams]
    call = getattr(channel, "_".join(sides))(
        f"/{SERVICE}/{method}", response_deserializer=house.messages.LookResponse.FromString
    )
    request = iter([b""]) if streams[0] else b""
    metadata = [
        (name, base64.b64decode(value) if name.endswith("-bin") else value)
        for name, value in headers.items()
    ]
    running = call(request, metadata=tuple(metadata), timeout=20)
    said = None
    try:
        if streams[1]:
            for each in [one async for one in running]:
                said = each
        else:
            said = await running
    except grpc.aio.AioRpcError as failed:
        error = rpc.error_from_call(failed)
        return Said(
            status=failed.code().name,
            text=f"{error.reason} {error.message} {dict(error.metadata)}",
            missing=frozenset(error.metadata.get("missing_scopes", "").split()),
        )
    return Said(status="OK", text=str(said), answer=said)


async def _grpc(house: House, method: str, headers: Headers) -> Said:
    return await by_grpc(house.grpc, house, method, headers)


async def _job_by_grpc(house: House, method: str, headers: Headers) -> Said:
    return await by_grpc(house.grpc, house, method, {"prefer": "respond-async", **headers})


async def _websocket(house: House, method: str, headers: Headers) -> Said:
    url = f"ws{house.gateway.url.removeprefix('http')}/ws/{SERVICE}/{method}"
    async with connect(url, additional_headers=dict(headers)) as socket:
        heard: dict[str, Any] = {}
        with contextlib.suppress(ConnectionClosed):
            await socket.send("{}")
            await socket.send('{"@end": {}}')
            while True:
                heard = json.loads(await socket.recv())
        if socket.close_code == 1000:
            return Said(status="OK", text=str(heard), answer=heard)
        status = heard["@error"]["status"]
        assert socket.close_code == 4000 + grpc.StatusCode[status].value[0]
        return _told(status, json.dumps(heard, separators=(",", ":")))


async def _mcp(house: House, method: str, headers: Headers) -> Said:
    return await _asked_of_mcp(house, "tools/call", {"name": _tool(method)}, headers)


async def _mcp_resource(house: House, method: str, headers: Headers) -> Said:
    del method
    return await _asked_of_mcp(house, "resources/read", {"uri": "vault://read"}, headers)


async def _asked_of_mcp(house: House, asked: str, params: dict[str, Any], headers: Headers) -> Said:
    body, given = modern(asked, params)
    answer = await house.http.post("/mcp", json=body, headers={**given, **headers})
    if answer.status_code in {401, 403}:
        return _by_http(answer)
    return _from_mcp(messages(answer)[-1])


async def _mcp_session(house: House, method: str, headers: Headers) -> Said:
    begun = await house.http.post("/mcp", json={}, headers=dict(headers))
    if begun.status_code in {401, 403}:
        return _by_http(begun)
    session = Session(house.http, dict(headers))
    await session.begin()
    answer = await session.send("tools/call", {"name": _tool(method)})
    return _from_mcp(messages(answer)[-1])


def _from_mcp(message: dict[str, Any]) -> Said:
    """A tool that its caller may not call is not there."""
    text = json.dumps(message)
    failed = "error" in message or message["result"].get("isError")
    return Said(status="NOT_THERE" if failed else "OK", text=text)


def _tool(method: str) -> str:
    return f"vault_{method.lower()}"


def _a2a(operation: str) -> _Way:
    async def way(house: House, method: str, headers: Headers) -> Said:
        message = {
            "messageId": f"m{next(_IDS)}",
            "role": "ROLE_USER",
            "parts": [{"data": {}}],
            "metadata": {URI: {"skill": f"{SERVICE}/{method}"}},
        }
        path, body = f"/a2a/vault/{operation}", {"message": message}
        if not operation.startswith("message:"):
            path = "/a2a/vault"
            body = {"jsonrpc": "2.0", "id": 1, "method": operation, "params": body}
        content = json.dumps(body).encode()
        answer = await _post(house, path, {**VERSION, **headers}, content)
        if answer.status_code != 200:
            return _by_http(answer)
        states = ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_REJECTED")
        (state,) = (one for one in states if one in answer.text)
        return Said(status="OK" if state == states[0] else state, text=answer.text)

    return way


WAYS: Mapping[str, _Way] = MappingProxyType(
    {
        "rest": _rest,
        "rest, get": _rest_get,
        "sse": _accepting("text/event-stream"),
        "ndjson": _accepting("application/x-ndjson"),
        "connect": _connect,
        "connect, proto": _connect_proto,
        "connect, get": _connect_get,
        "connect, stream": _connect_stream("application/connect+json", b"\0\0\0\0\2{}"),
        "connect, stream of proto": _connect_stream("application/connect+proto", _EMPTY),
        "grpc-web": _grpc_web("application/grpc-web+proto"),
        "grpc-web, text": _grpc_web("application/grpc-web-text"),
        "grpc": _grpc,
        "websocket": _websocket,
        "mcp": _mcp,
        "mcp, session": _mcp_session,
        "mcp, resource": _mcp_resource,
        "a2a": _a2a("SendMessage"),
        "a2a, stream": _a2a("SendStreamingMessage"),
        "a2a, http": _a2a("message:send"),
        "a2a, stream by http": _a2a("message:stream"),
        "job by rest": _job_by_rest,
        "job by connect": _job_by_connect,
        "job by grpc": _job_by_grpc,
    }
)
# By these the answer, and what is wrong, is that of plain HTTP.
HTTP = frozenset(
    {"rest", "rest, get", "sse", "ndjson", "connect", "connect, proto", "connect, get"}
)
# By these what an agent is called for comes later.
JOBS = frozenset(way for way in WAYS if way.startswith("job"))


def ways_to(method: str) -> list[str]:
    """The ways by which a method can be called."""
    takes_stream, gives_stream = STREAMS.get(method, (False, False))
    if takes_stream:
        return ["grpc", "websocket"]
    shut = {"rest, get", "connect, get", "mcp, resource"} if method != "Read" else set()
    if gives_stream:
        shut |= {"rest", "connect, proto"}
    else:
        shut |= {"sse", "ndjson", "connect, stream", "connect, stream of proto"}
    return [way for way in WAYS if way not in shut]
