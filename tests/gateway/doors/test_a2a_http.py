"""A2A by HTTP+JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from tests.conformance.a2a.fleet import Fleet
from tests.gateway.doors.a2a_client import ASK, COUNT, VERSION, events, message, text

MEDIA_TYPE = "application/a2a+json"
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest_asyncio.fixture(scope="module")
async def http(scenarios: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    base = f"{scenarios.gateway.url}/a2a/scenarios"
    async with httpx.AsyncClient(base_url=base, timeout=20, headers=VERSION) as client:
        yield client


async def test_a_message_makes_a_task(http: httpx.AsyncClient) -> None:
    answer = await http.post("/message:send", json=text("x"))
    assert answer.headers["content-type"] == MEDIA_TYPE
    made = answer.json()["task"]
    assert made["status"]["state"] == "TASK_STATE_COMPLETED"
    read = await http.get(f"/tasks/{made['id']}", params={"historyLength": 0})
    assert read.json() == {name: made[name] for name in made if name != "history"}
    listed = await http.get(
        "/tasks",
        params={"contextId": made["contextId"], "pageSize": 1, "includeArtifacts": "true"},
    )
    assert [each["artifacts"] for each in listed.json()["tasks"]] == [made["artifacts"]]


async def test_a_stream_is_of_bare_events(http: httpx.AsyncClient) -> None:
    sent = message({"data": {"upTo": 2}}, skill=COUNT)
    async with http.stream("POST", "/message:stream", json=sent) as response:
        assert response.headers["content-type"] == "text/event-stream"
        seen = [next(iter(each)) async for each in events(response)]
    assert seen == ["task", "artifactUpdate", "artifactUpdate", "statusUpdate"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_subscribing_and_cancelling(
    scenarios: Fleet, http: httpx.AsyncClient, method: str
) -> None:
    scenarios.told.go.clear()
    sent = text("wait", configuration={"returnImmediately": True})
    task_id = (await http.post("/message:send", json=sent)).json()["task"]["id"]
    async with http.stream(method, f"/tasks/{task_id}:subscribe") as response:
        told = events(response)
        assert (await anext(told))["task"]["id"] == task_id
        cancelled = await http.post(f"/tasks/{task_id}:cancel")
        assert cancelled.json()["status"]["state"] == "TASK_STATE_CANCELED"
        last = [each async for each in told][-1]
        assert last["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"
    scenarios.told.go.set()


async def test_the_extended_card_has_what_the_caller_may_use(http: httpx.AsyncClient) -> None:
    answer = await http.get("/extendedAgentCard")
    assert ASK in {each["id"] for each in answer.json()["skills"]}


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", f"/tasks/{NOBODY}", 404, "TASK_NOT_FOUND"),
        ("POST", f"/tasks/{NOBODY}:cancel", 404, "TASK_NOT_FOUND"),
        ("POST", f"/tasks/{NOBODY}:subscribe", 404, "TASK_NOT_FOUND"),
        ("GET", f"/tasks/{NOBODY}/pushNotificationConfigs", 404, "TASK_NOT_FOUND"),
        ("POST", "/message:send", 400, "INVALID_ARGUMENT"),
        ("GET", "/tasks?pageSize=x", 400, "INVALID_ARGUMENT"),
        ("GET", "/tasks?includeArtifacts=1", 400, "INVALID_ARGUMENT"),
        ("GET", "/other/tasks", 400, "INVALID_ARGUMENT"),
        ("GET", "/nothing", 404, "OPERATION_UNKNOWN"),
        ("GET", "/tasks/x/y", 404, "OPERATION_UNKNOWN"),
        ("GET", "/tasks//pushNotificationConfigs", 404, "OPERATION_UNKNOWN"),
        ("GET", "/tasks/a/pushNotificationConfigs/b/c", 404, "OPERATION_UNKNOWN"),
        ("POST", "/tasks/x:other", 404, "OPERATION_UNKNOWN"),
    ],
)
async def test_errors_are_of_google_rpc(
    http: httpx.AsyncClient, method: str, path: str, status: int, reason: str
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    told = answer.json()["error"]
    assert told["code"] == status
    assert told["details"][0]["reason"] == reason


async def test_http_itself(http: httpx.AsyncClient) -> None:
    refused = await http.delete("/message:send")
    assert (refused.status_code, refused.headers["allow"]) == (405, "OPTIONS, POST")
    assert (await http.options("/tasks")).headers["allow"] == "GET, OPTIONS"
    wrong = await http.post("/message:send", content=b"x", headers={"content-type": "text/plain"})
    assert wrong.json()["error"]["details"][0]["reason"] == "CONTENT_TYPE_NOT_SUPPORTED"
    right = {"content-type": MEDIA_TYPE}
    broken = await http.post("/message:send", content=b"{", headers=right)
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, 400)
    old = await http.get("/tasks", headers={"A2A-Version": "0.3"})
    assert old.json()["error"]["details"][0]["reason"] == "VERSION_NOT_SUPPORTED"
    assert old.status_code == 400


async def test_the_callers_own_tenant_may_stand_in_the_path(http: httpx.AsyncClient) -> None:
    # Callers without one have no path of their own; a name that is not theirs opens nothing.
    refused = await http.post("/acme/message:send", json=text("x"))
    assert refused.status_code == 400
    assert "tenant" in refused.json()["error"]["message"]
