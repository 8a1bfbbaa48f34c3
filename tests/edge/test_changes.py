"""What comes and goes while the edge runs: agents, replicas, and the registry that it follows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from tests.edge.conftest import PATIENCE, routed, running
from tests.ports import free_port

from weft.agents import Host
from weft.rpc.testing import wait_until
from weft.support.v1 import triage_pb2, triage_pb2_grpc


@contextlib.asynccontextmanager
async def weft(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A part of the mesh as a process, once it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "weft.cli", *arguments),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            said = b""
            while b"ready: " not in said:
                said = await process.stderr.readline()
                assert said, await process.stderr.read()
        reading = asyncio.create_task(process.stderr.read())
        yield process
        if process.returncode is None:
            process.kill()
        await reading
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Triage(triage_pb2_grpc.TriageServiceServicer):
    async def Classify(self, request: triage_pb2.ClassifyRequest, context: Any) -> Any:
        return triage_pb2.ClassifyResponse(model="new")


async def test_a_new_agent_is_reached_within_a_second(mesh):
    made = await mesh()
    await routed(made.edge.http)
    found = await made.edge.http.post("/v1/support/triage:classify", json={"text": "hi"})
    assert found.status_code == httpx.codes.NOT_FOUND
    async with Host(registry=made.registry.address) as host:
        host.add(Triage())
        await host.start()
        began = time.monotonic()
        # For a moment its route may be there, and its endpoints not yet: 503.
        while found.status_code != httpx.codes.OK and time.monotonic() - began < 5:
            found = await made.edge.http.post("/v1/support/triage:classify", json={"text": "hi"})
        assert time.monotonic() - began < 1
        assert (found.status_code, found.json()["model"]) == (200, "new")


async def test_a_killed_replica_and_a_killed_registry_fail_no_call(
    fresh_xds: None, database_url: str, tmp_path: Path
):
    registry = f"127.0.0.1:{free_port()}"
    serve = ("agents", "serve", "weft.agents.echo:Echo", "--registry", registry)
    anywhere = {"WEFT_AGENTS_METRICS": "127.0.0.1:0", "WEFT_BROKER": ""}
    async with contextlib.AsyncExitStack() as stack:
        plane = await stack.enter_async_context(
            weft(
                *("registry", "--database-url", database_url, "--listen", registry),
                *("--metrics", "127.0.0.1:0"),
                WEFT_REGISTRY_COLD_START="0s",
            )
        )
        agents = [await stack.enter_async_context(weft(*serve, **anywhere)) for _ in range(2)]
        edge = await stack.enter_async_context(running(tmp_path, registry))
        seen: set[str] = set()

        async def both() -> bool:
            found = await edge.http.get("/v1/echo/a")
            if found.status_code == httpx.codes.OK:
                seen.add(found.json()["instance"])
            return len(seen) == 2

        await wait_until(both, PATIENCE)
        failed: list[str] = []
        done = 0
        over = asyncio.Event()

        async def call() -> None:
            nonlocal done
            while not over.is_set():
                found = await edge.http.get("/v1/echo/a")
                done += 1
                if found.status_code != httpx.codes.OK:
                    failed.append(found.text)

        async def more(calls: int) -> None:
            until = done + calls
            await wait_until(lambda: done >= until, PATIENCE)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(call())
            await more(100)
            agents[0].send_signal(signal.SIGKILL)
            await agents[0].wait()
            await more(300)
            plane.send_signal(signal.SIGKILL)
            await plane.wait()
            await more(300)
            over.set()
        assert failed == []


async def test_weft_edge_run(mesh, tmp_path):
    made = await mesh()
    listen = f"127.0.0.1:{free_port()}"
    options = ("--registry", made.registry.address, "--listen", listen, "--data", str(tmp_path))
    async with (
        weft("edge", "run", *options) as process,
        httpx.AsyncClient(base_url=f"http://{listen}") as http,
    ):
        await routed(http)
        process.terminate()
        async with asyncio.timeout(PATIENCE.total_seconds()):
            assert await process.wait() == 0
    bootstrap = json.loads((tmp_path / "edge/edge.json").read_text())
    assert bootstrap["node"]["metadata"] == {"role": "edge", "listen": listen}
    async with (
        weft("edge", "run", *options) as process,
        httpx.AsyncClient(base_url=f"http://{listen}") as http,
    ):
        await routed(http)
        process.kill()  # Envoy does not outlive it
        await process.wait()

        async def gone() -> bool:
            try:
                await http.get("/v1/echo/a")
            except httpx.TransportError:
                return True
            return False

        await wait_until(gone, PATIENCE)
