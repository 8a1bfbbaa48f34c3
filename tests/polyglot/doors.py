"""Every door of the gateway, as a call to echo.Say or one of its streams: what each caller is told."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import grpc
import httpx
from tests.gateway.doors import mcp_client
from tests.gateway.doors.a2a_client import URI, VERSION
from websockets.asyncio.client import connect

from weft import rpc
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway import Gateway

SERVICE = "weft.echo.v1.EchoService"
COUNT = 3
_IDS = itertools.count(1)

Door = Callable[[Gateway, httpx.AsyncClient, str], Awaitable[list[str]]]


def _frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def _messages(content: bytes) -> list[bytes]:
    """The messages of an enveloped body; its trailer, which has a flag, is left out."""
    found = []
    while content:
        size = int.from_bytes(content[1:5], "big")
        if content[0] == 0:
            found.append(content[5 : 5 + size])
        content = content[5 + size :]
    return found


async def rest(_: Gateway, http: httpx.AsyncClient, text: str) -> list[str]:
    answers = [
        await http.get(f"/v1/echo/{text}"),
        await http.post("/v1/echo:say", json={"text": text}),
    ]
    return [answer.raise_for_status().json()["text"] for answer in answers]


async def sse(_: Gateway, http: httpx.AsyncClient, text: str) -> list[str]:
    answer = await http.post(
        "/v1/echo:repeat",
        json={"text": text, "count": COUNT},
        headers={"accept": "text/event-stream"},
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [one["text"] for one in mcp_client.sse(answer.text) if "text" in one]


async def connect_unary(_: Gateway, http: httpx.AsyncClient, text: str) -> list[str]:
    as_json = await http.post(f"/{SERVICE}/Say", json={"text": text})
    as_proto = await http.post(
        f"/{SERVICE}/Say",
        content=echo_pb2.SayRequest(text=text).SerializeToString(),
        headers={"content-type": "application/proto"},
    )
    return [as_json.json()["text"], echo_pb2.SayResponse.FromString(as_proto.content).text]


async def connect_stream(_: Gateway, http: httpx.AsyncClient, text: str) -> list[str]:
    answer = await http.post(
        f"/{SERVICE}/Repeat",
        content=_frame(json.dumps({"text": text, "count": COUNT}).encode()),
        headers={"content-type": "application/connect+json"},
    )
    return [json.loads(one)["text"] for one in _messages(answer.content)]


async def grpc_web(_: Gateway, http: httpx.AsyncClient, text: str) -> list[str]:
    request = echo_pb2.RepeatRequest(text=text, count=COUNT).SerializeToString()
    answer = await http.post(
        f"/{SERVICE}/Repeat",
        content=_frame(request),
        headers={"content-type": "application/grpc-web+proto"},
    )
    return [echo_pb2.RepeatResponse.FromString(one).text for one in _messages(answer.content)]


async def grpc_web_text(_: Gateway, http: httpx.AsyncClient, text: str) -> list[str]:
    request = echo_pb2.SayRequest(text=text).SerializeToString()
    answer = await http.post(
        f"/{SERVICE}/Say",
        content=base64.b64encode(_frame(request)),
        headers={"content-type": "application/grpc-web-text"},
    )
    first = answer.text[: answer.text.index("=") + 1].rstrip("=") if "=" in answer.text else ""
    content = base64.b64decode((first or answer.text) + "==")
    return [echo_pb2.SayResponse.FromString(one).text for one in _messages(content)]


async def raw_grpc(gateway: Gateway, _: httpx.AsyncClient, text: str) -> list[str]:
    async with rpc.Channel(gateway.grpc_address) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        said = [(await stub.Say(echo_pb2.SayRequest(text=text))).text]
        request = echo_pb2.RepeatRequest(text=text, count=COUNT)
        said += [one.text async for one in stub.Repeat(request)]
        gathered = await stub.Gather(iter([echo_pb2.GatherRequest(text=text)] * COUNT))
        said += gathered.texts
        talk = stub.Talk(iter([echo_pb2.TalkRequest(text=text)] * COUNT))
        return said + [one.text async for one in talk]


async def websocket(gateway: Gateway, _: httpx.AsyncClient, text: str) -> list[str]:
    url = f"ws{gateway.url.removeprefix('http')}/ws/{SERVICE}/Talk"
    async with connect(url) as socket:
        said = []
        for _ in range(COUNT):
            await socket.send(json.dumps({"text": text}))
            said.append(json.loads(await socket.recv())["text"])
        return said


async def mcp(_: Gateway, http: httpx.AsyncClient, text: str) -> list[str]:
    result = await mcp_client.call(http, "echo_say", text=text)
    return [result["structuredContent"]["text"]]


async def a2a(_: Gateway, http: httpx.AsyncClient, text: str) -> list[str]:
    message = {
        "messageId": f"m{next(_IDS)}",
        "role": "ROLE_USER",
        "parts": [{"data": {"text": text}}],
        "metadata": {URI: {"skill": f"{SERVICE}/Say"}},
    }
    answer = await http.post("/a2a/echo/message:send", json={"message": message}, headers=VERSION)
    return _texts(answer.raise_for_status().json())


def _texts(found: Any) -> list[str]:
    """What the artifacts of a task say."""
    artifacts = found["task"]["artifacts"]
    return [part["data"]["text"] for one in artifacts for part in one["parts"] if "data" in part]


async def refused(gateway: Gateway, http: httpx.AsyncClient) -> list[str]:
    """Which field is wrong, as REST, Connect and gRPC tell it."""
    wrong = {"fail_with": 99}
    by_rest = (await http.post("/v1/echo:say", json=wrong)).json()["error"]["details"]
    by_connect = (await http.post(f"/{SERVICE}/Say", json=wrong)).json()["details"]
    found = [one for one in by_rest if "fieldViolations" in one]
    found += [one["debug"] for one in by_connect if "fieldViolations" in one.get("debug", {})]
    fields = [one["fieldViolations"][0]["field"] for one in found]
    async with rpc.Channel(gateway.grpc_address) as channel:
        try:
            await echo_pb2_grpc.EchoServiceStub(channel).Say(echo_pb2.SayRequest(fail_with=99))
        except grpc.aio.AioRpcError as failed:
            error = rpc.error_from_call(failed)
            assert isinstance(error, rpc.InvalidArgument)
            fields += [field for field, _ in error.violations]
    return fields


DOORS: Mapping[str, Door] = MappingProxyType(
    {
        "rest": rest,
        "sse": sse,
        "connect": connect_unary,
        "connect, stream": connect_stream,
        "grpc-web": grpc_web,
        "grpc-web, text": grpc_web_text,
        "grpc": raw_grpc,
        "websocket": websocket,
        "mcp": mcp,
        "a2a": a2a,
    }
)
