"""What the hop over an Envoy edge costs: gRPC straight to an agent, by the edge and by the gateway; REST by both.

Interleaved: each round makes some calls of each way, one after the other.

edge_vs_direct         calls a second of gRPC by the edge / straight to the agent
edge_vs_gateway        the same by the edge / by the gateway
rest_edge_vs_gateway   calls a second of REST by the edge / by the gateway
rest_edge_cpu_vs_gateway, edge_cpu_vs_gateway   CPU of the hop's process for a call, by the edge / by the gateway

python benchmarks/edge.py [--json] [--rounds 12] [--calls 400]
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import measure

from weft import embedded, rpc
from weft.cli.edge import envoy
from weft.cli.edge.bootstrap import start
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import wait_until

ROUNDS, CALLS, AT_ONCE = 12, 400, 16
_PATIENCE = timedelta(seconds=30)


def _free_ports(number: int) -> list[int]:
    import socket

    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.asynccontextmanager
async def _part(*arguments: str, **environment: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "weft.cli", *arguments),
        env={**os.environ, "WEFT_LOG_LEVEL": "ERROR", **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(_PATIENCE.total_seconds()):
        while b"ready: " not in said:
            said = await process.stderr.readline()
            if not said:
                raise SystemExit(f"{' '.join(arguments)} does not start")
    reading = asyncio.create_task(process.stderr.read())
    try:
        yield process
    finally:
        process.terminate()
        await reading
        await process.wait()


async def _timed(call: Callable[[], Awaitable[object]], calls: int) -> float:
    """Calls a second."""
    left = calls

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())
    return calls / (time.perf_counter() - began)


async def _measured(rounds: int, calls: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    registry_at, agent_at, http_at, grpc_at, edge_at = (
        f"127.0.0.1:{port}" for port in _free_ports(5)
    )
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weft-")))
        servers = await enter(embedded.launch(folder / "data"))
        database = ("--database-url", servers.database_url)
        quiet = ("--metrics", "127.0.0.1:0")
        await enter(_part("registry", *database, "--listen", registry_at, *quiet))
        known = {"WEFT_REGISTRY": registry_at, "WEFT_BROKER": "", "WEFT_TRACE_SAMPLE": "0"}
        await enter(
            _part(
                *("agents", "serve", "weft.agents.echo:Echo"),
                **known,
                WEFT_AGENTS_LISTEN=agent_at,
                WEFT_AGENTS_METRICS="127.0.0.1:0",
            )
        )
        listens = ("--listen", http_at, "--grpc-listen", grpc_at, *quiet)
        gateway = await enter(_part("gateway", *database, *listens, **known))
        edge = await enter(
            envoy.running(
                start([registry_at], listen=edge_at, admin="127.0.0.1:0"),
                folder / "edge",
                drain=timedelta(seconds=1),
                patience=_PATIENCE,
                log=stack.enter_context((folder / "edge.log").open("wb")).fileno(),
            )
        )
        channels = {
            name: await enter(rpc.Channel(address))
            for name, address in (("direct", agent_at), ("edge", edge_at), ("gateway", grpc_at))
        }
        request = echo_pb2.SayRequest(text="x" * 100)
        ways: dict[str, Callable[[], Awaitable[object]]] = {}
        for name, channel in channels.items():
            stub = echo_pb2_grpc.EchoServiceStub(channel)
            ways[name] = functools.partial(stub.Say, request, timeout=10)
        for name, address in (("rest_edge", edge_at), ("rest_gateway", http_at)):
            http = await enter(httpx.AsyncClient(base_url=f"http://{address}", timeout=10))

            async def rest(http: httpx.AsyncClient = http) -> None:
                (await http.post("/v1/echo:say", json={"text": "x" * 100})).raise_for_status()

            async def served(call: Callable[[], Awaitable[object]] = rest) -> bool:
                with contextlib.suppress(httpx.HTTPError):
                    await call()
                    return True
                return False

            await wait_until(served, _PATIENCE)
            ways[name] = rest
        hops = {"edge": edge.pid, "rest_edge": edge.pid}
        hops |= {"gateway": gateway.pid, "rest_gateway": gateway.pid}
        rates, spent = await _rounds(ways, hops, rounds, calls)
    compared = (("edge", "direct"), ("edge", "gateway"), ("rest_edge", "rest_gateway"))
    ratios = {
        f"{a}_vs_{b.removeprefix('rest_')}": _divided(rates[a], rates[b]) for a, b in compared
    }
    for a, b in compared[1:]:
        ratios[f"{a}_cpu_vs_gateway"] = _divided(spent[a], spent[b])
    figures = {f"{name}_per_s": round(statistics.median(each)) for name, each in rates.items()}
    for name, each in spent.items():
        figures[f"{name}_cpu_us"] = round(1e6 * statistics.median(each) / calls)
    return ratios, figures


async def _rounds(
    ways: Mapping[str, Callable[[], Awaitable[object]]],
    hops: Mapping[str, int],
    rounds: int,
    calls: int,
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Calls a second by way, and CPU seconds of the hop, of each round."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    spent: dict[str, list[float]] = {name: [] for name in hops}
    for number in range(rounds + 1):
        for name, call in ways.items():
            before = measure.cpu_of(hops[name]) if name in hops else 0.0
            rate = await _timed(call, calls)
            if number:  # the first round warms up
                rates[name].append(rate)
                if name in hops:
                    spent[name].append(measure.cpu_of(hops[name]) - before)
        measure.progress(f"round {number} of {rounds}")
    measure.progress("done")
    return rates, spent


def _divided(some: Sequence[float], others: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(some, others, strict=True)]


def main() -> None:
    """The command."""
    parser = measure.arguments(__doc__, rounds=ROUNDS)
    parser.add_argument(
        "--calls", type=int, default=CALLS, help=f"of each way in a round ({CALLS})"
    )
    options = parser.parse_args()
    ratios, figures = asyncio.run(_measured(options.rounds, options.calls))
    measure.report(ratios, figures, as_json=options.json)


if __name__ == "__main__":
    main()
