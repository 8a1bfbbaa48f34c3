"""A2A by JSON-RPC, as raw HTTP, in front of real agents."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.conformance.a2a.fleet import Fleet
from tests.gateway.doors.a2a_client import (
    ASK,
    COUNT,
    FILE,
    URI,
    VERSION,
    call,
    error,
    message,
    result,
    streaming,
    task,
    text,
)

from weft.rpc.testing import wait_until


@pytest_asyncio.fixture(scope="module")
async def http(scenarios: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=scenarios.gateway.url, timeout=20) as client:
        yield client


async def test_each_agent_has_a_card(scenarios: Fleet, http: httpx.AsyncClient) -> None:
    answer = await http.get("/a2a/scenarios/.well-known/agent-card.json")
    card = answer.json()
    assert card["name"] == "scenarios"
    ways = card["supportedInterfaces"]
    assert [each["protocolBinding"] for each in ways] == ["JSONRPC", "HTTP+JSON", "GRPC"]
    here = f"{str(http.base_url).rstrip('/')}/a2a/scenarios"
    assert [each["url"] for each in ways] == [here, here, scenarios.gateway.grpc_address]
    assert ways[2]["tenant"] == "scenarios"
    skills = {each["id"]: each for each in card["skills"]}
    assert next(iter(skills)) == ASK
    assert skills[ASK]["tags"] == ["text"]
    assert "text/plain" in skills[ASK]["inputModes"]
    extension = card["capabilities"]["extensions"][0]
    assert extension["uri"] == URI
    schema = extension["params"]["skills"][ASK]["input"]
    assert schema["properties"]["text"]["type"] == "string"
    assert answer.headers["cache-control"] == "public, max-age=60"
    assert answer.headers["last-modified"]
    again = await http.get(
        "/a2a/scenarios/.well-known/agent-card.json",
        headers={"if-none-match": answer.headers["etag"]},
    )
    assert (again.status_code, again.content) == (304, b"")


async def test_the_mesh_has_a_card(http: httpx.AsyncClient) -> None:
    card = (await http.get("/.well-known/agent-card.json")).json()
    assert {ASK, "weft.echo.v1.EchoService/Say"} <= {each["id"] for each in card["skills"]}
    assert (await http.get("/a2a/.well-known/agent-card.json")).json() == card
    assert card["supportedInterfaces"][0]["url"].endswith("/a2a/-")
    done = await task(http, text("x", skill="weft.echo.v1.EchoService/Say"), agent="-")
    assert done["status"]["state"] == "TASK_STATE_COMPLETED"
    assert (await error(http, "SendMessage", text("x"), agent="-"))["code"] == -32602


async def test_text_in_text_out(http: httpx.AsyncClient) -> None:
    sent = text("hé", contextId="mine")
    done = await task(http, sent)
    assert done["status"]["state"] == "TASK_STATE_COMPLETED"
    assert done["contextId"] == "mine"
    artifact = done["artifacts"][0]
    assert artifact["parts"][0] == {"text": "said: hé", "mediaType": "text/plain"}
    assert artifact["parts"][1]["data"] == {"text": "said: hé"}
    assert done["history"] == [
        {**sent["message"], "taskId": done["id"], "contextId": "mine"},
    ]
    assert done["metadata"][URI]["skill"] == ASK


async def test_typed_in_typed_out(http: httpx.AsyncClient) -> None:
    request = {"text": "a", "number": "9007199254740993"}
    done = await task(http, message({"data": request}, skill=ASK))
    parts = done["artifacts"][0]["parts"]
    assert [each["data"] for each in parts] == [{"text": "said: a", "number": "9007199254740993"}]


async def test_protobuf_goes_through_unchanged(http: httpx.AsyncClient) -> None:
    raw = base64.b64encode(b"\n\x01a").decode()
    sent = message(
        {"raw": raw, "mediaType": "application/x-protobuf"},
        skill=ASK,
        configuration={"acceptedOutputModes": ["application/x-protobuf"]},
    )
    [part] = (await task(http, sent))["artifacts"][0]["parts"]
    assert base64.b64decode(part["raw"]) == b"\n\x07said: a"


async def test_a_file_keeps_its_type(http: httpx.AsyncClient) -> None:
    data = base64.b64encode(b"\x00\xff").decode()
    sent = message({"data": {"type": "image/png", "data": data}}, skill=FILE)
    [part] = (await task(http, sent))["artifacts"][0]["parts"]
    assert part == {"raw": data, "mediaType": "image/png"}


async def test_an_answer_may_be_a_message(http: httpx.AsyncClient) -> None:
    told = (await result(http, "SendMessage", text("x", answer="message", contextId="c")))[
        "message"
    ]
    assert (told["role"], told["contextId"]) == ("ROLE_AGENT", "c")
    assert told["parts"][0]["text"] == "said: x"
    assert "taskId" not in told


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("refuse", "TASK_STATE_REJECTED"),
        ("fail", "TASK_STATE_FAILED"),
        ("ask me", "TASK_STATE_INPUT_REQUIRED"),
        ("sign in", "TASK_STATE_AUTH_REQUIRED"),
    ],
)
async def test_what_an_agent_refuses_is_a_state(
    http: httpx.AsyncClient, said: str, state: str
) -> None:
    done = await task(http, text(said))
    assert done["status"]["state"] == state
    told = done["status"]["message"]
    assert told["parts"][0]["text"]
    assert told["metadata"][URI]["error"]["details"][0]["domain"] == "weft.dev"
    assert (await result(http, "GetTask", {"id": done["id"]})) == done


async def test_a_task_that_waits_is_continued(scenarios: Fleet, http: httpx.AsyncClient) -> None:
    waiting = await task(http, text("ask me"))
    follow = text("that one", taskId=waiting["id"])
    done = await task(http, follow)
    assert done["id"] == waiting["id"]
    assert done["contextId"] == waiting["contextId"]
    assert done["status"]["state"] == "TASK_STATE_COMPLETED"
    assert [each["role"] for each in done["history"]] == ["ROLE_USER", "ROLE_AGENT", "ROLE_USER"]
    assert (await result(http, "GetTask", {"id": done["id"], "historyLength": 1}))["history"] == [
        done["history"][-1]
    ]
    assert "history" not in await result(http, "GetTask", {"id": done["id"], "historyLength": 0})
    # Both turns are of one conversation, which is not the context that the caller may name at will.
    first, second = scenarios.told.conversations[-2:]
    assert first == second
    assert done["contextId"] not in first
    assert (await error(http, "SendMessage", text("x", taskId=done["id"])))["code"] == -32004


async def test_a_context_that_is_not_the_tasks_is_refused(http: httpx.AsyncClient) -> None:
    waiting = await task(http, text("ask me"))
    sent = text("x", taskId=waiting["id"], contextId="another")
    assert (await error(http, "SendMessage", sent))["code"] == -32602
    other = text("x", taskId=waiting["id"], skill=COUNT)
    assert (await error(http, "SendMessage", other))["code"] == -32602


async def test_a_stream_tells_task_chunks_and_end(http: httpx.AsyncClient) -> None:
    sent = message({"data": {"upTo": 3}}, skill=COUNT)
    async with streaming(http, "SendStreamingMessage", sent) as told:
        seen = [each async for each in told]
    assert seen[0]["task"]["status"]["state"] == "TASK_STATE_WORKING"
    task_id = seen[0]["task"]["id"]
    chunks = [each["artifactUpdate"] for each in seen[1:-1]]
    assert [each["artifact"]["parts"][0]["data"]["number"] for each in chunks] == [1, 2, 3]
    assert len({each["artifact"]["artifactId"] for each in chunks}) == 1
    assert [each.get("append", False) for each in chunks] == [False, True, True]
    assert seen[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    kept = await result(http, "GetTask", {"id": task_id})
    assert len(kept["artifacts"][0]["parts"]) == 3


async def test_who_subscribes_sees_the_rest(scenarios: Fleet, http: httpx.AsyncClient) -> None:
    scenarios.told.go.clear()
    sent = message(
        {"data": {"upTo": 2, "stepwise": True}},
        skill=COUNT,
        configuration={"returnImmediately": True},
    )
    begun = await task(http, sent)
    assert begun["status"]["state"] == "TASK_STATE_WORKING"
    async with streaming(http, "SubscribeToTask", {"id": begun["id"]}) as told:
        assert (await anext(told))["task"]["id"] == begun["id"]
        scenarios.told.go.set()
        seen = [each async for each in told]
    assert seen[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert (await error(http, "SubscribeToTask", {"id": begun["id"]}))["code"] == -32004


async def test_a_stream_stays_open_while_a_task_waits(http: httpx.AsyncClient) -> None:
    waiting = await task(http, text("ask me"))
    async with streaming(http, "SubscribeToTask", {"id": waiting["id"]}) as told:
        assert (await anext(told))["task"]["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
        await task(http, text("that one", taskId=waiting["id"]))
        seen = [each async for each in told]
    assert seen[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_task_outlives_its_caller(scenarios: Fleet, http: httpx.AsyncClient) -> None:
    scenarios.told.go.clear()
    with pytest.raises(httpx.ReadTimeout):
        await call(http, "SendMessage", text("wait", contextId="left"), timeout=0.3)

    async def states() -> list[str]:
        listed = await result(http, "ListTasks", {"contextId": "left"})
        return [each["status"]["state"] for each in listed["tasks"]]

    assert await states() == ["TASK_STATE_WORKING"]
    scenarios.told.go.set()

    async def done() -> bool:
        return await states() == ["TASK_STATE_COMPLETED"]

    await wait_until(done)


async def test_who_does_not_wait_long_gets_the_task_as_it_is(
    scenarios: Fleet, http: httpx.AsyncClient
) -> None:
    scenarios.told.go.clear()
    begun = await task(http, text("wait"), headers={"x-request-timeout": "0.2"})
    assert begun["status"]["state"] == "TASK_STATE_WORKING"
    scenarios.told.go.set()


async def test_a_task_is_cancelled_at_the_agent(scenarios: Fleet, http: httpx.AsyncClient) -> None:
    scenarios.told.go.clear()
    before, asked = scenarios.told.cancelled, len(scenarios.told.asked)
    begun = await task(http, text("wait", configuration={"returnImmediately": True}))
    await wait_until(
        lambda: len(scenarios.told.asked) > asked
    )  # before that, nobody has to be told
    cancelled = await result(http, "CancelTask", {"id": begun["id"]})
    assert cancelled["status"]["state"] == "TASK_STATE_CANCELED"
    await wait_until(lambda: scenarios.told.cancelled == before + 1)
    assert (await result(http, "GetTask", {"id": begun["id"]}))["status"] == cancelled["status"]
    assert (await error(http, "CancelTask", {"id": begun["id"]}))["code"] == -32002
    scenarios.told.go.set()


async def test_lists_come_in_pages(http: httpx.AsyncClient) -> None:
    made = [(await task(http, text(str(n), contextId="pages")))["id"] for n in range(5)]
    seen: list[str] = []
    token = ""
    while True:
        page = await result(
            http, "ListTasks", {"contextId": "pages", "pageSize": 2, "pageToken": token}
        )
        assert (page["totalSize"], page["pageSize"]) == (5, 2)
        assert not any("artifacts" in each for each in page["tasks"])
        seen += [each["id"] for each in page["tasks"]]
        if not (token := page["nextPageToken"]):
            break
    assert seen == made[::-1]
    with_artifacts = await result(
        http, "ListTasks", {"contextId": "pages", "includeArtifacts": True, "historyLength": 0}
    )
    assert all(each["artifacts"] and "history" not in each for each in with_artifacts["tasks"])
    last = with_artifacts["tasks"][0]["status"]["timestamp"]
    since = await result(http, "ListTasks", {"contextId": "pages", "statusTimestampAfter": last})
    assert [each["id"] for each in since["tasks"]] == made[-1:]
    failed = {"contextId": "pages", "status": "TASK_STATE_FAILED"}
    assert (await result(http, "ListTasks", failed))["totalSize"] == 0


async def test_tasks_of_another_agent_are_not_there(http: httpx.AsyncClient) -> None:
    made = await task(http, text("x"))
    refused = await error(http, "GetTask", {"id": made["id"]}, agent="echo")
    assert refused["code"] == -32001
    assert refused["data"][0]["reason"] == "TASK_NOT_FOUND"
    assert refused["data"][0]["domain"] == "a2a-protocol.org"
    assert (await result(http, "GetTask", {"id": made["id"]}, agent="-"))["id"] == made["id"]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, -32602),
        ({"message": []}, -32602),
        (message(), -32602),
        (message({"text": "x"}, messageId=""), -32602),
        (message({"text": "x"}, role="ROLE_AGENT"), -32602),
        (message({"text": "x", "data": {}}), -32602),
        (message({"text": 1}), -32602),
        (message({"data": {"nothing": 1}}, skill=ASK), -32602),
        (message({"data": {"number": "x"}}, skill=ASK), -32602),
        (message({"data": {}}), -32602),
        (message({"data": {}}, skill="no.Such/Skill"), -32602),
        (message({"raw": "/w==", "mediaType": "application/x-protobuf"}, skill=ASK), -32602),
        (message({"raw": "AA==", "mediaType": "image/png"}, skill=ASK), -32005),
        (message({"url": "https://example.com/"}, skill=ASK), -32005),
        (message({"text": "x"}, skill=COUNT), -32005),
        (text("x", configuration={"acceptedOutputModes": ["image/png"]}), -32005),
        (text("x", configuration={"historyLength": -1}), -32602),
        (text("x", answer="both"), -32602),
        (message({"data": {}}, skill=COUNT, answer="message"), -32004),
        (text("x", taskId="00000000-0000-0000-0000-000000000000"), -32001),
        (text("x", taskId="nothing"), -32001),
        (text("x") | {"tenant": "another"}, -32602),
    ],
)
async def test_messages_that_no_skill_takes(
    http: httpx.AsyncClient, params: dict[str, Any], code: int
) -> None:
    assert (await error(http, "SendMessage", params))["code"] == code


async def test_wrong_fields_are_named(http: httpx.AsyncClient) -> None:
    refused = await error(http, "SendMessage", message({"data": {"number": "x"}}, skill=ASK))
    violations = [each for each in refused["data"] if each["@type"].endswith("BadRequest")]
    assert violations[0]["fieldViolations"][0]["field"] == "number"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"[]", -32600),
        (b'{"id":1,"method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"message/send"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":[]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask"}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"ListTasks","params":{"pageSize":0}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"ListTasks","params":{"pageToken":"x"}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"ListTasks","params":{"status":"x"}}', -32602),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"ListTasks","params":{"statusTimestampAfter":"x"}}',
            -32602,
        ),
    ],
)
async def test_what_is_no_request(http: httpx.AsyncClient, body: bytes, code: int) -> None:
    headers = VERSION | {"content-type": "application/json"}
    told = (await http.post("/a2a/scenarios", content=body, headers=headers)).json()
    assert told["error"]["code"] == code
    assert told["jsonrpc"] == "2.0"


@pytest.mark.parametrize(
    ("headers", "query", "served"),
    [
        ({}, "", False),
        ({"A2A-Version": "0.3"}, "", False),
        ({"A2A-Version": "1.7"}, "", False),
        ({"A2A-Version": "99.0"}, "?A2A-Version=1.0", False),
        ({"A2A-Version": "1.0"}, "", True),
        ({"A2A-Version": "1.0.1"}, "", True),
        ({}, "?A2A-Version=1.0", True),
    ],
)
async def test_one_version_is_spoken(
    http: httpx.AsyncClient, headers: dict[str, str], query: str, *, served: bool
) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "ListTasks"}
    told = (await http.post(f"/a2a/scenarios/{query}", json=body, headers=headers)).json()
    assert ("result" in told) is served
    if not served:
        assert told["error"]["code"] == -32009


async def test_the_extension_is_echoed(http: httpx.AsyncClient) -> None:
    answer = await call(http, "ListTasks", headers={"A2A-Extensions": f"x, {URI}"})
    assert answer.headers["a2a-extensions"] == URI
    assert "a2a-extensions" not in (await call(http, "ListTasks")).headers


async def test_an_agent_that_is_not_there(http: httpx.AsyncClient) -> None:
    assert (await http.get("/a2a/nobody/.well-known/agent-card.json")).status_code == 404
    assert (await error(http, "ListTasks", agent="nobody"))["code"] == -32602
