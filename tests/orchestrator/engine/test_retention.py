"""Runs that ended long ago are deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import pytest
from tests.orchestrator.conftest import begin, chain, ended, spec

from weft import config, rpc
from weft.agents.orchestrator import fleet
from weft.agents.orchestrator.engine import retention
from weft.agents.orchestrator.engine.retention import Retention
from weft.agents.orchestrator.spending import Purses, ledger_of
from weft.cli import orchestration
from weft.rpc.testing import channel_for, wait_until
from weft.telemetry import Instruments, Telemetry
from weft.v1 import orchestrator_pb2 as pb
from weft.v1 import orchestrator_pb2_grpc


async def test_old_runs_go_with_all_that_belongs_to_them(
    ann: Any, mesh: Any, database_url: str
) -> None:
    inner = chain("a")
    inner.name = "inner"
    await ann.SubmitWorkflow(pb.SubmitWorkflowRequest(spec=inner))
    outer = spec(nodes=[{"id": "sub", "workflow": {"name": "inner", "message": "input"}}])
    old = await begin(ann, outer)
    await ended(ann, old.id)
    wait = {"name": "go", "type": "weft.echo.v1.SayRequest"}
    open_ = await begin(ann, spec(nodes=[{"id": "first", "wait": wait}]))
    async with (
        await fleet.database(database_url) as database,
        await ledger_of(database_url) as ledger,
    ):
        purses = Purses(ledger, database)
        assert await Retention(database, purses, timedelta(hours=1)).forget() == 0
        assert await Retention(database, purses, timedelta(0)).forget() == 2
        assert await database.fetch("read_events", 1, 0, 10) == []
        assert await database.fetch("read_events", 2, 0, 10) == []
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await ann.GetRun(pb.GetRunRequest(id=old.id))
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND
    assert [run.id for run in (await ann.ListRuns(pb.ListRunsRequest())).runs] == [open_.id]


async def found(client: Any, run: str) -> bool:
    try:
        await client.GetRun(pb.GetRunRequest(id=run))
    except grpc.aio.AioRpcError as failed:
        if failed.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return False
    return True


async def test_the_setting_says_how_long(
    mesh: Any, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_EVERY", 0.2)
    given = {"WEFT_DATABASE_URL": database_url, "WEFT_ORCHESTRATOR_KEEP": "1s"}
    add = orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server
    async with rpc.Channel(mesh.registry) as registry, mesh.channel("echo") as echo:
        served = orchestration.served(
            config.load(given),
            registry=registry,
            channel=lambda _: echo,
            telemetry=Telemetry(metrics=Instruments("orchestrator")),
        )
        async with served as service, channel_for(add, service) as channel:
            client = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
            run = await begin(client, chain("a"))
            await ended(client, run.id)
            assert await found(client, run.id)

            async def gone() -> bool:
                return not await found(client, run.id)

            await wait_until(gone, timedelta(seconds=20))


@pytest.mark.parametrize(
    ("text", "keep"), [("", timedelta(days=90)), ("7d", timedelta(days=7)), ("0s", None)]
)
def test_what_the_setting_means(text: str, keep: timedelta | None) -> None:
    settings = config.load({"WEFT_ORCHESTRATOR_KEEP": text})
    assert orchestration._orchestrator_settings(settings).keep == keep
