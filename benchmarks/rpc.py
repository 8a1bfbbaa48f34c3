"""What the mesh costs a call, against bare grpc.aio, in one interleaved run.

runtime_sequential, runtime_32   a call through rpc.Channel and an agent's Host (identity, deadline, metrics,
                                 tracing sampled at 1 %) / a bare grpc.aio call; one caller, 32 in flight
xds_32                           the same at xds:///echo / the same by address, 32 in flight
gateway_hop                      a call through the gateway's gRPC door / through a bare bytes proxy, 32 in flight
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import measure
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from weft import embedded, rpc
from weft.agents import Host
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway import Gateway
from weft.registry import Registry
from weft.telemetry import Instruments, Late, PlannedIds, Telemetry
from weft.v1.identity_pb2 import Identity

_SAY = "/weft.echo.v1.EchoService/Say"
_TURNS = (0, 1, 1, 0, 1, 0, 0, 1)
_REQUEST = echo_pb2.SayRequest(text="x" * 100)


class Least(Echo):
    """The least a method can do."""

    async def Say(self, request: echo_pb2.SayRequest, context: Any) -> echo_pb2.SayResponse:  # noqa: ARG002
        """Says it back."""
        return echo_pb2.SayResponse(text=request.text)


def telemetry(service: str) -> Telemetry:
    """Metrics on, traces sampled at 1 %, failed and slow calls kept; spans are batched and kept nowhere."""
    ids = PlannedIds()
    provider = TracerProvider(id_generator=ids, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    tracer = provider.get_tracer("weft")
    return Telemetry(
        metrics=Instruments(service),
        tracer=tracer,
        sample_ratio=0.01,
        late=Late(tracer, ids, slow=5.0),
    )


async def serve_bare() -> None:
    """A bare grpc.aio server."""
    server = grpc.aio.server()
    echo_pb2_grpc.add_EchoServiceServicer_to_server(Least(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def serve_agent(registry: str) -> None:
    """The same servicer as an agent."""
    async with Host(registry=registry, telemetry=telemetry("echo")) as host:
        host.add(Least())
        await host.start()
        print(host.server.address, flush=True)
        await host.wait()


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
        telemetry=telemetry("gateway"),
    )
    async with gateway:
        await gateway.ready()
        print(gateway.grpc_address, flush=True)
        await asyncio.Event().wait()


class Proxy(grpc.GenericRpcHandler):
    """The least a proxy can do: one method, bytes in, bytes out."""

    def __init__(self, target: str) -> None:
        self.call: Any = grpc.aio.insecure_channel(target).unary_unary(_SAY)
        self.handler: Any = grpc.unary_unary_rpc_method_handler(self.serve)

    async def serve(self, request: bytes, context: Any) -> bytes:  # noqa: ARG002
        """Passes a call on."""
        response: bytes = await self.call(request, timeout=30)
        return response

    def service(self, handler_call_details: Any) -> Any:  # noqa: ARG002
        """The handler of any method."""
        return self.handler


async def serve_proxy(target: str) -> None:
    """A bare bytes proxy."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Proxy(target),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


ROLES = {
    "bare": serve_bare,
    "agent": serve_agent,
    "registry": serve_registry,
    "gateway": serve_gateway,
    "proxy": serve_proxy,
}


@contextlib.asynccontextmanager
async def mesh() -> AsyncIterator[dict[str, measure.Child]]:
    """All processes of the measurement."""
    with tempfile.TemporaryDirectory() as data:
        async with (
            embedded.launch(Path(data)) as servers,
            measure.children(__file__) as start,
        ):
            url = servers.database_url
            registry = start("registry", url)
            agent = start("agent", registry.told)
            yield {
                "bare": start("bare"),
                "registry": registry,
                "agent": agent,
                # Both hops lead to the same server, by address and by name.
                "proxy": start("proxy", agent.told),
                "gateway": start("gateway", registry.told, url),
            }


async def run(rounds: int, seconds: float) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Measures in rounds; within each, what is compared stands side by side."""
    async with mesh() as processes, contextlib.AsyncExitStack() as stack:
        rpc.use_registry(processes["registry"].told)
        caller = Identity(subject="agent:benchmark")
        own = telemetry("benchmark")

        async def weft(target: str) -> measure.Call:
            channel = rpc.Channel(target, telemetry=own, identity=caller)
            say = echo_pb2_grpc.EchoServiceStub(await stack.enter_async_context(channel)).Say
            await say(_REQUEST)
            return lambda: say(_REQUEST)

        async def bare(target: str) -> measure.Call:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
            say = echo_pb2_grpc.EchoServiceStub(channel).Say
            await say(_REQUEST)
            return lambda: say(_REQUEST, timeout=10)

        calls = {
            "bare": await bare(processes["bare"].told),
            "agent": await weft(processes["agent"].told),
            "xds": await weft("xds:///echo"),
            "proxy": await bare(processes["proxy"].told),
            "gateway": await bare(processes["gateway"].told),
        }
        pairs = {
            "runtime_sequential": ("agent", "bare", 1),
            "runtime_32": ("agent", "bare", 32),
            "xds_32": ("xds", "agent", 32),
            "gateway_hop": ("gateway", "proxy", 32),
        }
        ratios: dict[str, list[float]] = {key: [] for key in pairs}
        rates: dict[str, list[float]] = {}
        cpu: dict[str, list[float]] = {}
        for number in range(rounds + 1):
            for key, (ours, theirs, in_flight) in pairs.items():
                # Many short windows in balanced order (Thue-Morse): a drift of the machine favours neither.
                order = [(ours, theirs)[turn ^ (number & 1)] for turn in _TURNS]
                got: dict[str, list[float]] = {ours: [], theirs: []}
                for name in order:
                    server = processes.get(name, processes["agent"])
                    before = server.cpu()
                    rate = await measure.rate(
                        calls[name], seconds=seconds / len(_TURNS) * 2, in_flight=in_flight
                    )
                    got[name].append(rate)
                    spent = (server.cpu() - before) / (rate * seconds / len(_TURNS) * 2) * 1e6
                    if number:
                        rates.setdefault(f"{name}_{in_flight}_per_second", []).append(rate)
                        cpu.setdefault(f"{name}_{in_flight}_server_cpu_us", []).append(spent)
                if number:  # the first round warms up
                    ratios[key].append(sum(got[ours]) / sum(got[theirs]))
            measure.progress(f"round {number} of {rounds}" + (" done" if number == rounds else ""))
        medians = {k: round(sorted(v)[len(v) // 2], 1) for k, v in {**rates, **cpu}.items()}
    return ratios, medians


def main() -> None:
    """Runs a role, or the measurement."""
    options = measure.arguments(__doc__, rounds=12).parse_args()
    if options.role:
        asyncio.run(ROLES[options.role](*options.rest))  # type: ignore[operator]
        sys.exit()
    ratios, figures = asyncio.run(run(options.rounds, options.seconds))
    measure.report(ratios, figures, as_json=options.json)


if __name__ == "__main__":
    main()
