"""The same request through the gateway and through Envoy: the same message at the agent, the same answer.

`differences.toml` lists every request that comes out differently, with the reason; a difference that is not listed
fails, and so does an entry that is none any more.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import google.rpc
import grpc_tools
import httpx
import pytest
from google.protobuf import text_format
from tests.conformance.envoy import cases, oracle
from tests.conformance.envoy.cases import Case
from tests.edge import conftest as edges

from weft import rpc
from weft.agents import Host
from weft.agents.echo import Echo
from weft.gateway import Gateway
from weft.registry import Registry
from weft.rpc.testing import wait_until

HERE = Path(__file__).parent
PROTO = HERE.parents[2] / "proto"
ATLAS, ECHO = "tests.atlas.v1.AtlasService", "weft.echo.v1.EchoService"
# The gateway tells the agent who calls and how long it may take; nobody tells Envoy.
TOLD = ("caller", "timeLeft")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request."""

    status: int
    answer: Any
    reached: list[str]

    def brief(self) -> str:
        text = self.answer if isinstance(self.answer, str) else json.dumps(self.answer)
        short = f"{self.status} {'; '.join(self.reached) or 'nothing'}"
        return short if self.status != 200 or len(text) > 200 else f"{short} -> {text}"


@dataclass(slots=True)
class Sides:
    gateway: httpx.AsyncClient
    envoy: httpx.AsyncClient
    edge: httpx.AsyncClient
    reached: list[str] = field(default_factory=list)

    async def send(self, http: httpx.AsyncClient, case: Case) -> Outcome:
        self.reached.clear()
        headers = {"accept": "application/json"}
        if case.content is not None:
            headers["content-type"] = case.content_type
        base = str(http.base_url).rstrip("/")
        url = httpx.URL(base).copy_with(raw_path=case.target.encode())
        told = await http.request(case.method, url, content=case.content, headers=headers)
        # The gateway calls an agent that is unavailable again; Envoy is not told to.
        reached = list(dict.fromkeys(self.reached))
        return Outcome(told.status_code, _answer(told), reached)


def _answer(told: httpx.Response) -> Any:
    if told.is_error or told.request.method == "HEAD":
        return ""
    if told.headers["content-type"] != "application/json":
        return f"{told.headers['content-type']} {told.content!r}"
    try:
        found = told.json()
    except ValueError:
        return repr(told.content)
    return {k: v for k, v in found.items() if k not in TOLD} if isinstance(found, dict) else found


def protoc(*wanted: str) -> None:
    googleapis = Path(next(iter(google.rpc.__path__))).parents[1]
    includes = (HERE, PROTO, googleapis, resources.files(grpc_tools) / "_proto")
    made = subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *(f"-I{each}" for each in includes), *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    folder = tmp_path_factory.mktemp("atlas")
    protoc(f"--python_out={folder}", f"--grpc_python_out={folder}", "atlas.proto")
    together = ("--include_imports", "atlas.proto", "weft/echo/v1/echo.proto")
    protoc(f"--descriptor_set_out={folder / 'all.pb'}", *together)
    sys.path.insert(0, str(folder))
    yield SimpleNamespace(
        messages=importlib.import_module("atlas_pb2"),
        services=importlib.import_module("atlas_pb2_grpc"),
        descriptors=folder / "all.pb",
    )
    sys.path.remove(str(folder))


