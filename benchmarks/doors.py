"""What the doors of the gateway cost.

Requests over 16 connections that stay open, each server in a process of its own, in interleaved rounds; what is counted
is the CPU time of the server's process, all its threads together.

rest_vs_envoy              CPU of a gateway with every guard on (token, scope, limit shared in Redis, breaker, retries,
                           metrics, signed identity) per call with JSON of about 1 KB each way / CPU of a real Envoy's
                           JSON transcoder for the same request to the same agent; what guards Envoy has for it is in
                           envoy_transcoder.py
rest_vs_envoy_bare         the same / CPU of an Envoy that has its transcoder and nothing else
mcp_vs_sdk                 CPU of the gateway per MCP tools/call of an agent's skill / CPU of the MCP SDK's own
                           low-level server whose tool calls the same agent with a generated stub on a bare channel
mcp_vs_sdk_without_agent   the same / CPU of that server when its tool answers itself and calls nobody
a2a_vs_sdk   A2A SendMessage with a task per CPU second of the gateway (tasks in PostgreSQL) / the same of the A2A SDK's
             own server (tasks in memory) whose agent makes the same call of the same agent

Of the figures, all of them microseconds of CPU: hello is a bare ASGI application that answers the same request with a
constant; hello_call has a bare gRPC call of the same agent in between, and grpc_call is the difference; sse_message is
one message of 100 bytes as a server-sent event through the gateway with every guard on, in streams of 100 that the agent
sends as fast as it can; sse_message_paced the same where it waits a millisecond between two; rest_idempotent is a call
with an idempotency key that is new each time; rest_cached a call that is answered from the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import a2a_sdk
import envoy_transcoder
import grpc
import guarded
import measure
import uvicorn
import uvloop
from google.protobuf import json_format
from mcp import types
from mcp.server import Server

from weft import embedded
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway import Gateway
from weft.registry import Registry
from weft.rpc.testing import wait_until
from weft.telemetry import Instruments, Telemetry

_CONNECTIONS = 16
_TOOL = "echo_say"
_ARGUMENTS = {"text": "hello"}
_VERSION = "2026-07-28"
_META = "io.modelcontextprotocol/"


async def serve_registry(database_url: str) -> None:
    """The registry."""
    async with Registry(database_url=database_url, address="127.0.0.1:0") as registry:
        print(registry.address, flush=True)
        await asyncio.Event().wait()


async def serve_gateway(registry: str, database_url: str) -> None:
    """The gateway."""
    gateway = Gateway(
        registry=registry,
        database_url=database_url,
        listen="127.0.0.1:0",
        grpc_listen="127.0.0.1:0",
        telemetry=Telemetry(metrics=Instruments("gateway")),
    )
    async with gateway:
        await gateway.ready()
        print(gateway.url.removeprefix("http://"), flush=True)
        await asyncio.Event().wait()


async def serve_sdk(agent: str = "") -> None:
    """The MCP SDK's low-level server; its tool calls the agent, or without one answers itself."""
    async with contextlib.AsyncExitStack() as stack:
        stub: Any = None
        if agent:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(agent))
            stub = echo_pb2_grpc.EchoServiceStub(channel)

        async def call_tool(_: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
            request = json_format.ParseDict(params.arguments or {}, echo_pb2.SayRequest())
            answer = await stub.Say(request) if stub else echo_pb2.SayResponse(text=request.text)
            said = json_format.MessageToDict(answer)
            return types.CallToolResult(
                content=[types.TextContent(type="text", text=json.dumps(said))],
                structured_content=said,
            )

        async def list_tools(_: Any, __: Any) -> types.ListToolsResult:
            tool = types.Tool(name=_TOOL, description="Says back.", input_schema={"type": "object"})
            return types.ListToolsResult(tools=[tool])

        app = Server("echo", on_list_tools=list_tools, on_call_tool=call_tool)
        config = uvicorn.Config(
            app.streamable_http_app(stateless_http=True, json_response=True),
            host="127.0.0.1",
            port=0,
            http="httptools",
            loop="none",
            access_log=False,
            timeout_keep_alive=120,
            log_level="warning",
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        await wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        print(f"127.0.0.1:{port}", flush=True)
        await serving


async def serve_envoy(*args: str) -> None:
    """An Envoy."""
    envoy_transcoder.execute(*args)


ROLES = {
    **guarded.ROLES,
    "envoy": serve_envoy,
    "registry": serve_registry,
    "gateway": serve_gateway,
    "sdk": serve_sdk,
    "a2a_sdk": a2a_sdk.serve,
}


def mcp_request(address: str) -> bytes:
    """A tools/call, as bytes of HTTP."""
    meta = {_META + "protocolVersion": _VERSION, _META + "clientCapabilities": {}}
    params = {"name": _TOOL, "arguments": _ARGUMENTS, "_meta": meta}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    body = json.dumps(message).encode()
    head = (
        f"POST /mcp HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n"
        f"accept: application/json, text/event-stream\r\nmcp-protocol-version: {_VERSION}\r\n"
        f"mcp-method: tools/call\r\nmcp-name: {_TOOL}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def mcp_answered(body: bytes) -> bool:
    """Whether the tool said the right thing."""
    result = json.loads(body).get("result", {})
    return bool(result.get("structuredContent", {}).get("text") == _ARGUMENTS["text"])


class Client:
    """Makes one request over and over on connections that stay open.

    Args:
        request: as bytes of HTTP; where {key} stands, every request has something of its own.
    """

    def __init__(self, address: str, request: bytes, answered: Callable[[bytes], bool]) -> None:
        host, _, port = address.rpartition(":")
        self._place = (host, int(port))
        self.request = request
        self.answered = answered
        self.keys = itertools.count() if b"{key}" in request else None
        self.free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self.free = asyncio.Queue()

    async def connect(self) -> None:
        """Opens the connections and waits for the right answer."""
        for _ in range(_CONNECTIONS):
            self.free.put_nowait(await asyncio.open_connection(*self._place))

        async def answers() -> bool:
            return self.answered(await self.call())

        await wait_until(answers, timedelta(seconds=20))

    async def call(self) -> bytes:
        """One request."""
        reader, writer = await self.free.get()
        if reader.at_eof():  # closed, as it was idle for the length of the other measurements
            writer.close()
            reader, writer = await asyncio.open_connection(*self._place)
        request = self.request
        if self.keys is not None:
            request = request.replace(b"{key}", b"%032d" % next(self.keys))
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, found, rest = head.partition(b"content-length: ")
        if found:
            body = await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
        else:
            body = await reader.readuntil(b"\r\n0\r\n\r\n")
        self.free.put_nowait((reader, writer))
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A server, and what is asked of it.

    Attributes:
        units: what a call counts for.
    """

    server: measure.Child
    client: Client
    units: int = 1


@contextlib.asynccontextmanager
async def servers() -> AsyncIterator[dict[str, Measured]]:
    """Everything that is measured, by name."""
    async with contextlib.AsyncExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory())
        folder = Path(data) / "doors"
        folder.mkdir()
        token = guarded.prepare(folder)
        endpoints = await stack.enter_async_context(embedded.launch(Path(data)))
        start = await stack.enter_async_context(measure.children(__file__))
        keys = start("guarded_keys", str(folder)).told
        registry = start("registry", endpoints.database_url).told
        agent = start("guarded_agent", registry, str(folder)).told
        gateway = start("gateway", registry, endpoints.database_url)
        rest = start(
            *("guarded_gateway", registry, endpoints.database_url, endpoints.redis_url, keys)
        )
        behind = ("envoy", str(folder), guarded.SERVICE, agent)
        measured = {
            **{
                f"mcp_{name}": _mcp(server)
                for name, server in (
                    ("gateway", gateway),
                    ("sdk", start("sdk", agent)),
                    ("sdk_without_agent", start("sdk")),
                )
            },
            "a2a_gateway": _a2a(gateway, "/a2a/echo"),
            "a2a_sdk": _a2a(start("a2a_sdk", agent), "/"),
            **{
                name: _rest(server, token)
                for name, server in (
                    ("rest_gateway", rest),
                    (
                        "rest_envoy",
                        start(*behind, guarded.ISSUER, guarded.AUDIENCE, guarded.SCOPE),
                    ),
                    ("rest_envoy_bare", start(*behind)),
                    ("hello", start("hello")),
                    ("hello_call", start("hello_call", agent)),
                )
            },
            "rest_idempotent": _rest(rest, token, "file", "idempotency-key: {key}\r\n"),
            "rest_cached": _rest(rest, token, "known"),
            "sse_message": _sse(rest, token),
            "sse_message_paced": _sse(rest, token, "0.001s"),
        }
        for each in measured.values():
            await each.client.connect()
        yield measured


def _mcp(server: measure.Child) -> Measured:
    return Measured(
        server=server, client=Client(server.told, mcp_request(server.told), mcp_answered)
    )


def _a2a(server: measure.Child, path: str) -> Measured:
    request = a2a_sdk.request(server.told, path)
    return Measured(server=server, client=Client(server.told, request, a2a_sdk.answered))


def _rest(server: measure.Child, token: str, verb: str = "review", more: str = "") -> Measured:
    request = guarded.review(server.told, token, verb, more)
    return Measured(server=server, client=Client(server.told, request, guarded.reviewed))


def _sse(server: measure.Child, token: str, pause: str = "") -> Measured:
    client = Client(server.told, guarded.stream(server.told, token, pause), guarded.streamed)
    return Measured(server=server, client=client, units=guarded.MESSAGES)


_RATIOS = (
    ("rest_vs_envoy", "rest_gateway", "rest_envoy"),
    ("rest_vs_envoy_bare", "rest_gateway", "rest_envoy_bare"),
    ("mcp_vs_sdk", "mcp_gateway", "mcp_sdk"),
    ("mcp_vs_sdk_without_agent", "mcp_gateway", "mcp_sdk_without_agent"),
    ("a2a_vs_sdk", "a2a_sdk", "a2a_gateway"),
)


async def run(
    rounds: int, seconds: float, only: str
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Measures everything in rounds."""
    async with servers() as found:
        measured = {name: each for name, each in found.items() if name.startswith(only)}
        cpu: dict[str, list[float]] = {name: [] for name in measured}
        for number in range(rounds + 1):
            for name in sorted(cpu, reverse=bool(number % 2)):
                one = measured[name]
                before = one.server.cpu()
                rate = await measure.rate(one.client.call, seconds=seconds, in_flight=_CONNECTIONS)
                if number:
                    spent = (one.server.cpu() - before) / (rate * seconds) / one.units
                    cpu[name].append(spent * 1e6)
            measure.progress(f"round {number} of {rounds}" + (" done" if number == rounds else ""))
    if "hello_call" in cpu and "hello" in cpu:
        cpu["grpc_call"] = [
            both - least for both, least in zip(cpu["hello_call"], cpu["hello"], strict=True)
        ]
    ratios = {
        key: [one / other for one, other in zip(cpu[above], cpu[below], strict=True)]
        for key, above, below in _RATIOS
        if above in cpu and below in cpu
    }
    figures = {
        f"{name}_cpu_us": round(statistics.median(values), 1) for name, values in cpu.items()
    }
    return ratios, figures


def main() -> None:
    """Runs a role, or the measurement."""
    parser = measure.arguments(__doc__, rounds=10)
    parser.add_argument("--only", default="", help="what begins so, such as rest (all)")
    options = parser.parse_args()
    if options.role:
        uvloop.run(ROLES[options.role](*options.rest))  # type: ignore[operator]
        sys.exit()
    ratios, figures = asyncio.run(run(options.rounds, options.seconds, options.only))
    measure.report(ratios, figures, as_json=options.json)


if __name__ == "__main__":
    main()
