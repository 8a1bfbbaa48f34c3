"""What a durable step costs: Weft's orchestrator against LangGraph with its PostgreSQL saver, and DBOS.

Each engine runs a chain of steps that do nothing, in a process and a database of its own on the same PostgreSQL, in
turns. CPU: of the engine's process and of PostgreSQL, per step; wall: per step. One run at a time for the ratios, 16 for
the figures. Weft's step is a call whose agent answers in the same process, as the others' steps are functions; the cost
of a call to an agent is a figure. LangGraph stores with durability "sync": each step before the next.

step_vs_langgraph, step_vs_dbos     CPU of Weft's step / of theirs
wall_vs_langgraph, wall_vs_dbos     the same for the wall clock

python benchmarks/orchestrator.py [--json] [--rounds 5] [--steps 100] [--runs 5]

The peers are installed into virtual environments of their own, once (--peers-venv).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Generator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import measure
import uvloop
from google.protobuf import json_format

from weft import embedded, rpc
from weft.agents import Host
from weft.agents.echo import Echo
from weft.agents.orchestrator.fleet import orchestrator
from weft.echo.v1 import echo_pb2
from weft.registry import Registry
from weft.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from weft.v1.identity_pb2 import Identity
from weft.v1.workflow_pb2 import TypedMessage, WorkflowSpec

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
MANY, FEW = 16, 10  # runs at a time, steps of a run among many
SAID = "weft.echo.v1.EchoService/SayOnce"  # which may have effects: it waits until the step before is stored


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What is measured. `venv`: where it is installed; empty: it is Weft, with agents in or out of its process."""

    name: str
    program: str
    venv: str = ""


WEFT = Engine(name="weft", program="inside")
WEFT_CALLING = Engine(name="weft_calling", program="outside")
LANGGRAPH = Engine(name="langgraph", program="langgraph_steps.py", venv="peers-langgraph")
DBOS = Engine(name="dbos", program="dbos_steps.py", venv="peers-dbos")
ENGINES = (WEFT, LANGGRAPH, DBOS, WEFT_CALLING)


@dataclass(frozen=True, kw_only=True)
class Load:
    """`runs` of `steps`, so many at a time."""

    steps: int
    runs: int
    at_once: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Milliseconds of a step, and megabytes of the engine's process before and after."""

    wall: float
    client_cpu: float
    postgres_cpu: float
    before: float
    after: float

    @property
    def cpu(self) -> float:
        """Of the engine and PostgreSQL."""
        return self.client_cpu + self.postgres_cpu


@dataclass(frozen=True, kw_only=True)
class Where:
    """What engines run on."""

    database_url: str
    postgres: int
    """Process id."""
    agent: measure.Child
    """The registry and the agent `echo`."""
    venvs: Path


# -- one measurement


async def cost(engine: Engine, load: Load, where: Where) -> Cost:
    """Runs an engine in a process of its own."""
    url = await measure.fresh_database(where.database_url, f"bench_{uuid.uuid4().hex[:8]}")
    command = measure_weft(engine, where) if not engine.venv else peer(engine, where)
    numbers = (load.steps, load.runs, load.at_once)
    return await asyncio.to_thread(_run, [*command, url, *map(str, numbers)], load, where)


def measure_weft(engine: Engine, where: Where) -> list[str]:
    """The command of Weft's half."""
    return [sys.executable, __file__, "--role", "weft", engine.program, where.agent.told]


def peer(engine: Engine, where: Where) -> list[str]:
    """The command of the others'."""
    return [str(where.venvs / engine.venv / "bin" / "python"), str(PEERS / engine.program)]


