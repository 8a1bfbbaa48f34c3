"""What a contract says about jobs: as_job and job_keep."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from prometheus_client import CollectorRegistry
from tests.gateway.conftest import Mesh, routed, running

from weft import telemetry
from weft.echo.v1 import echo_pb2
from weft.rpc.testing import wait_until
from weft.v1 import options_pb2

SERVICE = "weft.echo.v1.EchoService"
KEEP = timedelta(minutes=10)


def contract() -> bytes:
    """That of echo, all of whose skills are jobs."""
    files = descriptor_pb2.FileDescriptorSet()
    seen: set[str] = set()

    def add(file: Any) -> None:
        if file.name not in seen:
            seen.add(file.name)
            for needed in file.dependencies:
                add(needed)
            file.CopyToProto(files.file.add())

    add(echo_pb2.DESCRIPTOR)
    for method in files.file[-1].service[0].method:
        skill = method.options.Extensions[options_pb2.skill]
        skill.as_job = True
        skill.job_keep.FromTimedelta(KEEP)
    return files.SerializeToString()


@pytest.fixture
def later(own: Mesh) -> Mesh:
    """A mesh whose echo says so."""
    own.gateway._use({"echo": {SERVICE: "later"}}, {"later": contract()})
    return own


def kept(job: dict[str, Any]) -> timedelta:
    ends = (datetime.fromisoformat(job[name]) for name in ("expireTime", "endTime"))
    expires, ended = ends
    return expires - ended


async def test_a_skill_that_is_a_job(later: Mesh) -> None:
    http = later.http
    for path, asked in (
        ("/v1/echo:say", {"text": "x"}),
        (f"/{SERVICE}/SayOnce", {"say": {"text": "x"}}),
        ("/v1/echo:repeat", {"text": "x", "count": 2}),
    ):
        answer = await http.post(path, json=asked)
        assert answer.status_code == 202, answer.text
        assert "preference-applied" not in answer.headers  # nobody preferred it
        waited = await http.post(f"{answer.headers['location']}:wait", json={})
        assert waited.json()["state"] == "JOB_STATE_SUCCEEDED"
        assert kept(waited.json()) == KEEP
    shorter = await http.post("/v1/echo:say", json={}, headers={"job-keep": "1m"})
    waited = await http.post(f"{shorter.headers['location']}:wait", json={})
    assert kept(waited.json()) == timedelta(minutes=1)
    channel: Any
    async with grpc.aio.insecure_channel(later.gateway.grpc_address) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Say")(b"", timeout=10)
        assert await call == b""
        assert dict(await call.trailing_metadata())["job"]
        gathering = channel.stream_unary(f"/{SERVICE}/Gather")(iter([b""]), timeout=10)
        assert echo_pb2.GatherResponse.FromString(await gathering).texts == [""]
    described = (await http.get("/openapi.json")).json()["paths"]
    for path in ("/v1/echo:say", f"/{SERVICE}/SayOnce", "/v1/echo:repeat"):
        accepted = described[path]["post"]["responses"]["202"]
        assert accepted["content"]["application/json"]["schema"]["$ref"].endswith("weft.v1.Job")


@pytest.mark.usefixtures("fresh_xds")
async def test_they_are_counted(database_url: str) -> None:
    async with (
        telemetry.start("gateway") as seen,
        running(database_url, telemetry=seen) as mesh,
    ):
        await routed(mesh.http)
        shown: CollectorRegistry = seen.metrics.registry
        asked = {"prefer": "respond-async", "job-webhook": "https://no-such-host.invalid/"}
        for fails in (0, 5):
            begun = await mesh.http.post("/v1/echo:say", json={"failWith": fails}, headers=asked)
            await mesh.http.post(f"{begun.headers['location']}:wait", json={})

        def counted() -> bool:
            ended = [
                shown.get_sample_value("weft_gateway_jobs_ended_total", {"state": state})
                for state in ("succeeded", "failed")
            ]
            return ended == [1, 1]

        def tried() -> bool:
            outcome = {"outcome": "pending"}
            return bool(shown.get_sample_value("weft_gateway_webhooks_total", outcome))

        await wait_until(counted)
        await wait_until(tried)
        assert shown.get_sample_value("weft_gateway_jobs", {"state": "queued"}) is not None
        assert shown.get_sample_value("weft_gateway_jobs_oldest_seconds") is not None
        assert shown.get_sample_value("weft_gateway_webhooks_pending") is not None
