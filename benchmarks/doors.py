"""What the doors of the gateway cost.

Requests over 16 connections that stay open, each server in a process of its own, in interleaved rounds; what is counted
is the CPU time of the server's process.

mcp_vs_sdk                 CPU of the gateway per MCP tools/call of an agent's skill / CPU of the MCP SDK's own
                           low-level server whose tool calls the same agent with a generated stub on a bare channel
mcp_vs_sdk_without_agent   the same / CPU of that server when its tool answers itself and calls nobody
a2a_vs_sdk   A2A SendMessage with a task per CPU second of the gateway (tasks in PostgreSQL) / the same of the A2A SDK's
             own server (tasks in memory) whose agent makes the same call of the same agent
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import a2a_sdk
import grpc
import measure
import uvicorn
import uvloop
from google.protobuf import json_format
from mcp import types
from mcp.server import Server

from weft import embedded
from weft.agents import Host
from weft.agents.echo import Echo
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


async def serve_agent(registry: str) -> None:
    """The agent behind every server."""
    async with Host(registry=registry) as host:
        host.add(Echo("one"))
        await host.start()
        print(host.server.address, flush=True)
        await host.wait()


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


ROLES = {
    "registry": serve_registry,
    "agent": serve_agent,
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
    """Makes one request over and over on connections that stay open."""

    def __init__(self, address: str, request: bytes, answered: Callable[[bytes], bool]) -> None:
        self.address = address
        self.request = request
        self.answered = answered
        self.free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self.free = asyncio.Queue()

    async def connect(self) -> None:
        """Opens the connections and waits for the right answer."""
        host, _, port = self.address.rpartition(":")
        for _ in range(_CONNECTIONS):
            self.free.put_nowait(await asyncio.open_connection(host, int(port)))

        async def answers() -> bool:
            return self.answered(await self.call())

        await wait_until(answers)

    async def call(self) -> bytes:
        """One request."""
        reader, writer = await self.free.get()
        writer.write(self.request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        body = await reader.readexactly(length)
        self.free.put_nowait((reader, writer))
        return body


@contextlib.asynccontextmanager
async def servers() -> AsyncIterator[dict[str, measure.Child]]:
    """Every server that is measured, by name."""
    async with contextlib.AsyncExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory())
        endpoints = await stack.enter_async_context(embedded.launch(Path(data)))
        start = await stack.enter_async_context(measure.children(__file__))
        registry = start("registry", endpoints.database_url)
        agent = start("agent", registry.told)
        yield {
            "gateway": start("gateway", registry.told, endpoints.database_url),
            "sdk": start("sdk", agent.told),
            "sdk_without_agent": start("sdk"),
            "a2a_sdk": start("a2a_sdk", agent.told),
        }


def client(name: str, address: str) -> Client:
    """Who makes the requests of a measurement."""
    if name.startswith("a2a"):
        path = "/" if name == "a2a_sdk" else "/a2a/echo"
        return Client(address, a2a_sdk.request(address, path), a2a_sdk.answered)
    return Client(address, mcp_request(address), mcp_answered)


async def run(rounds: int, seconds: float) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Measures all servers in rounds."""
    async with servers() as found:
        measured = {**found, "a2a_gateway": found["gateway"]}
        cpu: dict[str, list[float]] = {name: [] for name in measured}
        clients = {name: client(name, child.told) for name, child in measured.items()}
        for each in clients.values():
            await each.connect()
        for number in range(rounds + 1):
            for name in sorted(cpu, reverse=bool(number % 2)):
                before = measured[name].cpu()
                rate = await measure.rate(
                    clients[name].call, seconds=seconds, in_flight=_CONNECTIONS
                )
                if number:
                    cpu[name].append((measured[name].cpu() - before) / (rate * seconds) * 1e6)
            measure.progress(f"round {number} of {rounds}" + (" done" if number == rounds else ""))
    ratios = {
        key: [one / other for one, other in zip(cpu[above], cpu[below], strict=True)]
        for key, above, below in (
            ("mcp_vs_sdk", "gateway", "sdk"),
            ("mcp_vs_sdk_without_agent", "gateway", "sdk_without_agent"),
            ("a2a_vs_sdk", "a2a_sdk", "a2a_gateway"),
        )
    }
    figures = {
        f"{name if name.startswith('a2a') else f'mcp_{name}'}_cpu_us": round(
            statistics.median(values), 1
        )
        for name, values in cpu.items()
    }
    return ratios, figures


def main() -> None:
    """Runs a role, or the measurement."""
    options = measure.arguments(__doc__, rounds=10).parse_args()
    if options.role:
        uvloop.run(ROLES[options.role](*options.rest))  # type: ignore[operator]
        sys.exit()
    ratios, figures = asyncio.run(run(options.rounds, options.seconds))
    measure.report(ratios, figures, as_json=options.json)


if __name__ == "__main__":
    main()