def _run(command: list[str], load: Load, where: Where) -> Cost:
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{PEERS}"},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    told: list[dict[str, Any]] = []
    used: list[float] = []
    try:
        for line in process.stdout:
            if line.startswith('{"'):
                told.append(json.loads(line))
                used.append(measure.cpu_of(where.postgres))
                process.stdin.write("\n")
                process.stdin.flush()
    finally:
        process.kill()
        process.wait()
    assert len(told) == 2, f"{command} measured nothing"
    ready, done = told
    steps = load.steps * load.runs / 1e3
    return Cost(
        wall=done["seconds"] / steps,
        client_cpu=done["cpu"] / steps,
        postgres_cpu=(used[1] - used[0]) / steps,
        before=ready["memory"] / 1e6,
        after=done["memory"] / 1e6,
    )


# -- Weft's side


async def role_agent(database_url: str) -> None:
    """The registry, and the agent `echo`."""
    async with contextlib.AsyncExitStack() as stack:
        registry = await stack.enter_async_context(
            Registry(database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0))
        )
        host = await stack.enter_async_context(Host(registry=registry.address))
        host.add(Echo("bench"))
        await host.start()
        print(f"{registry.address},{host.server.address}", flush=True)
        await asyncio.Event().wait()


class Answered:
    """A call that is answered at once."""

    def __init__(self, response: bytes) -> None:
        self._response = response

    def __await__(self) -> Generator[None, None, bytes]:
        yield
        return self._response

    def cancel(self) -> None:
        """There is nothing to cancel."""


class Inside:
    """A channel to an agent in this process that does nothing."""

    def unary_unary(self, _: str) -> Any:
        """Calls it."""
        said = echo_pb2.SayResponse(text="said")
        response = echo_pb2.SayOnceResponse(said=said).SerializeToString()
        return lambda _request, **_further: Answered(response)


def chain(steps: int) -> WorkflowSpec:
    """Steps one after the other, each of which has a text said."""
    ids = [f"n{number}" for number in range(steps)]
    call = {"agent": "echo", "method": SAID, "fields": {"by_path": {"say.text": "'begin'"}}}
    spec = {
        "name": "steps",
        "input_type": "weft.echo.v1.SayRequest",
        "nodes": [{"id": each, "call": call} for each in ids],
        "edges": [{"from": one, "to": other} for one, other in itertools.pairwise(ids)],
    }
    return json_format.ParseDict(spec, WorkflowSpec())


async def role_weft(
    agents: str, addresses: str, database_url: str, steps: str, runs: str, at_once: str
) -> None:
    """An orchestrator with its worker, and whoever begins runs, in one process as with the others."""
    peers = importlib.import_module("steps")  # as the peers measure themselves

    registry, echo = addresses.split(",")
    async with contextlib.AsyncExitStack() as stack:
        found = await stack.enter_async_context(rpc.Channel(registry))
        outside = await stack.enter_async_context(rpc.Channel(echo))
        channel: Any = Inside() if agents == "inside" else outside
        service = await stack.enter_async_context(
            orchestrator(database_url=database_url, registry=found, channel=lambda _: channel)
        )
        server = rpc.Server()
        server.add(orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server, service)
        await stack.enter_async_context(server)
        client = await stack.enter_async_context(
            rpc.Channel(server.address, identity=Identity(subject="user:bench", tenant="bench"))
        )
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(client)
        await stub.SubmitWorkflow(orchestrator_pb2.SubmitWorkflowRequest(spec=chain(int(steps))))
        begin = TypedMessage(
            type="weft.echo.v1.SayRequest",
            binary=echo_pb2.SayRequest(text="begin").SerializeToString(),
        )

        async def one() -> None:
            begun = await stub.StartRun(
                orchestrator_pb2.StartRunRequest(workflow="steps", input=begin)
            )
            run = begun.run
            while not run.HasField("output"):
                waited = await stub.WaitRun(
                    orchestrator_pb2.WaitRunRequest(id=run.id, binary=True), timeout=60
                )
                run = waited.run
                assert not run.HasField("failure"), run.failure

        await peers.measure(one, int(runs), int(at_once))


# -- all of it


