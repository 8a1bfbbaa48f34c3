"""What ordinary calls pay for other clients of the same gateway that are idle, slow, or do not read.

REST calls over 16 connections that stay open, alone and beside a crowd of such clients, in interleaved rounds: each round
beside a crowd stands between two alone. All calls go by one gateway process to one agent process, which has the crowd's
streams open as well.

sse, websocket, grpc       clients that wait for a next message (--clients, 10,000 by default)
slow_heads, slow_bodies    clients that send a byte a second of a request without end, and begin again when they are cut
unread_sse, unread_websocket, unread_grpc    clients that read nothing of messages without end
unread_answers             clients that read nothing of an answer of 2 MB

KIND         time of an ordinary call beside the crowd / alone
KIND_cpu     CPU time of the gateway's process per ordinary call, with all that the crowd costs meanwhile / alone
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import crowds
import measure
import uvloop

from weft import embedded
from weft.agents import Host
from weft.gateway import Gateway
from weft.registry import Registry
from weft.rpc import process
from weft.rpc.testing import wait_until
from weft.telemetry import Instruments, Telemetry

_CONNECTIONS = 16
_SLOW = 1_000  # slow senders at most
_UNREADING = 200  # clients that do not read, at most
_SETTLING = 20  # seconds at most: after a minute those who do not read are cut
_BUSY = 0.15  # seconds of CPU in one
_LET_GO = 120.0  # seconds
_REQUEST = b"GET /v1/echo/hello HTTP/1.1\r\nhost: gateway\r\n\r\n"
_MEGABYTE = 1e6

KINDS = {
    "sse": 10_000,
    "websocket": 10_000,
    "grpc": 10_000,
    "slow_heads": _SLOW,
    "slow_bodies": _SLOW,
    "unread_sse": _UNREADING,
    "unread_websocket": _UNREADING,
    "unread_grpc": _UNREADING,
    "unread_answers": _UNREADING,
}


async def serve_registry(database_url: str) -> None:
    """The registry."""
    async with Registry(database_url=database_url, address="127.0.0.1:0") as registry:
        print(registry.address, flush=True)
        await asyncio.Event().wait()


async def serve_agent(registry: str) -> None:
    """The agent."""
    async with Host(registry=registry) as host:
        host.add(crowds.Patient("one"), max_concurrency=1_000_000)
        await host.start()
        print(host.server.address, flush=True)
        await host.wait()


async def serve_gateway(registry: str, database_url: str) -> None:
    """The gateway, and a port that tells how many tasks it has."""
    process.raise_files()

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"%d\n" % len(asyncio.all_tasks()))
        writer.close()

    gateway = Gateway(
        registry=registry,
        database_url=database_url,
        listen="127.0.0.1:0",
        grpc_listen="127.0.0.1:0",
        telemetry=Telemetry(metrics=Instruments("gateway")),
    )
    telling = await asyncio.start_server(tell, "127.0.0.1", 0)
    async with gateway, telling, process.collecting():
        await gateway.ready()
        port = telling.sockets[0].getsockname()[1]
        http = gateway.url.removeprefix("http://")
        print(http, gateway.grpc_address, port, flush=True)
        await asyncio.Event().wait()


ROLES = {
    "registry": serve_registry,
    "agent": serve_agent,
    "gateway": serve_gateway,
    "crowd": crowds.gather,
}


class Gate:
    """The gateway's process, from outside."""

    def __init__(self, child: measure.Child) -> None:
        self.child = child
        self.http, self.grpc, port = child.told.split()
        self._port = int(port)

    def memory(self) -> float:
        """Resident memory, MB."""
        return measure.memory_of(self.child.pid) / _MEGABYTE

    def files(self) -> int:
        """Open files."""
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))  # noqa: PTH208 thousands, of which only the number matters

    async def tasks(self) -> int:
        """Tasks on its loop, of which one tells."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        told = int(await reader.readline())
        writer.close()
        return told


class Caller:
    """Makes ordinary calls."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self._free = asyncio.Queue()
        self.slowest: list[float] = []

    async def connect(self) -> None:
        """Opens the connections and waits for the right answer."""
        host, _, port = self._address.rpartition(":")
        for _ in range(_CONNECTIONS):
            self._free.put_nowait(await asyncio.open_connection(host, int(port)))

        async def answers() -> bool:
            return await self.call() == b"200"

        await wait_until(answers)

    async def call(self) -> bytes:
        """One call; its status."""
        reader, writer = await self._free.get()
        began = time.perf_counter()
        writer.write(_REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        self.slowest.append(time.perf_counter() - began)
        self._free.put_nowait((reader, writer))
        return head.split(b" ", 2)[1]


class Meter:
    """Measures ordinary calls."""

    def __init__(self, gate: Gate, caller: Caller, seconds: float) -> None:
        self._gate, self._caller, self._seconds = gate, caller, seconds

    async def take(self) -> tuple[float, float, float]:
        """Time and CPU time of a call in microseconds, and the time in which 99 of 100 were done, milliseconds."""
        self._caller.slowest.clear()
        before = self._gate.child.cpu()
        rate = await measure.rate(self._caller.call, seconds=self._seconds, in_flight=_CONNECTIONS)
        cpu = self._gate.child.cpu() - before
        times = sorted(self._caller.slowest)
        return 1e6 / rate, cpu / len(times) * 1e6, times[len(times) * 99 // 100] * 1e3


@contextlib.asynccontextmanager
async def mesh() -> AsyncIterator[tuple[Gate, Any]]:
    """A gateway with all behind it, and what starts further children."""
    async with contextlib.AsyncExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory())
        endpoints = await stack.enter_async_context(embedded.launch(Path(data)))
        start = await stack.enter_async_context(measure.children(__file__))
        registry = start("registry", endpoints.database_url)
        start("agent", registry.told)
        yield Gate(start("gateway", registry.told, endpoints.database_url)), start


class Trial:
    """One kind of crowd."""

    def __init__(self, gate: Gate, meter: Meter, kind: str, count: int) -> None:
        self._gate, self._meter, self._kind, self._count = gate, meter, kind, count
        self.ratios: dict[str, list[float]] = {kind: [], f"{kind}_cpu": []}
        self._found: dict[str, list[float]] = {}

    async def round(self, start: Any) -> None:
        """A measurement beside the crowd, between two alone."""
        gate, before = self._gate, await self._meter.take()
        files, tasks, memory = gate.files(), await gate.tasks(), gate.memory()
        began, opening = time.perf_counter(), gate.child.cpu()
        crowd = await asyncio.to_thread(
            start, "crowd", self._kind, gate.http, gate.grpc, str(self._count)
        )
        self._note("seconds_to_open", time.perf_counter() - began)
        await self._quiet()
        self._note("cpu_ms_each_to_open", (gate.child.cpu() - opening) / self._count * 1e3)
        self._note("kb_each", (gate.memory() - memory) / self._count * 1e3)
        beside = await self._meter.take()
        self._note("mb_beside", gate.memory())
        began = time.perf_counter()
        await asyncio.to_thread(crowd.end)
        await self._let_go(files, tasks)
        self._note("seconds_to_let_go", time.perf_counter() - began)
        after = await self._meter.take()
        self._note("mb_before", memory)
        self._note("mb_after", gate.memory())
        self._note("p99_ms_alone", statistics.mean((before[2], after[2])))
        self._note("p99_ms_beside", beside[2])
        for key, at in ((self._kind, 0), (f"{self._kind}_cpu", 1)):
            self.ratios[key].append(beside[at] / statistics.mean((before[at], after[at])))

    def figures(self) -> Iterator[tuple[str, float]]:
        """What else was measured: medians."""
        yield f"{self._kind}_clients", self._count
        for key, values in self._found.items():
            yield f"{self._kind}_{key}", round(statistics.median(values), 1)

    def _note(self, key: str, value: float) -> None:
        self._found.setdefault(key, []).append(value)

    async def _quiet(self) -> None:
        """Waits until nothing is made any more that nobody reads."""
        for _ in range(_SETTLING):
            before = self._gate.child.cpu()
            await asyncio.sleep(1)
            if self._gate.child.cpu() - before < _BUSY:
                return

    async def _let_go(self, files: int, tasks: int) -> None:
        """Waits until the gateway has no more files and tasks than before."""

        async def gone() -> bool:
            # One file and one task ask, and the pool of the database may have grown or shrunk by some.
            return self._gate.files() <= files + 2 and await self._gate.tasks() <= tasks + 2

        deadline = time.perf_counter() + _LET_GO
        while not await gone():
            if time.perf_counter() > deadline:
                left = f"{self._gate.files()} files, {await self._gate.tasks()} tasks"
                raise TimeoutError(f"{self._kind}: {left} are left of {files} and {tasks}")
            await asyncio.sleep(0.1)


async def run(kinds: dict[str, int], rounds: int, seconds: float) -> tuple[Any, dict[str, Any]]:
    """Measures beside each crowd in turn."""
    ratios: dict[str, list[float]] = {}
    figures: dict[str, Any] = {}
    async with mesh() as (gate, start):
        caller = Caller(gate.http)
        await caller.connect()
        meter = Meter(gate, caller, seconds)
        figures["us"], figures["cpu_us"] = (round(each, 1) for each in (await meter.take())[:2])
        trials = {kind: Trial(gate, meter, kind, count) for kind, count in kinds.items()}
        for number in range(1, rounds + 1):
            for kind, trial in trials.items():
                measure.progress(f"round {number} of {rounds}: {kind}")
                await trial.round(start)
        measure.progress("done")
        for trial in trials.values():
            ratios |= trial.ratios
            figures |= dict(trial.figures())
    return ratios, figures


def main() -> None:
    """Runs a role, or the measurement."""
    parser = measure.arguments(__doc__, rounds=3)
    parser.add_argument("--clients", type=int, default=10_000, help="most clients (10,000)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="crowds, joined by commas (all)")
    options = parser.parse_args()
    if options.role:
        uvloop.run(ROLES[options.role](*options.rest))  # type: ignore[operator]
        sys.exit()
    crowds.raise_limit()
    kinds = {kind: min(KINDS[kind], options.clients) for kind in options.kinds.split(",")}
    ratios, figures = uvloop.run(run(kinds, options.rounds, max(options.seconds, 2.0)))
    measure.report(ratios, figures, as_json=options.json)


if __name__ == "__main__":
    main()
