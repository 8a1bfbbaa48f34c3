"""A mesh whose agent shows every state of an A2A task."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import google.rpc
import grpc_tools
import httpx
from google.api.httpbody_pb2 import HttpBody

from weft import rpc
from weft.agents import Host
from weft.agents.echo import Echo
from weft.gateway import Gateway
from weft.gateway.jobs.office import JobSettings
from weft.gateway.jobs.webhooks import SenderSettings
from weft.registry import Registry
from weft.rpc.testing import wait_until

HERE = Path(__file__).parent
PROTO = HERE.parents[2] / "proto"


A2A = HERE.parents[2] / "gateway" / "weft" / "gateway" / "doors" / "a2a"


@cache
def compiled(name: str) -> tuple[Any, Any]:
    """The modules of a .proto of this folder: messages and services."""
    googleapis = Path(next(iter(google.rpc.__path__))).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc"),
                *(f"-I{HERE}", f"-I{A2A}", f"-I{PROTO}", f"-I{googleapis}"),
                f"-I{resources.files(grpc_tools) / '_proto'}",
                *(f"--python_out={folder}", f"--grpc_python_out={folder}", f"{name}.proto"),
            ],
            check=True,
        )
        sys.path.insert(0, folder)
        try:
            return (
                importlib.import_module(f"{name}_pb2"),
                importlib.import_module(f"{name}_pb2_grpc"),
            )
        finally:
            sys.path.remove(folder)


class Told:
    """What the agent was told and waits for."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.cancelled = 0
        self.asked: list[str] = []
        self.conversations: list[str] = []


def scenario_agent(told: Told) -> object:  # noqa: C901 it is one class
    """The agent."""
    pb2, pb2_grpc = compiled("scenarios")

    class Scenarios(pb2_grpc.ScenarioServiceServicer):  # type: ignore[misc,name-defined]
        async def Ask(self, request: Any, context: Any) -> Any:
            told.asked.append(request.text)
            call = rpc.current_call()
            told.conversations.append(call.conversation if call else "")
            match request.text.split(" ", 1)[0]:
                case "ask":
                    raise rpc.FailedPrecondition("Which one?", reason="INPUT_REQUIRED")
                case "sign":
                    raise rpc.Unauthenticated("Sign in there.", reason="AUTH_REQUIRED")
                case "refuse":
                    raise rpc.PermissionDenied("Not you.")
                case "fail":
                    raise rpc.Internal("It broke.")
                case "wait":
                    await self._wait()
            return pb2.AskResponse(text=f"said: {request.text}", number=request.number)

        async def Count(self, request: Any, context: Any) -> AsyncIterator[Any]:
            for number in range(1, request.up_to + 1):
                yield pb2.CountResponse(number=number)
                if request.stepwise and number == 1:
                    await self._wait()

        async def File(self, request: Any, context: Any) -> HttpBody:
            return HttpBody(content_type=request.type, data=request.data)

        async def Guarded(self, request: Any, context: Any) -> Any:
            call = rpc.current_call()
            identity = call.identity if call else None
            return pb2.GuardedResponse(caller=identity.subject if identity else "")

        async def _wait(self) -> None:
            try:
                await told.go.wait()
            except asyncio.CancelledError:
                told.cancelled += 1
                raise

    return Scenarios()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A running mesh."""

    registry: str
    gateway: Gateway
    told: Told


@contextlib.asynccontextmanager
async def fleet(database_url: str, **further: Any) -> AsyncIterator[Fleet]:
    """A registry, a gateway, the agents `scenarios` and `echo`."""
    told = Told()
    async with (
        Registry(
            database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0)
        ) as registry,
        Host(registry=registry.address) as host,
        gateway_of(registry.address, database_url, **further) as gateway,
    ):
        host.add(scenario_agent(told))
        host.add(Echo("one"))
        await host.start()
        async with httpx.AsyncClient(base_url=gateway.url) as http:

            async def served() -> bool:
                cards = [
                    await http.get(f"/a2a/{agent}/.well-known/agent-card.json")
                    for agent in ("scenarios", "echo")
                ]
                return all(each.status_code == 200 for each in cards)

            await wait_until(served)
        yield Fleet(registry=registry.address, gateway=gateway, told=told)
        told.go.set()


@contextlib.asynccontextmanager
async def gateway_of(registry: str, database_url: str, **further: Any) -> AsyncIterator[Gateway]:
    """A gateway of a mesh."""
    jobs = JobSettings(
        webhook_networks=("127.0.0.0/8",),
        sender=SenderSettings(first_pause=timedelta(milliseconds=300)),
    )
    async with Gateway(
        registry=registry,
        database_url=database_url,
        listen="127.0.0.1:0",
        grpc_listen="127.0.0.1:0",
        **({"jobs": jobs} | further),
    ) as gateway:
        await gateway.ready()
        yield gateway
