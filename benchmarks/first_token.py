"""How much later the first token comes through the gateway than from the model itself.

A model server that takes 10 ms before each event of a stream, an agent that streams what its model says, registry, gateway,
PostgreSQL with the ledger, and Redis, each in a process of its own. One question at a time, in turn to the model server by bare
HTTP and to the gateway by SSE, WebSocket and gRPC, on connections that are open; from sending it to the first piece of text.

sse_added_ms, websocket_added_ms, grpc_added_ms   p50 of first pieces through the gateway - p50 of the model server's
agent_added_ms                                    the same of a gRPC call of the agent, with no gateway between
sse_vs_model, ...                                 time to the first piece / that of the model server in the same round
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import measure
import uvloop
from websockets.asyncio.client import connect

from weft import config, embedded
from weft.agents import Host, llm
from weft.agents.echo import Echo
from weft.config import ModelChoice, ModelEndpoint
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway import Gateway
from weft.registry import Registry
from weft.rpc.testing import wait_until
from weft.telemetry import Instruments, Telemetry
from weft.testing.messages_server import MessagesServer, scenarios

MODEL = "claude-sonnet-5-5"
PAUSE = 0.01  # seconds
SAID = "an answer of some words, " * 4
METHOD = "weft.echo.v1.EchoService/Repeat"
WARMING = 10  # rounds
First = Callable[[], Awaitable[float]]


class Streams(Echo):
    """Gives what its model says, piece by piece."""

    def __init__(self, model: llm.Model) -> None:
        super().__init__()
        self._model = model

    async def Repeat(
        self, request: echo_pb2.RepeatRequest, context: Any
    ) -> AsyncIterator[echo_pb2.RepeatResponse]:
        """Streams an answer."""
        del context
        async with self._model.stream(request.text, max_tokens=200) as stream:
            async for delta in stream:
                yield echo_pb2.RepeatResponse(text=delta.text)


async def serve_model() -> None:
    """The model server."""
    async with MessagesServer() as server:
        server.always(MODEL, scenarios.text(SAID, pause=PAUSE))
        print(server.url, flush=True)
        while True:  # what it is asked it remembers
            await asyncio.sleep(1)
            server.requests.clear()


async def serve_registry(database_url: str) -> None:
    """The registry."""
    async with Registry(
        database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0)
    ) as registry:
        print(registry.address, flush=True)
        await asyncio.Event().wait()


async def serve_agent(registry: str, database_url: str, model_url: str) -> None:
    """The agent."""
    settings = config.Settings(
        database_url=database_url,
        models={"echo": ModelChoice(name="echo", model=MODEL, endpoint="here")},
        endpoints={"here": ModelEndpoint(name="here", url=model_url)},
    )
    watched = Telemetry(metrics=Instruments("agents"))
    async with llm.models_of(settings, watched) as models:
        await models.warm()
        async with Host(registry=registry, telemetry=watched, models=models) as host:
            host.add(Streams(host.mesh.models["echo"]))
            await host.start()
            print(host.server.address, flush=True)
            await asyncio.Event().wait()


async def serve_gateway(registry: str, database_url: str, redis_url: str) -> None:
    """The gateway."""
    gateway = Gateway(
        registry=registry,
        database_url=database_url,
        redis_url=redis_url,
        listen="127.0.0.1:0",
        grpc_listen="127.0.0.1:0",
        telemetry=Telemetry(metrics=Instruments("gateway")),
    )
    async with gateway:
        await gateway.ready()
        print(gateway.url.removeprefix("http://"), gateway.grpc_address, flush=True)
        await asyncio.Event().wait()


ROLES: dict[str, Callable[..., Any]] = {
    "model": serve_model,
    "registry": serve_registry,
    "agent": serve_agent,
    "gateway": serve_gateway,
}


def by_http(
    address: str, path: str, body: object, mark: bytes
) -> Callable[[contextlib.AsyncExitStack], Awaitable[First]]:
    """Makes requests on one connection, whose first piece is in a line that begins so."""
    text = json.dumps(body).encode()
    request = (
        f"POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\naccept: text/event-stream\r\n"
        f"content-length: {len(text)}\r\n\r\n"
    ).encode() + text

    async def made(stack: contextlib.AsyncExitStack) -> First:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        stack.callback(writer.close)

        async def first() -> float:
            began, found = time.perf_counter(), 0.0
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise ConnectionError(head.decode())
            while (line := await reader.readline()) != b"0\r\n":  # of the last chunk
                if not line:
                    raise ConnectionError(path)
                if not found and line.startswith(mark):
                    found = time.perf_counter() - began
            await reader.readline()
            return found

        return first

    return made


def by_websocket(address: str) -> First:
    """A call for each WebSocket; it is open when the question is sent."""

    async def first() -> float:
        async with connect(f"ws://{address}/ws/{METHOD}") as socket:
            began = time.perf_counter()
            await socket.send(json.dumps({"text": "hi"}))
            await socket.recv()
            found = time.perf_counter() - began
            async for _ in socket:
                pass
            return found

    return first


def by_grpc(channel: grpc.aio.Channel) -> First:
    """A call of the echo service."""
    stub: Any = echo_pb2_grpc.EchoServiceStub(channel)

    async def first() -> float:
        began, found = time.perf_counter(), 0.0
        async for _ in stub.Repeat(echo_pb2.RepeatRequest(text="hi")):
            found = found or time.perf_counter() - began
        return found

    return first


async def routed(gateway: str) -> None:
    """Waits until the gateway knows the agent."""
    async with httpx.AsyncClient(base_url=gateway) as client:

        async def served() -> bool:
            return (await client.get("/v1/echo/hi")).status_code == httpx.codes.OK

        await wait_until(served, timedelta(seconds=30))


@contextlib.asynccontextmanager
async def ways() -> AsyncIterator[dict[str, First]]:
    """Every way to a first token, by name."""
    async with contextlib.AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = await stack.enter_async_context(embedded.launch(data))
        start = await stack.enter_async_context(measure.children(__file__))
        model_url = start("model").told
        registry = start("registry", servers.database_url).told
        agent = start("agent", registry, servers.database_url, model_url).told
        told = start("gateway", registry, servers.database_url, servers.redis_url).told
        http, gateway_grpc = told.split()
        asked = {"model": MODEL, "max_tokens": 200, "stream": True}
        asked["messages"] = [{"role": "user", "content": "hi"}]
        model = model_url.removeprefix("http://")
        await routed(f"http://{http}")
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(each))
            for each in (agent, gateway_grpc)
        ]
        yield {
            "model": await by_http(model, "/v1/messages", asked, b"event: content_block_delta")(
                stack
            ),
            "agent": by_grpc(channels[0]),
            "sse": await by_http(http, "/v1/echo:repeat", {"text": "hi"}, b"data: {")(stack),
            "websocket": by_websocket(http),
            "grpc": by_grpc(channels[1]),
        }


async def run(rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Measures in rounds, each way once in each."""
    async with ways() as found:
        names = list(found)
        times: dict[str, list[float]] = {name: [] for name in names}
        for number in range(-WARMING, rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                took = await found[name]()
                if number >= 0:
                    times[name].append(took * 1e3)
            if number % 25 == 0 or number == rounds - 1:
                done = " done" if number == rounds - 1 else ""
                measure.progress(f"round {number + 1} of {rounds}{done}")
    median = {name: statistics.median(values) for name, values in times.items()}
    figures: dict[str, Any] = {"model_ms": round(median["model"], 2)}
    ratios = {}
    for name in ("sse", "websocket", "grpc", "agent"):
        figures[f"{name}_added_ms"] = round(median[name] - median["model"], 2)
        ratios[f"{name}_vs_model"] = [
            each / model for each, model in zip(times[name], times["model"], strict=True)
        ]
    return ratios, figures


def main() -> None:
    """Runs a role, or the measurement."""
    parser = measure.arguments(__doc__, rounds=100)
    options = parser.parse_args()
    if options.role:
        uvloop.run(ROLES[options.role](*options.rest))
        sys.exit()
    ratios, figures = asyncio.run(run(options.rounds))
    measure.report(ratios, figures, as_json=options.json)


if __name__ == "__main__":
    main()
