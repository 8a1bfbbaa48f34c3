"""Parts as real processes that tests kill, stop and start again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from tests.ports import free_port

from weft import rpc
from weft.agents import Mesh
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import wait_until
from weft.v1 import registry_pb2, registry_pb2_grpc

PATIENCE = timedelta(seconds=20)


class Process:
    """A part of Weft as a process of its own."""

    def __init__(self, log: Path, *arguments: str, **settings: str) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "weft.cli", *arguments],
                env={**os.environ, "WEFT_TRACE_SAMPLE": "0", **settings},
                stdout=output,
                stderr=output,
            )
        self.pid = self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
        self.kill()


@dataclass
class House:
    """A registry and replicas of echo."""

    folder: Path
    database_url: str
    registry: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    processes: list[Process] = field(default_factory=list)

    def start_registry(self) -> Process:
        settings = {"WEFT_REGISTRY_LISTEN": self.registry, "WEFT_REGISTRY_METRICS": "127.0.0.1:0"}
        return self._start("registry", WEFT_DATABASE_URL=self.database_url, **settings)

    def start_echo(self) -> Process:
        settings = {"WEFT_REGISTRY": self.registry, "WEFT_AGENTS_METRICS": "127.0.0.1:0"}
        return self._start("agents", "serve", "weft.agents.echo:Echo", **settings)

    def _start(self, *arguments: str, **settings: str) -> Process:
        self.processes.append(Process(self.folder / "log", *arguments, **settings))
        return self.processes[-1]

    async def in_service(self) -> int:
        """How many replicas callers would find; 0 while the registry is away."""
        async with rpc.Channel(self.registry) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            try:
                found = await stub.Resolve(registry_pb2.ResolveRequest(agent="echo"), timeout=1)
            except grpc.aio.AioRpcError:
                return 0
        return len(found.instances)

    async def until(self, replicas: int) -> float:
        """Seconds until that many replicas are in service."""
        began = time.monotonic()

        async def reached() -> bool:
            return await self.in_service() == replicas

        await wait_until(reached, PATIENCE)
        return time.monotonic() - began


@pytest_asyncio.fixture
async def house(fresh_xds: None, database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A registry and two replicas, all in service."""
    made = House(tmp_path, database_url)
    try:
        made.start_registry()
        made.start_echo()
        made.start_echo()
        await made.until(2)
        yield made
    finally:
        for process in made.processes:
            process.end()


@dataclass
class Load:
    """Calls at a steady rate, and what became of each."""

    outcomes: list[tuple[float, float, grpc.StatusCode, str]] = field(default_factory=list)

    def failed(self) -> list[tuple[float, float, grpc.StatusCode, str]]:
        return [each for each in self.outcomes if each[2] is not grpc.StatusCode.OK]

    def slowest(self) -> float:
        return max(seconds for _, seconds, _, _ in self.outcomes)


@contextlib.asynccontextmanager
async def _calling(registry: str, *, rate: float, deadline: float) -> AsyncIterator[Load]:
    """Calls echo `rate` times a second until the block ends, then waits for what is still running."""
    load = Load()
    async with Mesh(registry) as mesh:
        stub = mesh.stub(echo_pb2_grpc.EchoServiceStub)
        await stub.Say(echo_pb2.SayRequest(), timeout=10)

        async def one() -> None:
            began = time.monotonic()
            try:
                answer = await stub.Say(echo_pb2.SayRequest(text="x"), timeout=deadline)
                code, told = grpc.StatusCode.OK, answer.instance
            except grpc.aio.AioRpcError as failed:
                code, told = failed.code(), failed.details() or ""
            load.outcomes.append((began, time.monotonic() - began, code, told))

        async def pace(group: asyncio.TaskGroup) -> None:
            loop = asyncio.get_running_loop()
            due = loop.time()
            while True:
                group.create_task(one())
                due += 1 / rate
                await asyncio.sleep(due - loop.time())

        async with asyncio.TaskGroup() as group:
            pacing = group.create_task(pace(group))
            try:
                yield load
            finally:
                pacing.cancel()


@pytest.fixture
def calling() -> Callable[..., AbstractAsyncContextManager[Load]]:
    """Makes a steady load on echo."""
    return _calling