def agents(generated: SimpleNamespace, reached: list[str]) -> list[Any]:  # noqa: C901 eight methods
    """Agents that note what reaches them."""
    messages = generated.messages

    def note(method: str, request: Any) -> None:
        text = text_format.MessageToString(request, as_one_line=True)
        reached.append(f"{method} {text}".strip())

    class Atlas(generated.services.AtlasServiceServicer):  # type: ignore[name-defined]
        async def Find(self, request: Any, context: Any) -> Any:
            note("Find", request)
            return messages.Reply(method="Find", shape=request)

        async def Make(self, request: Any, context: Any) -> Any:
            note("Make", request)
            return messages.Reply(method="Make", shape=request)

        async def Inside(self, request: Any, context: Any) -> Any:
            note("Inside", request)
            found = messages.File(name="outside")
            found.content.content_type, found.content.data = "text/csv", request.name.encode()
            return found

        async def Count(self, request: Any, context: Any) -> AsyncIterator[Any]:
            note("Count", request)
            if request.int32_value < 0:
                raise rpc.NotFound("nothing is counted downwards")
            for number in range(request.int32_value):
                yield messages.Reply(shape=messages.Shape(int32_value=number))

        async def Turn(self, request: Any, context: Any) -> Any:
            note("Turn", request)
            return type(request)(content_type=request.content_type, data=request.data[::-1])

        async def Store(self, request: Any, context: Any) -> Any:
            note("Store", request)
            return request.content

    class Recording(Echo):
        async def Say(self, request: Any, context: Any) -> Any:
            note("Say", request)
            return await super().Say(request, context)

        async def Repeat(self, request: Any, context: Any) -> AsyncIterator[Any]:
            note("Repeat", request)
            async for answer in super().Repeat(request, context):
                yield answer

    return [Atlas(), Recording("one")]


@pytest.fixture
async def sides(
    fresh_xds: None, database_url: str, generated: SimpleNamespace, tmp_path: Path
) -> AsyncIterator[Sides]:
    reached: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        registry = await enter(
            Registry(database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0))
        )
        services = {}
        for agent, service in zip(agents(generated, reached), (ATLAS, ECHO), strict=True):
            host = await enter(Host(registry=registry.address))
            host.add(agent)
            await host.start()
            services[service] = host.server.address
        gateway = await enter(
            Gateway(
                registry=registry.address,
                database_url=database_url,
                listen="127.0.0.1:0",
                grpc_listen="127.0.0.1:0",
            )
        )
        envoy = await enter(oracle.running(tmp_path, generated.descriptors, services))
        (tmp_path / "edge").mkdir()
        edge = await enter(edges.running(tmp_path / "edge", registry.address))
        clients = [
            await enter(httpx.AsyncClient(base_url=url, timeout=20))
            for url in (gateway.url, envoy, edge.url)
        ]

        async def served() -> bool:
            asked = [
                await client.get(path)
                for client in clients
                for path in ("/v1/echo/a", "/v1/shapes/a")
            ]
            return all(each.status_code == 200 for each in asked)

        await wait_until(served)
        yield Sides(*clients, reached)


async def test_the_edge_is_the_same_envoy(sides: Sides) -> None:
    """What the registry tells an edge comes out as what an Envoy is told by hand, and so differs from the gateway by what
    `differences.toml` lists; `edge.toml` lists the rest."""
    listed = tomllib.loads((HERE / "edge.toml").read_text())["difference"]
    expected = {
        request: (by_hand, edge) for each in listed for request, by_hand, edge in each["requests"]
    }
    assert all(each["reason"] for each in listed)
    found = {}
    for case in cases.CASES:
        ours = await sides.send(sides.edge, case)
        theirs = await sides.send(sides.envoy, case)
        if ours != theirs:
            found[str(case)] = (theirs.brief(), ours.brief())
    assert found == expected


async def test_the_same_message_and_the_same_answer(sides: Sides) -> None:
    listed = tomllib.loads((HERE / "differences.toml").read_text())["difference"]
    entries = [entry for each in listed for entry in each["requests"]]
    expected = {request: (gateway, envoy) for request, gateway, envoy in entries}
    assert len(expected) == len(entries)
    assert all(each["reason"] for each in listed)
    assert len({str(case) for case in cases.CASES}) == len(cases.CASES)
    found = {}
    for case in cases.CASES:
        ours = await sides.send(sides.gateway, case)
        theirs = await sides.send(sides.envoy, case)
        assert ours.status < 500 or "failWith" in str(case), case
        if ours != theirs:
            found[str(case)] = (ours.brief(), theirs.brief())
    assert found == expected