@contextlib.asynccontextmanager
async def embedded_postgres() -> AsyncIterator[tuple[str, int]]:
    """A PostgreSQL of one's own, as Weft starts it: its URL and process id."""
    folder = Path(tempfile.mkdtemp(prefix="weft-bench-"))
    os.chmod(folder, 0o711)  # noqa: PTH101 PostgreSQL runs as another account
    try:
        async with embedded.launch(folder / "data") as found:
            yield found.database_url, measure.postgres_of(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare(venvs: Path) -> None:
    """Installs the peers, once."""
    for engine in ENGINES:
        if not engine.venv:
            continue
        name = f"requirements-{engine.name}.txt"
        folder, text = venvs / engine.venv, (PEERS / name).read_text()
        stamp = folder / name
        if stamp.exists() and stamp.read_text() == text:
            continue
        measure.progress(f"installing {name} into {folder}\n")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-r", str(PEERS / name)], check=True)
        stamp.write_text(text)


def shown(costs: list[Cost]) -> Mapping[str, float]:
    """Medians, in milliseconds a step."""
    return {
        f"{name}_ms": round(statistics.median(getattr(one, name) for one in costs), 3)
        for name in ("wall", "cpu", "client_cpu", "postgres_cpu")
    }


async def main() -> None:
    parser = measure.arguments(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=100, help="of a run (100)")
    parser.add_argument("--runs", type=int, default=5, help="one after the other (5)")
    parser.add_argument("--many", type=int, default=1_000, help="runs at one time (1000)")
    parser.add_argument(
        "--peers-venv",
        type=Path,
        default=Path.home() / ".cache" / "weft-bench",
        help="where the peers are installed",
    )
    options = parser.parse_args()
    if options.role:
        roles: dict[str, Any] = {"agent": role_agent, "weft": role_weft}
        await roles[options.role](*options.rest)
        return
    prepare(options.peers_venv)
    loads = {
        "": Load(steps=options.steps, runs=options.runs, at_once=1),
        f"_{MANY}": Load(steps=options.steps // 5, runs=5 * options.runs, at_once=MANY),
    }
    costs: dict[str, list[Cost]] = defaultdict(list)
    async with (
        embedded_postgres() as (url, postgres),
        embedded_postgres() as (registry_url, _),
        measure.children(__file__) as start,
    ):
        where = Where(
            database_url=url,
            postgres=postgres,
            agent=start("agent", registry_url),
            venvs=options.peers_venv,
        )
        for number in range(options.rounds):
            turn = number % len(ENGINES)
            for engine in [*ENGINES[turn:], *ENGINES[:turn]]:
                for suffix, load in loads.items():
                    measure.progress(f"round {number + 1} of {options.rounds}: {engine.name}")
                    costs[f"{engine.name}{suffix}"].append(await cost(engine, load, where))
        measure.progress(f"{options.many} runs at one time")
        crowd = Load(steps=FEW, runs=3 * options.many, at_once=options.many)
        many = await cost(WEFT, crowd, where)
        measure.progress("done")
    ratios: dict[str, list[float]] = {}
    for other in ("langgraph", "dbos"):
        pairs = list(zip(costs["weft"], costs[other], strict=True))
        ratios[f"step_vs_{other}"] = [ours.cpu / theirs.cpu for ours, theirs in pairs]
        ratios[f"wall_vs_{other}"] = [ours.wall / theirs.wall for ours, theirs in pairs]
    figures: dict[str, Any] = {name: shown(found) for name, found in costs.items()}
    figures["runs_at_one_time"] = {
        "runs": crowd.runs,
        "at_once": crowd.at_once,
        "runs_per_second": round(1e3 / many.wall / FEW),
        "cpu_ms": round(many.cpu, 3),
        "memory_before_mb": round(many.before, 1),
        "memory_after_mb": round(many.after, 1),
    }
    measure.report(ratios, figures, as_json=options.json)


if __name__ == "__main__":
    uvloop.run(main())
