"""Jobs at the doors: how they are asked for, and how JobService is served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from tests.gateway.conftest import Mesh, routed, running

from weft import rpc
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway.guards.key_store import KeyStore
from weft.postgres import Database
from weft.v1 import jobs_pb2, jobs_pb2_grpc

LATER = {"prefer": "respond-async"}


async def begin(http: httpx.AsyncClient, **further: Any) -> dict[str, Any]:
    answer = await http.post(
        "/v1/echo:say",
        json=further.pop("json", {"text": "hello"}),
        headers=LATER | further.pop("headers", {}),
        **further,
    )
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_rest(http: httpx.AsyncClient) -> None:
    begun = await http.post(
        "/v1/echo:say", json={"text": "hello"}, headers={"prefer": 'x; a=b, Respond-Async;q="1"'}
    )
    assert begun.status_code == 202
    assert begun.headers["preference-applied"] == "respond-async"
    job = begun.json()
    assert begun.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["state"] == "JOB_STATE_QUEUED"
    waited = await http.post(f"/v1/jobs/{job['id']}:wait", json={"timeout": "10s"})
    assert waited.json()["state"] == "JOB_STATE_SUCCEEDED"
    found = (await http.get(begun.headers["location"])).json()
    assert found["method"] == "weft.echo.v1.EchoService/Say"
    assert found["response"]["type"] == "weft.echo.v1.SayResponse"
    assert found["response"]["json"] | {"timeLeft": ""} == {
        "text": "hello",
        "instance": "one",
        "caller": "anonymous",
        "timeLeft": "",
    }
    listed = (await http.get("/v1/jobs", params={"state": "JOB_STATE_SUCCEEDED"})).json()
    assert job["id"] in {each["id"] for each in listed["jobs"]}
    assert all("response" not in each for each in listed["jobs"])
    assert (await http.delete(f"/v1/jobs/{job['id']}")).status_code == 200
    gone = await http.get(f"/v1/jobs/{job['id']}")
    assert gone.status_code == 404
    assert gone.json()["error"]["details"][0]["reason"] == "JOB_NOT_FOUND"


async def test_without_the_preference_it_is_a_call(http: httpx.AsyncClient) -> None:
    for prefer in ("", "return=minimal", "not-respond-async", "wait=5"):
        answer = await http.post("/v1/echo:say", json={"text": "x"}, headers={"prefer": prefer})
        assert answer.status_code == 200


async def test_a_failure_is_told(http: httpx.AsyncClient) -> None:
    job = await begin(http, json={"fail_with": 9})
    found = (await http.post(f"/v1/jobs/{job['id']}:wait", json={})).json()
    assert found["state"] == "JOB_STATE_FAILED"
    assert found["error"]["code"] == "FAILED_PRECONDITION"


async def test_connect(http: httpx.AsyncClient) -> None:
    path = "/weft.echo.v1.EchoService/SayOnce"
    request = echo_pb2.SayOnceRequest(say=echo_pb2.SayRequest(text="hi"))
    begun = await http.post(
        path,
        content=request.SerializeToString(),
        headers={"content-type": "application/proto", **LATER},
    )
    assert begun.status_code == 202
    job = jobs_pb2.Job.FromString(begun.content)
    asked = jobs_pb2.WaitJobRequest(id=job.id, binary=True)
    waited = await http.post(
        "/weft.v1.JobService/WaitJob",
        content=asked.SerializeToString(),
        headers={"content-type": "application/proto"},
    )
    found = jobs_pb2.WaitJobResponse.FromString(waited.content).job
    said = echo_pb2.SayOnceResponse.FromString(found.response.binary)
    assert said.said.text == "hi"
    begun = await http.post(path, json={"say": {"text": "hi"}}, headers=LATER)
    assert begun.json()["state"] == "JOB_STATE_QUEUED"


async def test_a_stream_is_watched(http: httpx.AsyncClient) -> None:
    begun = await http.post(
        "/v1/echo:repeat", json={"text": "x", "count": 3, "pause": "0.1s"}, headers=LATER
    )
    assert begun.status_code == 202
    url = f"/v1/jobs/{begun.json()['id']}:watch"
    lines = [json.loads(line) async for line in ndjson(http, url)]
    numbers = [each["message"]["number"] for each in lines if "message" in each]
    assert numbers == ["1", "2", "3"]
    texts = [each["message"]["content"]["json"]["text"] for each in lines if "message" in each]
    assert texts == ["x"] * 3
    assert lines[-1]["job"]["state"] == "JOB_STATE_SUCCEEDED"
    behind = [json.loads(line) async for line in ndjson(http, f"{url}?after=2")]
    assert [each["message"]["number"] for each in behind if "message" in each] == ["3"]


async def ndjson(http: httpx.AsyncClient, url: str) -> AsyncIterator[str]:
    async with http.stream("GET", url, headers={"accept": "application/x-ndjson"}) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            yield line


async def test_cancel(http: httpx.AsyncClient, mesh: Mesh) -> None:
    job = await begin(http, json={"delay": "30s"})
    assert (await http.delete(f"/v1/jobs/{job['id']}")).status_code == 400
    cancelled = await http.post(f"/v1/jobs/{job['id']}:cancel")
    assert cancelled.status_code == 200
    found = (await http.post(f"/v1/jobs/{job['id']}:wait", json={})).json()
    assert found["state"] == "JOB_STATE_CANCELLED"


async def test_a_key_begins_one_job(http: httpx.AsyncClient) -> None:
    keyed = {"idempotency-key": f"job-{http.base_url.port}"}
    assert (await begin(http, headers=keyed))["id"] == (await begin(http, headers=keyed))["id"]
    reused = await http.post("/v1/echo:say", json={"text": "other"}, headers=LATER | keyed)
    assert reused.status_code == 422


@pytest.mark.parametrize(
    "timed", [{"x-request-timeout": "0.3"}, {"x-request-timeout": "5", "job-time": "1"}]
)
async def test_a_job_has_the_deadline_its_caller_names(
    http: httpx.AsyncClient, timed: dict[str, str]
) -> None:
    job = await begin(http, json={"delay": "30s"}, headers=timed)
    found = (await http.post(f"/v1/jobs/{job['id']}:wait", json={})).json()
    assert found["error"]["code"] == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"job-keep": "soon"}, "job-keep"),
        ({"job-time": "-1"}, "job-time"),
        ({"job-webhook": "ftp://example.com"}, "job-webhook"),
        ({"job-webhook": "https://127.0.0.1/"}, "job-webhook"),
        (
            {"job-webhook": "https://example.com/", "job-webhook-secret": "hello"},
            "job-webhook-secret",
        ),
        ({"idempotency-key": "a b"}, "idempotency-key"),
    ],
)
async def test_what_is_wrong_is_named(
    http: httpx.AsyncClient, headers: dict[str, str], field: str
) -> None:
    answer = await http.post("/v1/echo:say", json={}, headers=LATER | headers)
    assert answer.status_code == 400
    assert field in answer.text
    assert "hello" not in answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/jobs/nope", 404),
        ("/v1/jobs/%00", 400),
        ("/v1/jobs?page_size=-1", 400),
        ("/v1/jobs?page_token=x", 400),
        ("/v1/jobs?state=9", 400),
        ("/v1/webhooks?state=77", 400),
        ("/v1/webhooks", 200),
    ],
)
async def test_bad_questions(http: httpx.AsyncClient, path: str, status: int) -> None:
    assert (await http.get(path)).status_code == status


async def test_grpc(mesh: Mesh) -> None:
    async with rpc.Channel(mesh.gateway.grpc_address) as channel:
        echo = echo_pb2_grpc.EchoServiceStub(channel)
        jobs = jobs_pb2_grpc.JobServiceStub(channel)
        prefer = (("prefer", "respond-async"),)
        call = echo.Say(echo_pb2.SayRequest(text="hi"), metadata=prefer)
        assert await call == echo_pb2.SayResponse()
        id_ = str(dict(await call.trailing_metadata())["job"])
        found = (await jobs.WaitJob(jobs_pb2.WaitJobRequest(id=id_))).job
        assert found.response.json.struct_value["text"] == "hi"

        stream = echo.Repeat(echo_pb2.RepeatRequest(count=2), metadata=prefer)
        assert [each async for each in stream] == []
        id_ = str(dict(await stream.trailing_metadata())["job"])
        changes = [each async for each in jobs.WatchJob(jobs_pb2.WatchJobRequest(id=id_))]
        assert [each.message.number for each in changes if each.HasField("message")] == [1, 2]

        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await jobs.GetJob(jobs_pb2.GetJobRequest(id="nope"))
        assert rpc.error_from_call(failed.value).reason == "JOB_NOT_FOUND"
        talk = echo.Talk(metadata=prefer)
        await talk.write(echo_pb2.TalkRequest(text="x"))
        await talk.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await talk.read()
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_identities_that_callers_send_are_not_believed(mesh: Mesh) -> None:
    forged = jobs_pb2.ListJobsRequest()
    async with grpc.aio.insecure_channel(mesh.gateway.grpc_address) as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        entry = (("weft-identity-bin", b"\n\x03bob"),)
        call = echo_pb2_grpc.EchoServiceStub(channel).Say(
            echo_pb2.SayRequest(), metadata=(*entry, ("prefer", "respond-async"))
        )
        await call
        job = str(dict(await call.trailing_metadata())["job"])
        listed = await stub.ListJobs(forged, metadata=entry)
        assert job in {each.id for each in listed.jobs}


@pytest_asyncio.fixture
async def keyed(
    fresh_xds: None, database_url: str
) -> AsyncIterator[tuple[Mesh, list[dict[str, str]]]]:
    """A mesh that asks for keys, and two callers of one tenant and one of another."""
    async with (
        running(database_url, auth="keys") as made,
        await Database.connect(database_url, schema="gateway") as database,
    ):
        database.load("weft.gateway.sql")
        store = KeyStore(database)
        callers = [
            {"x-api-key": (await store.create(name, scopes=[], tenant=tenant)).text}
            for name, tenant in (("ann", "acme"), ("bob", "acme"), ("ann", "other"))
        ]
        await routed(made.http, callers[0])
        yield made, callers


async def test_nobody_sees_the_jobs_of_others(
    keyed: tuple[Mesh, list[dict[str, str]]],
) -> None:
    mesh, (ann, *others) = keyed
    http = mesh.http
    job = await begin(http, headers=ann, json={"delay": "30s"})
    path = f"/v1/jobs/{job['id']}"
    for other in others:
        answers = await asyncio.gather(
            http.get(path, headers=other),
            http.delete(path, headers=other),
            http.post(f"{path}:cancel", headers=other),
            http.post(f"{path}:wait", headers=other, json={}),
            http.get(f"{path}:watch", headers=other),
        )
        assert {answer.status_code for answer in answers} == {404}
        assert (await http.get("/v1/jobs", headers=other)).json() == {}
    assert (await http.get(path)).status_code == 401
    assert (await http.get(path, headers=ann)).json()["state"] in {
        "JOB_STATE_QUEUED",
        "JOB_STATE_RUNNING",
    }
    assert (await http.post(f"{path}:cancel", headers=ann)).status_code == 200


async def test_it_is_in_the_documents(http: httpx.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert {"/v1/jobs", "/v1/jobs/{id}", "/v1/jobs/{id}:wait"} <= paths.keys()
