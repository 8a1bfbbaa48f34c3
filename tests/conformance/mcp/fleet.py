"""A mesh whose only agent is the one that the MCP conformance suite looks for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import google.rpc
import grpc_tools
import httpx
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from weft import rpc
from weft.agents import Host
from weft.gateway import Gateway
from weft.registry import Registry
from weft.rpc.testing import wait_until
from weft.support.v1 import (
    escalation_pb2_grpc,
    quality_pb2_grpc,
    research_pb2_grpc,
    solution_pb2_grpc,
    triage_pb2_grpc,
)

HERE = Path(__file__).parent
PROTO = HERE.parents[2] / "proto"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
WAV = b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0D\xac\0\0\x88X\1\0\2\0\x10\0data\0\0\0\0"
_PAUSE = 0.05


@cache
def generated() -> tuple[Any, Any]:
    """The modules of conformance.proto: messages and services."""
    googleapis = Path(next(iter(google.rpc.__path__))).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc"),
                *(f"-I{HERE}", f"-I{PROTO}", f"-I{googleapis}"),
                f"-I{resources.files(grpc_tools) / '_proto'}",
                *(f"--python_out={folder}", f"--grpc_python_out={folder}", "conformance.proto"),
            ],
            check=True,
        )
        sys.path.insert(0, folder)
        try:
            return (
                importlib.import_module("conformance_pb2"),
                importlib.import_module("conformance_pb2_grpc"),
            )
        finally:
            sys.path.remove(folder)


def conformance_agent(registry: str) -> object:  # noqa: C901 it is one class
    """The agent."""
    pb2, pb2_grpc = generated()

    class Conformance(pb2_grpc.ConformanceServiceServicer):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.others: list[Host] = []
            # Agents that do nothing, but their skills are tools and their examples prompts.
            self.absent = [
                quality_pb2_grpc.QualityServiceServicer(),
                solution_pb2_grpc.SolutionServiceServicer(),
                triage_pb2_grpc.TriageServiceServicer(),
                escalation_pb2_grpc.EscalationServiceServicer(),
                research_pb2_grpc.ResearchServiceServicer(),
            ]
            self.guarded = 0

        async def SimpleText(self, request: Any, context: Any) -> HttpBody:
            return text("This is a simple text response for testing.")

        async def Greet(self, request: Any, context: Any) -> HttpBody:
            return text(f"Hello, {request.name}!")

        async def Image(self, request: Any, context: Any) -> HttpBody:
            return HttpBody(content_type="image/png", data=PNG)

        async def Audio(self, request: Any, context: Any) -> HttpBody:
            return HttpBody(content_type="audio/wav", data=WAV)

        async def Embedded(self, request: Any, context: Any) -> HttpBody:
            return HttpBody(content_type="application/json", data=b'{"embedded":true}')

        async def Mixed(self, request: Any, context: Any) -> AsyncIterator[HttpBody]:
            yield text("Multiple content types test:")
            yield HttpBody(content_type="image/png", data=PNG)
            yield HttpBody(content_type="application/json", data=b'{"test":"data","value":123}')

        async def Fail(self, request: Any, context: Any) -> Empty:
            raise rpc.FailedPrecondition(
                "This tool intentionally returns an error for testing", reason="ON_PURPOSE"
            )

        async def Progress(self, request: Any, context: Any) -> AsyncIterator[Any]:
            for done, note in enumerate(("started", "processing", "completed")):
                if done:
                    await asyncio.sleep(_PAUSE)
                yield pb2.Step(done=50 * done, total=100, note=note)

        Log = Quiet = Stream = Progress

        async def Register(self, request: Any, context: Any) -> Empty:
            return Empty()

        async def Route(self, request: Any, context: Any) -> Any:
            route = f"{request.region}/{request.priority}/{request.urgent}"
            return pb2.RouteResponse(route=route, number=2**60)

        async def ChangeTools(self, request: Any, context: Any) -> Empty:
            other = Host(registry=registry, drain=timedelta(0))
            other.add(self.absent.pop())
            self.others.append(other)
            await other.start()
            return Empty()

        ChangePrompts = ChangeTools

        async def StaticText(self, request: Any, context: Any) -> HttpBody:
            return text("This is the content of the static text resource.")

        async def StaticBinary(self, request: Any, context: Any) -> HttpBody:
            return HttpBody(content_type="image/png", data=PNG)

        async def Watched(self, request: Any, context: Any) -> HttpBody:
            return text("Watched.")

        async def GetData(self, request: Any, context: Any) -> Any:
            if request.id == "none":
                raise rpc.NotFound("There is no such data.")
            return pb2.GetDataResponse(
                id=request.id, template_test=True, data=f"Data for ID: {request.id}"
            )

        async def SimplePrompt(self, request: Any, context: Any) -> Empty:
            return Empty()

        async def PromptWithArguments(self, request: Any, context: Any) -> Empty:
            return Empty()

        async def PromptWithResource(self, request: Any, context: Any) -> AsyncIterator[HttpBody]:
            if not request.resource_uri:
                raise rpc.InvalidArgument("is missing", field="resource_uri")
            told = f'{{"uri":"{request.resource_uri}"}}'
            yield HttpBody(content_type="application/json", data=told.encode())
            yield text("Please process the embedded resource above.")

        async def PromptWithImage(self, request: Any, context: Any) -> AsyncIterator[HttpBody]:
            yield HttpBody(content_type="image/png", data=PNG)
            yield text("Please analyze the image above.")

        async def Guarded(self, request: Any, context: Any) -> Empty:
            self.guarded += 1
            return Empty()

    return Conformance()


def text(said: str) -> HttpBody:
    return HttpBody(content_type="text/plain; charset=utf-8", data=said.encode())


@contextlib.asynccontextmanager
async def fleet(database_url: str, **settings: Any) -> AsyncIterator[tuple[Gateway, Any]]:
    """The gateway in front of the agent, and the agent."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        registry = await enter(
            Registry(database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0))
        )
        host = await enter(Host(registry=registry.address))
        agent: Any = conformance_agent(registry.address)
        host.add(agent)
        await host.start()

        async def stop_others() -> None:
            for other in agent.others:
                await other.stop()

        stack.push_async_callback(stop_others)
        gateway = await enter(
            Gateway(
                registry=registry.address,
                database_url=database_url,
                listen="127.0.0.1:0",
                grpc_listen="127.0.0.1:0",
                **settings,
            )
        )

        async def served() -> bool:
            document = (await http.get("/openapi.json")).text
            return "weft.conformance" in document or await answers(http)

        async with httpx.AsyncClient(base_url=gateway.url) as http:
            await wait_until(served)
        yield gateway, agent


async def answers(http: httpx.AsyncClient) -> bool:
    """Whether the gateway knows the agent."""
    path = "/weft.conformance.v1.ConformanceService/SimpleText"
    return (await http.post(path, json={})).status_code == 200
