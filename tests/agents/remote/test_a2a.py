"""A remote A2A agent, made with the SDK, as an agent of the mesh."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.types import a2a_pb2 as pb
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from tests.agents.remote.conftest import PATIENCE, Mesh, http_server
from tests.agents.remote.peers import Told, card_of, clerk, heard
from tests.ports import free_port

from weft.remote.v1 import conversation_pb2
from weft.rpc.testing import wait_until


def reason(answer: httpx.Response) -> str:
    return str(info(answer)["reason"])


def info(answer: httpx.Response) -> dict[str, Any]:
    details = answer.json()["error"]["details"]
    found: dict[str, Any] = next(each for each in details if each["@type"].endswith("ErrorInfo"))
    return found


@contextlib.asynccontextmanager
async def clerk_at(
    mesh: Mesh, told: Told, *, binding: str = "JSONRPC", streaming: bool = True, **further: Any
) -> AsyncIterator[str]:
    """The agent `clerk` in the mesh; where it is."""
    port = free_port()
    path = {"JSONRPC": "rpc", "HTTP+JSON": "rest"}[binding]
    at = f"http://127.0.0.1:{port}/{path}"
    card = card_of(at, "File", "Sort papers", streaming=streaming, binding=binding)
    async with (
        http_server(heard(clerk(told, card), told), port) as url,
        mesh.keeping("clerk", "a2a", url, **further),
    ):
        await mesh.served("clerk", "SortPapers")
        yield url


async def test_states_are_a2a_s_own() -> None:
    own = dict(conversation_pb2.TaskState.items())
    assert own == dict(pb.TaskState.items())


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_skill_answers_when_its_task_is_done(
    mesh: Mesh, binding: str, *, streaming: bool
) -> None:
    told = Told()
    async with clerk_at(mesh, told, binding=binding, streaming=streaming):
        parts = [{"data": {"n": 1}}, {"raw": "AAE=", "filename": "a.bin", "mediaType": "a/b"}]
        answer = await mesh.call("clerk", "file", {"text": "hello there", "parts": parts})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["text"] == "HELLO THERE"
        assert body["task"]["state"] == "TASK_STATE_COMPLETED"
        said = body["task"]["artifacts"][0]["parts"]
        assert said[1]["data"] == {"words": ["hello", "there"], "parts": 3.0}
        sent = told.messages[0].parts
        assert [each.WhichOneof("content") for each in sent] == ["text", "data", "raw"]
        assert (sent[2].raw, sent[2].filename, sent[2].media_type) == (b"\0\1", "a.bin", "a/b")
        assert (await mesh.call("clerk", "sort_papers", {"text": "say hi"})).json()["text"] == "hi"
        assert (await mesh.call("clerk", "file", {"text": "count 3"})).json()["text"] == "0\n1\n2"
        assert (await mesh.call("clerk", "file", {})).status_code == 400


async def test_a_skill_is_not_called_by_its_agent_s_name(mesh: Mesh) -> None:
    """As those of a gateway of Weft are, which is the remote here: what it is told is the skill's text."""
    async with (
        clerk_at(mesh, Told()),
        mesh.keeping("again", "a2a", f"{mesh.gateway.url}/a2a/clerk"),
    ):
        await mesh.served("again", '"SortPapers"')
        answer = await mesh.call("again", "sort_papers", {"text": "say hi"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["text"] == "hi"
        answer = await mesh.call("again", "file", {"text": "fail broken"})
        # The status of the remote's remote.
        assert (answer.status_code, reason(answer)) == (409, "TASK_FAILED")


async def test_it_tells_what_it_does(mesh: Mesh) -> None:
    async with clerk_at(mesh, Told()):
        answer = await mesh.call(
            *("clerk", "file:stream", {"text": "count 3"}),
            headers={"accept": "application/x-ndjson"},
        )
        events = [json.loads(line) for line in answer.text.splitlines()]
        events = [each.get("result", each) for each in events]
        assert [each["text"] for each in events if "text" in each] == ["0", "1", "2"]
        assert events[-1]["statusUpdate"]["state"] == "TASK_STATE_COMPLETED"


async def test_how_a_task_ends_is_a_status(mesh: Mesh) -> None:
    async with clerk_at(mesh, Told()):
        for text, status, why in (
            ("ask which?", 400, "INPUT_REQUIRED"),
            ("sign in there", 400, "AUTH_REQUIRED"),
            ("refuse it", 400, "REJECTED"),
            ("fail broken", 409, "TASK_FAILED"),
        ):
            answer = await mesh.call("clerk", "file", {"text": text})
            assert (answer.status_code, reason(answer)) == (status, why)
            assert answer.json()["error"]["message"] == text.partition(" ")[2]


async def test_a_caller_goes_on_with_a_task(mesh: Mesh) -> None:
    told = Told()
    async with clerk_at(mesh, told):
        where = info(await mesh.call("clerk", "file", {"text": "ask which?"}))["metadata"]
        on = {"text": "this one", "taskId": where["task_id"], "contextId": where["context_id"]}
        answer = (await mesh.call("clerk", "file", on)).json()
        assert answer["task"]["id"] == where["task_id"]
        assert told.messages[1].task_id == where["task_id"]


async def test_the_gateway_s_own_a2a_door_goes_on_with_a_task(mesh: Mesh) -> None:
    """A task of the remote waits, so does the task of the door; its next message goes to the former."""
    told = Told()
    async with clerk_at(mesh, told):

        async def send(**message: Any) -> dict[str, Any]:
            message = {"messageId": "m", "role": "ROLE_USER", **message}
            answer = await mesh.http.post(
                "/a2a/clerk/message:send", json={"message": message}, headers={"a2a-version": "1.0"}
            )
            assert answer.status_code == 200, answer.text
            task: dict[str, Any] = answer.json()["task"]
            return task

        task = await send(parts=[{"text": "ask which?"}])
        assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
        assert task["status"]["message"]["parts"][0]["text"] == "which?"
        task = await send(parts=[{"text": "this one"}], taskId=task["id"])
        assert task["status"]["state"] == "TASK_STATE_COMPLETED"
        assert told.messages[1].task_id
        assert told.messages[1].context_id


@pytest.mark.parametrize("streaming", [True, False])
async def test_who_hangs_up_cancels_the_task(mesh: Mesh, *, streaming: bool) -> None:
    told = Told()
    async with clerk_at(mesh, told, streaming=streaming):
        call = asyncio.create_task(mesh.call("clerk", "file", {"text": "wait"}))
        await wait_until(lambda: bool(told.messages), PATIENCE)
        await asyncio.sleep(0.3)  # so that the answer tells the task
        call.cancel()
        await wait_until(lambda: told.cancelled == 1, PATIENCE)


async def test_a_deadline_cancels_the_task(mesh: Mesh) -> None:
    told = Told()
    async with clerk_at(mesh, told):
        answer = await mesh.call(
            "clerk", "file", {"text": "wait"}, headers={"x-request-timeout": "1"}
        )
        assert answer.status_code == 504
        await wait_until(lambda: told.cancelled == 1, PATIENCE)


async def test_a_credential_is_shown(mesh: Mesh, tmp_path: Path) -> None:
    told = Told()
    file = tmp_path / "token"
    file.write_text("s3cret")
    async with clerk_at(mesh, told, token_file=str(file)):
        await mesh.call("clerk", "file", {"text": "x"})
        assert {each["authorization"] for each in told.headers} == {"Bearer s3cret"}


async def test_a_card_cannot_send_it_elsewhere(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    async with (
        http_server(heard(Starlette(), told)) as other,
        http_server(
            clerk(Told(), card_of(f"{other.replace('127.0.0.1', 'localhost')}/rpc", "File"))
        ) as url,
        mesh.keeping("strayed", "a2a", url) as keeper,
    ):
        await wait_until(
            lambda: any("allowed one by one" in str(vars(each)) for each in caplog.records),
            PATIENCE,
        )
        assert not keeper.registered.is_set()
    assert told.headers == []


async def test_a_card_that_changes_is_registered_anew(mesh: Mesh) -> None:
    port = free_port()
    at = f"http://127.0.0.1:{port}/rpc"
    told = Told()
    async with mesh.keeping("changing", "a2a", f"http://127.0.0.1:{port}", refresh=0.3):
        async with http_server(clerk(told, card_of(at, "Old")), port):
            await mesh.served("changing", "Old")
            assert (await mesh.call("changing", "old", {"text": "a"})).status_code == 200
        async with http_server(clerk(told, card_of(at, "New")), port):

            async def known() -> bool:
                return (await mesh.call("changing", "new", {"text": "a"})).status_code == 200

            await wait_until(known, PATIENCE)
            assert (await mesh.call("changing", "old", {"text": "a"})).status_code == 404


async def test_an_agent_of_protocol_0_3(mesh: Mesh) -> None:
    async def card(request: Any) -> JSONResponse:
        return JSONResponse(
            {
                "protocolVersion": "0.3.0",
                "name": "old",
                "description": "Old.",
                "version": "1",
                "url": f"{request.base_url}rpc",
                "capabilities": {"streaming": False},
                "defaultInputModes": ["text/plain"],
                "defaultOutputModes": ["text/plain"],
                "skills": [{"id": "talk", "name": "Talk", "description": "Talks.", "tags": []}],
            }
        )

    async def called(request: Any) -> JSONResponse:
        asked = await request.json()
        assert asked["method"] == "message/send"
        said = asked["params"]["message"]["parts"][0]["text"]
        message = {
            "kind": "message",
            "messageId": "r",
            "role": "agent",
            "parts": [{"kind": "text", "text": f"old: {said}"}],
        }
        return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": message})

    routes = [
        Route("/.well-known/agent-card.json", card),
        Route("/rpc", called, methods=["POST"]),
    ]
    async with http_server(Starlette(routes=routes)) as url, mesh.keeping("old", "a2a", url):
        await mesh.served("old", "Talk")
        assert (await mesh.call("old", "talk", {"text": "hi"})).json()["text"] == "old: hi"


@pytest.mark.parametrize("body", ["[]", '{"skills": 7}', "[" * 5_000])
async def test_what_is_no_card_is_no_agent(
    mesh: Mesh, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def card(_: Any) -> PlainTextResponse:
        return PlainTextResponse(body)

    app = Starlette(routes=[Route("/.well-known/agent-card.json", card)])
    async with http_server(app) as url, mesh.keeping("none", "a2a", url) as keeper:
        await wait_until(lambda: "the remote is away" in caplog.text, PATIENCE)
        assert not keeper.registered.is_set()
