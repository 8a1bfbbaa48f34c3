"""Push notifications of A2A: what is told, to whom, and which URLs are never called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.conformance.a2a.fleet import Fleet
from tests.gateway.doors.a2a_client import Receiver, error, result, task, text


@pytest_asyncio.fixture(scope="module")
async def http(scenarios: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=scenarios.gateway.url, timeout=20) as client:
        yield client


async def pushed(receiver: Receiver) -> tuple[dict[str, str], Any]:
    async with asyncio.timeout(10):
        return await receiver.seen.get()


async def test_a_settled_task_is_told(http: httpx.AsyncClient) -> None:
    async with Receiver().listening() as receiver:
        config = {
            "url": receiver.url,
            "token": "t",
            "authentication": {"scheme": "Bearer", "credentials": "secret"},
        }
        done = await task(http, text("x", configuration={"taskPushNotificationConfig": config}))
        headers, told = await pushed(receiver)
    assert told == {"task": done}
    assert headers[""] == "POST /hook?x=1 HTTP/1.1"
    assert headers["content-type"] == "application/a2a+json"
    assert headers["authorization"] == "bearer secret"
    assert headers["x-a2a-notification-token"] == "t"
    assert headers["host"] == receiver.url.split("/")[2]


async def test_what_is_not_taken_is_told_again(http: httpx.AsyncClient) -> None:
    async with Receiver(status=503).listening() as receiver:
        config = {"url": receiver.url}
        done = await task(http, text("x", configuration={"taskPushNotificationConfig": config}))
        assert (await pushed(receiver))[1]["task"]["id"] == done["id"]
        receiver.status = 204
        assert (await pushed(receiver))[1]["task"]["id"] == done["id"]


async def test_a_task_that_waits_and_ends_is_told_twice(http: httpx.AsyncClient) -> None:
    async with Receiver().listening() as receiver:
        config = {"url": receiver.url}
        waiting = await task(
            http, text("ask me", configuration={"taskPushNotificationConfig": config})
        )
        _, told = await pushed(receiver)
        assert told["task"]["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
        await task(http, text("that one", taskId=waiting["id"]))
        _, told = await pushed(receiver)
        assert told["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_configs_are_kept_with_their_task(http: httpx.AsyncClient) -> None:
    waiting = (await task(http, text("ask me")))["id"]
    url = "http://127.0.0.1:9/"
    made = await result(
        http, "CreateTaskPushNotificationConfig", {"taskId": waiting, "id": "one", "url": url}
    )
    assert made == {"id": "one", "taskId": waiting, "url": url}
    named = {"taskId": waiting, "id": "one"}
    assert await result(http, "GetTaskPushNotificationConfig", named) == made
    listed = await result(http, "ListTaskPushNotificationConfigs", {"taskId": waiting})
    assert listed == {"configs": [made]}
    for _ in range(2):
        assert await result(http, "DeleteTaskPushNotificationConfig", named) == {}
    assert (await error(http, "GetTaskPushNotificationConfig", named))["code"] == -32602
    for number in range(10):
        params = {"taskId": waiting, "id": str(number), "url": url}
        await result(http, "CreateTaskPushNotificationConfig", params)
    params = {"taskId": waiting, "url": url}
    assert (await error(http, "CreateTaskPushNotificationConfig", params))["code"] == -32603


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"url": "http://93.184.216.34/"},
        {"url": "https://10.0.0.1/"},
        {"url": "http://127.0.0.1:9/", "token": "a\r\nx: y"},
        {"url": "http://127.0.0.1:9/", "authentication": {"scheme": "é"}},
    ],
)
async def test_a_config_that_is_refused_begins_nothing(
    scenarios: Fleet, http: httpx.AsyncClient, config: dict[str, Any]
) -> None:
    before = len(scenarios.told.asked)
    sent = text("x", configuration={"taskPushNotificationConfig": config or {"id": "x"}})
    assert (await error(http, "SendMessage", sent))["code"] == -32602
    assert len(scenarios.told.asked) == before
