"""The clients of clients/, each against a registry and three replicas of echo of which one is killed."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
import pytest_asyncio
from tests.polyglot.conftest import PATIENCE, PROGRAMS, Program, Town, town
from tests.polyglot.replica import NAME

from weft import rpc
from weft.rpc.bootstrap import BOOTSTRAP_VARIABLE, xds_bootstrap
from weft.rpc.testing import wait_until
from weft.v1 import trace_pb2, trace_pb2_grpc

# The first build of a language takes minutes.
pytestmark = [pytest.mark.failure, pytest.mark.timeout(900)]

NAMES = ("anna", "ben", "cora")


@pytest_asyncio.fixture(scope="module")
async def mesh(
    database_of_module: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Town]:
    # Nobody is unknown to a registry that has just started.
    settings = {"WEFT_REGISTRY_COLD_START": "0s"}
    async with town(tmp_path_factory.mktemp("mesh"), database_of_module, **settings) as made:
        yield made


@pytest.fixture(scope="module")
def replicas() -> dict[str, Program]:
    return {}


@pytest.fixture
async def all_in_service(mesh: Town, replicas: dict[str, Program]) -> dict[str, Program]:
    """Replicas of echo by name; the one that the test before has killed is started again."""
    for name in NAMES:
        if name not in replicas:
            serve = ("agents", "serve", "tests.polyglot.replica:echo")
            replicas[name] = await mesh.weft(*serve, **{NAME: name})
    await mesh.until(lambda found: len(found) == len(NAMES))
    return replicas


@pytest.mark.parametrize("language", list(PROGRAMS))
async def test_a_client(
    language: str,
    built: Callable[[str], None],
    mesh: Town,
    all_in_service: dict[str, Program],
) -> None:
    built(language)
    client = await _started(mesh, language, "echo")
    unary = await client.line()
    assert unary["step"] == "unary"
    assert (unary["text"], unary["instance"] in NAMES) == ("hello", True)

    assert await client.line() == {"step": "stream", "numbers": [0, 1, 2]}

    deadline = await client.line()
    assert (deadline["step"], deadline["code"]) == ("deadline", "DEADLINE_EXCEEDED")
    assert 190 <= deadline["ms"] < 3_000  # of 200; the agent would have taken 5,000

    assert await client.line() == {
        "step": "error",
        "code": "INVALID_ARGUMENT",
        "reason": "INVALID_ARGUMENT",
        "domain": "weft.dev",
        "field": "fail_with",
        "description": "must be 0 to 16",
    }

    trace = await client.line()
    assert trace["step"] == "trace"
    assert await _span_of_agent(mesh, trace["trace_id"]) == "weft.echo.v1.EchoService/Say"

    met = {(await client.line())["instance"] for _ in NAMES}
    assert met == set(NAMES)
    killed = all_in_service.pop(unary["instance"])
    killed.signal(signal.SIGKILL)

    calls = await client.line()
    assert calls["step"] == "calls"
    assert calls["failed"] == []
    assert calls["made"] == sum(calls["instances"].values())
    left = [made for name, made in calls["instances"].items() if name != unary["instance"]]
    assert min(left) > calls["instances"][unary["instance"]], "calls went on without it"
    assert await client.ended() == 0, client.log


@pytest.mark.parametrize("language", list(PROGRAMS))
async def test_an_agent_that_does_not_exist(
    language: str, built: Callable[[str], None], mesh: Town
) -> None:
    built(language)
    client = await _started(mesh, language, "nobody")
    assert await asyncio.wait_for(client.ended(), 30) != 0
    assert re.search("not.?found", client.log, re.IGNORECASE), client.log


async def _started(mesh: Town, language: str, agent: str) -> Program:
    return await mesh.start(
        f"client-{language}-{agent}",
        *(*PROGRAMS[language], "--agent", agent),
        *(("--registry", mesh.registry) if language == "rust" else ()),
        **{BOOTSTRAP_VARIABLE: xds_bootstrap(mesh.registry, language)},
    )


async def _span_of_agent(mesh: Town, trace_id: str) -> str:
    """The name of the span that the agent made of a call; agents send them to the registry."""
    async with rpc.Channel(mesh.registry) as channel:
        stub = trace_pb2_grpc.TraceQueryServiceStub(channel)
        spans: list[trace_pb2.Span] = []

        async def arrived() -> bool:
            try:
                found = await stub.GetTrace(trace_pb2.GetTraceRequest(trace_id=trace_id))
            except grpc.aio.AioRpcError as failed:
                if failed.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                return False
            spans.extend(found.spans)
            return True

        await wait_until(arrived, PATIENCE)
    (span,) = spans
    return span.name
