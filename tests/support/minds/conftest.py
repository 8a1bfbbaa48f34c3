"""The fleet with models: real gRPC, Redis and PostgreSQL, and a local server that speaks the Messages API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from tests.conftest import empty_database, let_go_of_xds_clients
from tests.support import test_pipeline

from weft import embedded, rpc
from weft.agents.breaker import BreakerSettings
from weft.agents.llm import Endpoint, ModelEntry, Models
from weft.agents.support import Fleet, SupervisorAgent
from weft.rpc.testing import channel_for
from weft.support.v1 import (
    escalation_pb2_grpc,
    quality_pb2_grpc,
    research_pb2_grpc,
    solution_pb2_grpc,
    supervisor_pb2_grpc,
    triage_pb2_grpc,
)
from weft.testing.messages_server import MessagesServer

WRITER, STAND_IN, JUDGE, SECOND_JUDGE = "writer", "stand-in", "judge", "second-judge"


def models_of(server: MessagesServer, *, fallback: bool, **further: Any) -> Models:
    """The models of the fleet. With a fallback they are held to schemas by format, else by tools: both ways are taken.

    Circuits never open: each test is of its own failure.
    """
    endpoint = Endpoint(
        name="test",
        url=server.url,
        structured="format" if fallback else "forced_tool",
        free=True,
    )

    def entry(model: str, *others: str) -> ModelEntry:
        return ModelEntry(
            endpoint=endpoint, model=model, fallback=others if fallback else (), retries=0
        )

    return Models(
        {
            "support-solution": entry(WRITER, STAND_IN),
            STAND_IN: entry(STAND_IN),
            "support-triage": entry(JUDGE, SECOND_JUDGE),
            SECOND_JUDGE: entry(SECOND_JUDGE),
        },
        breaker=BreakerSettings(failures=10_000),
        **further,
    )


@dataclass(frozen=True, kw_only=True)
class Minded:
    """A fleet with models, and its two supervisors: by who runs the pipeline."""

    server: MessagesServer
    fallback: bool
    supervisors: dict[str, Any]
    research: Any


@pytest_asyncio.fixture(scope="module")
async def server() -> AsyncIterator[MessagesServer]:
    """A server that speaks the Messages API."""
    pytest.importorskip("anthropic")
    async with MessagesServer() as running:
        yield running


@pytest_asyncio.fixture(scope="module", params=[True, False], ids=["fallback", "alone"])
async def minded(
    request: pytest.FixtureRequest,
    server: MessagesServer,
    servers: embedded.Endpoints,
    spare_databases: list[str],
) -> AsyncIterator[Minded]:
    """A fleet of seven agents and an orchestrator in one mesh."""
    let_go_of_xds_clients()
    models = models_of(server, fallback=request.param)
    redis_url = urlsplit(servers.redis_url)._replace(query="db=15").geturl()
    async with (
        empty_database(servers, spare_databases) as database_url,
        test_pipeline.house(database_url, redis_url, models=models) as mesh,
        embedded.redis_client(redis_url) as client,
        rpc.Channel(mesh.address) as channel,
    ):
        research = research_pb2_grpc.ResearchServiceStub(channel)
        led = Fleet(
            triage=triage_pb2_grpc.TriageServiceStub(channel),
            research=research,
            solution=solution_pb2_grpc.SolutionServiceStub(channel),
            quality=quality_pb2_grpc.QualityServiceStub(channel),
            escalation=escalation_pb2_grpc.EscalationServiceStub(channel),
        )
        add = supervisor_pb2_grpc.add_SupervisorServiceServicer_to_server
        async with channel_for(add, SupervisorAgent(led, client)) as here:
            yield Minded(
                server=server,
                fallback=request.param,
                supervisors={
                    "in-process": supervisor_pb2_grpc.SupervisorServiceStub(here),
                    "orchestrated": mesh.supervisor,
                },
                research=research,
            )
        await client.flushdb()
    await models.close()
    let_go_of_xds_clients()
