"""Many streams over one WebSocket, by a client of its own library."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.gateway.conftest import routed, running
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from weft.rpc.testing import wait_until

ECHO = "weft.echo.v1.EchoService"
REPEAT = f"{ECHO}/Repeat"
WATCH_JOB = "weft.v1.JobService/WatchJob"
LATER = {"prefer": "respond-async"}


def dial(url: str, **further: Any) -> connect:
    return connect(f"{url.replace('http://', 'ws://')}/ws/events", **further)


async def subscribe(socket: ClientConnection, id_: str, method: str, **request: Any) -> None:
    asked = {"subscribe": {"id": id_, "method": method, "request": request}}
    await socket.send(json.dumps(asked))


async def unsubscribe(socket: ClientConnection, id_: str) -> None:
    await socket.send(json.dumps({"unsubscribe": {"id": id_}}))


async def hear(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(20):
        said: dict[str, Any] = json.loads(await socket.recv())
    return said


async def until_end(socket: ClientConnection, id_: str) -> list[dict[str, Any]]:
    found = []
    while True:
        said = await hear(socket)
        assert said["id"] == id_
        if "message" not in said:
            return [*found, said]
        found.append(said["message"])


async def close_code(socket: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code


async def begin(http: httpx.AsyncClient, **request: Any) -> str:
    answer = await http.post("/v1/echo:repeat", json=request, headers=LATER)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def test_several_streams_at_once(mesh, entry) -> None:
    async with dial(entry.url) as socket:
        for id_ in ("a", "b"):
            await subscribe(socket, id_, REPEAT, text=id_, count=3, pause="0.05s")
        told: dict[str, list[Any]] = {"a": [], "b": []}
        for _ in range(8):
            said = await hear(socket)
            told[said.pop("id")].append(said)
    for id_, heard in told.items():
        first = {"message": {"text": id_}}
        assert heard[0] == first
        assert [each["message"].get("number", 0) for each in heard[:3]] == [0, 1, 2]
        assert heard[3] == {"end": {}}
    await wait_until(lambda: mesh.in_flight == 0)


async def test_one_can_be_left_and_asked_for_again(mesh, entry) -> None:
    async with dial(entry.url) as socket:
        await subscribe(socket, "a", REPEAT, text="a", count=1_000, pause="0.02s")
        assert (await hear(socket))["message"]["text"] == "a"
        await unsubscribe(socket, "a")
        assert (await until_end(socket, "a"))[-1] == {"id": "a", "end": {}}
        await wait_until(lambda: mesh.in_flight == 0)
        await unsubscribe(socket, "a")  # nobody minds
        await subscribe(socket, "a", REPEAT, text="b", count=1)
        assert await until_end(socket, "a") == [{"text": "b"}, {"id": "a", "end": {}}]


async def test_one_that_is_left_at_once_ends_too(mesh, entry) -> None:
    async with dial(entry.url) as socket:
        await subscribe(socket, "a", REPEAT, count=1, pause="60s")
        await unsubscribe(socket, "a")
        assert await until_end(socket, "a") == [{"id": "a", "end": {}}]
    await wait_until(lambda: mesh.in_flight == 0)


async def test_a_job_is_followed_and_taken_up_again(entry) -> None:
    job = await begin(entry.http, text="x", count=30, pause="0.03s")
    numbers: list[int] = []
    async with dial(entry.url) as socket:
        await subscribe(socket, "j", WATCH_JOB, id=job)
        while len(numbers) < 5:
            if (message := (await hear(socket))["message"].get("message")) is not None:
                numbers.append(int(message["number"]))
    async with dial(entry.url) as socket:
        await subscribe(socket, "j", WATCH_JOB, id=job, after=str(numbers[-1]))
        *changes, end = await until_end(socket, "j")
    assert end == {"id": "j", "end": {}}
    assert changes[-1]["job"]["state"] == "JOB_STATE_SUCCEEDED"
    numbers += [int(each["message"]["number"]) for each in changes if "message" in each]
    assert numbers == list(range(1, 31))


async def test_what_cannot_be_subscribed_to(entry) -> None:
    async with dial(entry.url) as socket:
        asked = [
            ("a", f"{ECHO}/Nothing", {}, "AGENT_UNKNOWN"),
            ("b", f"{ECHO}/Say", {"text": "x"}, "NO_STREAM"),
            ("c", f"{ECHO}/Talk", {}, "NO_STREAM"),
            ("d", REPEAT, {"count": "many"}, "INVALID_ARGUMENT"),
            ("e", WATCH_JOB, {"id": "nobody's"}, "JOB_NOT_FOUND"),
            ("f", REPEAT, {"failWith": 9}, "FAILED_PRECONDITION"),
        ]
        for id_, method, request, reason in asked:
            await subscribe(socket, id_, method, **request)
            (said,) = await until_end(socket, id_)
            assert said["error"]["details"][0]["reason"] == reason
        # And it goes on.
        await subscribe(socket, "a", REPEAT, count=1)
        assert (await until_end(socket, "a"))[-1] == {"id": "a", "end": {}}


async def test_there_are_bounds(entry) -> None:
    async with dial(entry.url) as socket:
        job = await begin(entry.http, count=1, pause="60s")
        for number in range(101):
            await subscribe(socket, str(number), WATCH_JOB, id=job)
        said = await hear(socket)
        while "error" not in said:
            said = await hear(socket)
        assert (said["id"], said["error"]["status"]) == ("100", "RESOURCE_EXHAUSTED")
        await subscribe(socket, "7", WATCH_JOB, id=job)
        while "error" not in (said := await hear(socket)):
            pass
        assert (said["id"], said["error"]["status"]) == ("7", "ALREADY_EXISTS")
    await entry.http.post(f"/v1/jobs/{job}:cancel", json={})


@pytest.mark.parametrize(
    "frame",
    [
        "{",
        "[]",
        '{"subscribe": {"id": "a"}}',
        '{"subscribe": {"id": "", "method": "x"}}',
        '{"subscribe": {"id": 1, "method": "x"}}',
        '{"subscribe": {"id": "a", "method": "x", "more": 1}}',
        '{"unsubscribe": {"id": "a"}, "more": 1}',
        '{"@start": {}}',
        b"x",
    ],
)
async def test_what_nobody_understands_closes_it(entry, frame: str | bytes) -> None:
    async with dial(entry.url) as socket:
        await socket.send('{"@start": {}}')
        await socket.send(frame)
        assert await close_code(socket) == 4003


async def test_the_caller_says_that_it_is_done(mesh, entry) -> None:
    async with dial(entry.url) as socket:
        await subscribe(socket, "a", REPEAT, count=1, pause="60s")
        await socket.send('{"@end": {}}')
        assert await close_code(socket) == 1000
    await wait_until(lambda: mesh.in_flight == 0)


async def test_one_who_does_not_read_stops_the_streams(mesh, entry) -> None:
    async with dial(entry.url, max_queue=1) as socket:
        await subscribe(socket, "a", REPEAT, text="x" * 100_000, count=5_000)
        await wait_until(lambda: mesh.in_flight == 1)
        numbers = [(await hear(socket))["message"].get("number", 0) for _ in range(3)]
        assert numbers == [0, 1, 2]
        await asyncio.sleep(0.5)
        # 500 MB would have come; what is under way is what buffers of the network take.
        assert mesh.in_flight == 1
        await unsubscribe(socket, "a")
        last = [said async for said in _rest(socket)][-1]
        assert last == {"id": "a", "end": {}}
    await wait_until(lambda: mesh.in_flight == 0)


async def _rest(socket: ClientConnection) -> Any:
    while True:
        said = await hear(socket)
        yield said
        if "end" in said:
            return


async def test_a_caller_sees_only_what_is_theirs(own_with_keys) -> None:
    mesh, good, bad = own_with_keys
    job = await mesh.http.post(
        "/v1/echo:repeat", json={"count": 1}, headers={**LATER, "x-api-key": good.text}
    )
    async with dial(mesh.gateway.url, additional_headers={"x-api-key": good.text}) as socket:
        await subscribe(socket, "a", WATCH_JOB, id=job.json()["id"])
        *changes, _ = await until_end(socket, "a")
        assert changes[-1]["job"]["state"] == "JOB_STATE_SUCCEEDED"
    for text in (bad.text, ""):
        async with dial(mesh.gateway.url) as socket:
            headers = {"authorization": f"Bearer {text}"} if text else {}
            await socket.send(json.dumps({"@start": {"headers": headers}}))
            assert await close_code(socket) == 4016


async def test_a_gateway_that_stops_says_so_at_once(fresh_xds, database_url: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(running(database_url))
        await routed(mesh.http)
        job = await begin(mesh.http, count=1, pause="60s")
        socket = await stack.enter_async_context(dial(mesh.gateway.url))
        await subscribe(socket, "a", WATCH_JOB, id=job)
        assert "message" in await hear(socket)
        await mesh.http.post(f"/v1/jobs/{job}:cancel", json={})
        stopping = asyncio.create_task(mesh.gateway.stop())
        async with asyncio.timeout(timedelta(seconds=8).total_seconds()):
            assert await close_code(socket) == 4014
        await stopping
