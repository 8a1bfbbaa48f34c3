"""What JSON costs the gateway.

CPU of a 1 KB JSON -> gRPC -> 1 KB JSON request at the Connect door, against the same call with constant bytes and
no mapping (same doors, guards, channel and agent), in interleaved rounds.

cpu_vs_no_mapping   CPU seconds of the gateway process per request, with mapping / without
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure
import uvloop
from google.protobuf import json_format

from weft import embedded
from weft.agents import Host
from weft.gateway import Gateway
from weft.registry import Registry
from weft.support.v1 import quality_pb2, quality_pb2_grpc, support_pb2
from weft.telemetry import Instruments, Telemetry

_PATH = "/weft.support.v1.QualityService/Review"
_CONNECTIONS = 16


def request() -> quality_pb2.ReviewRequest:
    """A request of about 1 KB as JSON: nested and repeated messages, numbers, enums, text."""
    passage = support_pb2.Passage(
        passage_id="card-arrival#how-long-it-takes",
        article_id="card-arrival",
        title="When your card arrives",
        heading="How long it takes",
        text="A new card arrives within five working days. Outside the country allow ten.",
        score=0.71875,
    )
    citation = support_pb2.Citation(
        number=1,
        passage_id=passage.passage_id,
        article_id=passage.article_id,
        title=passage.title,
        quote="A new card arrives within five working days.",
    )
    answer = support_pb2.Answer(
        text="A new card arrives within five working days. [1]",
        citations=[citation],
        origin=support_pb2.ORIGIN_EXTRACTIVE,
        confidence=0.8125,
    )
    return quality_pb2.ReviewRequest(
        question="I am still waiting on my card, what can I do?",
        answer=answer,
        passages=[passage, passage],
    )


def response() -> quality_pb2.ReviewResponse:
    """A reply of about 1 KB as JSON."""
    finding = support_pb2.Finding(
        check="grounding", detail="The sentence is not supported by what it cites.", sentence=2
    )
    return quality_pb2.ReviewResponse(
        verdict=support_pb2.Verdict(decision=support_pb2.DECISION_REVISE, findings=[finding] * 9)
    )


class Quality(quality_pb2_grpc.QualityServiceServicer):
    """Gives a constant answer."""

    async def Review(self, request: quality_pb2.ReviewRequest, context: Any) -> Any:  # noqa: ARG002
        """Gives a constant answer."""
        return response()


class Constant:
    """A codec that maps nothing."""

    def __init__(self, result: bytes) -> None:
        self.result = result

    def to_wire(self, body: bytes) -> bytes:  # noqa: ARG002
        """The same bytes for every body."""
        return self.result

    parse = to_json = to_wire


async def serve_registry(database_url: str) -> None:
    """The registry."""
    async with Registry(database_url=database_url, address="127.0.0.1:0") as registry:
        print(registry.address, flush=True)
        await asyncio.Event().wait()


async def serve_agent(registry: str) -> None:
    """The agent behind both gateways."""
    async with Host(registry=registry) as host:
        host.add(Quality())
        await host.start()
        print(host.server.address, flush=True)
        await host.wait()


async def serve_gateway(registry: str, database_url: str, mapping: str) -> None:
    """A gateway, with mapping or without."""
    gateway = Gateway(
        registry=registry,
        database_url=database_url,
        listen="127.0.0.1:0",
        grpc_listen="127.0.0.1:0",
        telemetry=Telemetry(metrics=Instruments("gateway")),
    )
    async with gateway:
        await gateway.ready()
        if mapping == "constant":
            catalog = gateway._app.catalog  # noqa: SLF001 the mapping is all that is taken out
            json = json_format.MessageToJson(response(), indent=None).encode()
            plain = dataclasses.replace(
                catalog.methods[_PATH],
                request_codec=Constant(request().SerializeToString()),
                response_codec=Constant(json),
            )
            catalog.methods = {_PATH: plain}
        print(gateway.url.removeprefix("http://"), flush=True)
        await asyncio.Event().wait()


ROLES = {"registry": serve_registry, "agent": serve_agent, "gateway": serve_gateway}


class Client:
    """Sends one prepared request over and over on connections that stay open."""

    def __init__(self, address: str) -> None:
        body = json_format.MessageToJson(request(), indent=None).encode()
        head = (
            f"POST {_PATH} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        self.sizes = (len(body), 0)
        self.address = address
        self.request = head.encode() + body
        self.free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self.free = asyncio.Queue()

    async def connect(self) -> None:
        """Opens the connections and checks one answer."""
        host, _, port = self.address.rpartition(":")
        for _ in range(_CONNECTIONS):
            self.free.put_nowait(await asyncio.open_connection(host, int(port)))
        body = await self.call()
        assert json_format.Parse(body, quality_pb2.ReviewResponse()) == response()
        self.sizes = (self.sizes[0], len(body))

    async def call(self) -> bytes:
        """One request."""
        reader, writer = await self.free.get()
        writer.write(self.request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        body = await reader.readexactly(length)
        self.free.put_nowait((reader, writer))
        return body


async def run(rounds: int, seconds: float) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Measures both gateways in rounds."""
    cpu: dict[str, list[float]] = {"mapping": [], "constant": []}
    async with contextlib.AsyncExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory())
        servers = await stack.enter_async_context(embedded.launch(Path(data)))
        start = await stack.enter_async_context(measure.children(__file__))
        registry = start("registry", servers.database_url)
        start("agent", registry.told)
        gateways = {k: start("gateway", registry.told, servers.database_url, k) for k in cpu}
        clients = {k: Client(child.told) for k, child in gateways.items()}
        for client in clients.values():
            await client.connect()
        for number in range(rounds + 1):
            for kind in sorted(cpu, reverse=bool(number % 2)):
                before = gateways[kind].cpu()
                rate = await measure.rate(
                    clients[kind].call, seconds=seconds, in_flight=_CONNECTIONS
                )
                if number:
                    cpu[kind].append((gateways[kind].cpu() - before) / (rate * seconds) * 1e6)
            measure.progress(f"round {number} of {rounds}" + (" done" if number == rounds else ""))
    sizes = clients["mapping"].sizes
    ratios = {
        "cpu_vs_no_mapping": [
            ours / theirs for ours, theirs in zip(cpu["mapping"], cpu["constant"], strict=True)
        ]
    }
    figures: dict[str, Any] = {
        f"{k}_cpu_us": round(statistics.median(v), 1) for k, v in cpu.items()
    }
    return ratios, {**figures, "request_bytes": sizes[0], "response_bytes": sizes[1]}


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
