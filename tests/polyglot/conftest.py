"""Programs of clients/, built and run, and meshes for them to meet."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.lifetime import ending_with_parent
from tests.ports import free_port

from weft import rpc
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2, registry_pb2, registry_pb2_grpc

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "clients"
PATIENCE = timedelta(seconds=20)

_NUMBERS = itertools.count()

PROGRAMS = {
    "go": [CLIENTS / "go/bin/client"],
    "java": ["java", "-XX:TieredStopAtLevel=1", "-jar", CLIENTS / "java/target/client.jar"],
    "typescript": ["node", CLIENTS / "typescript/out/client.js"],
    "rust": [CLIENTS / "rust/target/debug/client"],
    "cpp": [CLIENTS / "cpp/build/client"],
}
AGENTS = {
    "go": [CLIENTS / "go/bin/agent"],
    "typescript": ["node", CLIENTS / "typescript/out/agent.js"],
}


@pytest.fixture(scope="session")
def built() -> Callable[[str], None]:
    """Builds what is in a language; skips where its tools are not here, unless they have to be."""

    def build(language: str) -> None:
        command = ("make", "-C", str(CLIENTS), language)
        environment = {**os.environ, "VENV": str(Path(sys.executable).parents[1])}
        # Another process of pytest-xdist may want it at the same time.
        with (Path(tempfile.gettempdir()) / f"weft-clients-{os.getuid()}-{language}").open(
            "w"
        ) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment
            )
        assert done.returncode == 0, done.stdout + done.stderr
        if "SKIPPED" in done.stderr:
            pytest.skip(done.stderr.strip())

    return build


class Program:
    """A program in another language. It ends with the test's process, whatever happens."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, log: Path, *command: str | Path, **settings: str) -> Program:
        """Starts it; what it says on standard error goes to a file."""
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *ending_with_parent([_found(command[0]), *command[1:]]),
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **settings},
            )
        return cls(process, log)

    async def line(self) -> dict[str, Any]:
        """Its next line."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, f"it ended\n{self.log}"
        found: dict[str, Any] = json.loads(line)
        return found

    async def output(self) -> str:
        """All that it says until it ends."""
        assert self._process.stdout is not None
        return (await self._process.stdout.read()).decode()

    async def ended(self) -> int:
        """Its exit status, when it has ended."""
        return await self._process.wait()

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    @property
    def log(self) -> str:
        return self._log.read_text()


def consumes(agent: Program) -> bool:
    """Whether an agent has said that a broker has taken it: before its first time there is no queue."""
    return connections(agent, "broker") > 0


def connections(agent: Program, part: str) -> int:
    """How often an agent has said that a part of the mesh has taken it."""
    return len(re.findall(f"connected.*{part}", agent.log))


def _found(command: str | Path) -> str:
    path = shutil.which(command)
    assert path, f"{command} is missing"
    return path


@dataclass
class Town:
    """A registry, and what else a test starts, each a process of its own."""

    folder: Path
    database_url: str
    redis_url: str = ""
    registry: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    broker: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    programs: list[Program] = field(default_factory=list)

    async def start(self, name: str, *command: str | Path, **settings: str) -> Program:
        log = self.folder / f"{name}-{next(_NUMBERS)}"
        program = await Program.start(log, *command, **settings)
        self.programs.append(program)
        return program

    async def weft(self, *arguments: str, **further: str) -> Program:
        """A part of Weft."""
        settings = {
            "WEFT_REGISTRY": self.registry,
            "WEFT_REGISTRY_LISTEN": self.registry,
            "WEFT_BROKER": self.broker if self.redis_url else "",
            "WEFT_BROKER_LISTEN": self.broker,
            "WEFT_DATABASE_URL": self.database_url,
            "WEFT_REDIS_URL": self.redis_url,
            "WEFT_TRACE_SAMPLE": "0",
            **further,
            **dict.fromkeys(
                (f"WEFT_{part}_METRICS" for part in ("REGISTRY", "BROKER", "AGENTS")), "127.0.0.1:0"
            ),
        }
        return await self.start(
            "-".join(arguments[:2]), sys.executable, "-m", "weft.cli", *arguments, **settings
        )

    async def agent(self, language: str, *arguments: str) -> Program:
        """An agent in another language, in service by calls and messages."""
        before = {one.instance_id for one in await self.instances("echo")}
        program = await self.start_agent(language, *arguments)
        await self.until(lambda found: any(one.instance_id not in before for one in found))
        await wait_until(lambda: consumes(program), PATIENCE)
        return program

    async def start_agent(self, language: str, *arguments: str) -> Program:
        """The same, not yet in service."""
        return await self.start(
            f"agent-{language}",
            *(*AGENTS[language], "--registry", self.registry, "--brokers", self.broker),
            *arguments,
        )

    async def instances(self, agent: str) -> Sequence[agent_pb2.Instance]:
        """Those that callers would find; none while the registry is away."""
        async with rpc.Channel(self.registry) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            try:
                found = await stub.Resolve(registry_pb2.ResolveRequest(agent=agent), timeout=1)
            except grpc.aio.AioRpcError:
                return ()
        return found.instances

    async def listed(self) -> Sequence[agent_pb2.Instance]:
        """All instances of echo, in any state."""
        async with rpc.Channel(self.registry) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            found = await stub.ListAgents(registry_pb2.ListAgentsRequest(), timeout=5)
        return [each for agent in found.agents for each in agent.instances]

    async def until(
        self, holds: Callable[[Sequence[agent_pb2.Instance]], bool], agent: str = "echo"
    ) -> None:
        """Returns when it holds for the instances in service."""

        async def reached() -> bool:
            return holds(await self.instances(agent))

        try:
            await wait_until(reached, PATIENCE)
        except TimeoutError:
            logs = "\n".join(program.log for program in self.programs)
            pytest.fail(f"{list(await self.instances(agent))}\n{logs}")


@contextlib.asynccontextmanager
async def town(
    folder: Path, database_url: str, redis_url: str = "", **settings: str
) -> AsyncIterator[Town]:
    """A registry, and a broker where there is a Redis; ends all that was started."""
    made = Town(folder, database_url, redis_url)
    try:
        await made.weft("registry", **settings)
        if redis_url:
            await made.weft("broker")
            await wait_until(lambda: _answers(made.broker), PATIENCE)
        await wait_until(lambda: _answers(made.registry), PATIENCE)
        yield made
    finally:
        for program in reversed(made.programs):
            await program.end()


async def _answers(address: str) -> bool:
    host, port = address.split(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
