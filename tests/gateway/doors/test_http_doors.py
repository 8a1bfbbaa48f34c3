"""REST, Connect and SSE at a real gateway, in front of a real agent."""

from __future__ import annotations

import asyncio
import base64
import time

import httpx
import pytest
from google.rpc import error_details_pb2
from httpx import AsyncClient
from tests.gateway.entries import Entry, Why

CONNECT = "/weft.echo.v1.EchoService"


def reason(answer: httpx.Response) -> str:
    details = answer.json()["error"]["details"]
    return next(d["reason"] for d in details if d["@type"].endswith("ErrorInfo"))


def fields(answer: httpx.Response) -> list[str]:
    body = answer.json()
    told = body.get("error") or {"details": [d["debug"] for d in body["details"]]}
    details = told["details"]
    return [v["field"] for d in details for v in d.get("fieldViolations", [])]


async def test_rest_by_body_path_and_query(http: AsyncClient, entry: Entry) -> None:
    by_body = await http.post("/v1/echo:say", json={"text": "hé"})
    told = {"text": "hé", "instance": "one", "caller": entry.nobody}
    assert {"caller": "", **by_body.json()} == told | {"timeLeft": by_body.json()["timeLeft"]}
    by_path = await http.get("/v1/echo/a%20b", params={"delay": "0.001s"})
    assert by_path.json()["text"] == "a b"


@pytest.mark.gateway_only(Why.LAXER)
async def test_a_bound_path_field_is_never_overridden(http: AsyncClient) -> None:
    answer = await http.get("/v1/echo/path", params={"text": "query"})
    assert answer.status_code == 400
    assert fields(answer) == ["text"]


async def test_connect_unary(http: AsyncClient) -> None:
    answer = await http.post(
        f"{CONNECT}/Say", json={"text": "hi"}, headers={"connect-protocol-version": "1"}
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["text"] == "hi"
    empty = await http.post(f"{CONNECT}/Say", content=b"")
    assert empty.status_code == 200


async def test_connect_errors_have_their_own_shape(http: AsyncClient) -> None:
    answer = await http.post(f"{CONNECT}/Say", json={"failWith": 5})
    assert answer.status_code == 404
    body = answer.json()
    assert body["code"] == "not_found"
    info = error_details_pb2.ErrorInfo.FromString(
        base64.b64decode(body["details"][0]["value"] + "==")
    )
    assert body["details"][0]["type"] == "google.rpc.ErrorInfo"
    assert info.domain == "weft.dev"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        *((1, 499), (3, 400), (4, 504), (5, 404), (6, 409), (7, 403), (8, 429), (9, 400)),
        *((10, 409), (11, 400), (12, 501), (13, 500), (14, 503), (15, 500), (16, 401)),
    ],
)
async def test_each_code_has_its_http_status(http: AsyncClient, code: int, status: int) -> None:
    answer = await http.post("/v1/echo:say", json={"failWith": code})
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == status


@pytest.mark.parametrize("path", ["/v1/echo:repeat", f"{CONNECT}/Repeat"])
async def test_server_streaming_is_sent_as_events(http: AsyncClient, path: str) -> None:
    async with http.stream("POST", path, json={"text": "x", "count": 3}) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        lines = [line async for line in answer.aiter_lines() if line]
    assert lines == [
        'data: {"text":"x"}',
        'data: {"text":"x","number":1}',
        'data: {"text":"x","number":2}',
        "event: end",
        "data: {}",
    ]


async def test_an_error_in_mid_stream_is_an_event_and_before_it_a_status(http: AsyncClient) -> None:
    async with http.stream("POST", "/v1/echo:repeat", json={"count": 1, "failWith": 5}) as answer:
        assert answer.status_code == 200
        text = (await answer.aread()).decode()
    assert "event: error\ndata: " in text
    assert "event: end" not in text
    early = await http.post("/v1/echo:repeat", json={"count": 0, "failWith": 5})
    assert early.status_code == 404


@pytest.mark.parametrize(
    "headers",
    [{"grpc-timeout": "100m"}, {"connect-timeout-ms": "100"}, {"x-request-timeout": "0.1"}],
)
async def test_a_caller_s_deadline_holds(http: AsyncClient, headers: dict[str, str]) -> None:
    began = time.monotonic()
    answer = await http.post("/v1/echo:say", json={"delay": "20s"}, headers=headers)
    assert answer.status_code == 504
    assert time.monotonic() - began < 2
    quick = await http.post("/v1/echo:say", json={}, headers=headers)
    assert quick.json()["timeLeft"] <= "0.2s"


@pytest.mark.gateway_only(Why.TRACES)
async def test_the_trace_goes_in_and_out(http: AsyncClient) -> None:
    trace_id = f"{5:032x}"
    sent = {"traceparent": f"00-{trace_id}-{1:016x}-00"}
    answer = await http.post("/v1/echo:say", json={}, headers=sent)
    assert answer.headers["traceparent"].split("-")[1] == trace_id
    begun = await http.post("/v1/echo:say", json={})
    assert len(begun.headers["traceparent"].split("-")[1]) == 32


@pytest.mark.parametrize("path", ["/v1/nothing", "/no.such.Service/Method", "/"])
async def test_an_unknown_target_fails_at_once(http: AsyncClient, path: str) -> None:
    began = time.monotonic()
    answer = await http.post(path, json={})
    assert answer.status_code in {404, 405}
    assert time.monotonic() - began < 2  # not the time of an attempt to reach somebody


async def test_a_wrong_method_says_which_are_allowed(http: AsyncClient) -> None:
    answer = await http.delete("/v1/echo:say")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "OPTIONS, POST"


async def test_client_streaming_is_refused_with_a_hint(http: AsyncClient) -> None:
    answer = await http.post(f"{CONNECT}/Gather", json={})
    assert answer.status_code == 501
    assert "gRPC" in answer.json()["message"]


async def test_a_thousand_concurrent_callers_get_their_own_answers(http: AsyncClient) -> None:
    async def ask(number: int) -> None:
        path = "/v1/echo:say" if number % 2 else f"{CONNECT}/Say"
        sent = {"text": f"n{number}", "delay": f"{number % 7 / 1000}s"}
        answer = await http.post(path, json=sent, headers={"x-request-id": "same"})
        assert answer.json()["text"] == f"n{number}"

    gate = asyncio.Semaphore(100)

    async def gated(number: int) -> None:
        async with gate:
            await ask(number)

    async with asyncio.TaskGroup() as group:
        for number in range(1_000):
            group.create_task(gated(number))


async def test_pages(http: AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert "post" in document["paths"]["/v1/echo:say"]
    page = await http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert (await http.get("/")).headers["location"] == "/docs"
    for probe in ("/healthz", "/readyz"):
        assert (await http.get(probe)).json() == {"status": "SERVING"}
