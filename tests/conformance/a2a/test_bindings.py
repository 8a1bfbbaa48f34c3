"""A2A 1.0.1 by all three bindings: what its conformance kit asks for, and where the kit differs, what 1.0.1 says.

The kit itself is in no package index; run_kit.py runs it from a folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import grpc
import httpx
import pytest
import pytest_asyncio
from tests.conformance.a2a.callers import Caller, Grpc, Json, JsonRpc, Refused, Rest
from tests.conformance.a2a.kit_agent import mesh
from tests.conformance.a2a.run_kit import excluded, judge

from weft import embedded
from weft.gateway import Gateway

BINDINGS = ("JSONRPC", "HTTP+JSON", "GRPC")
_IDS = itertools.count(1)
# Of each error: its code by each binding (specification 1.0.1, 5.4), and its reason.
ERRORS: dict[str, tuple[dict[str, int | str], str]] = {
    "not found": (dict(zip(BINDINGS, (-32001, 404, "NOT_FOUND"), strict=True)), "TASK_NOT_FOUND"),
    "not cancelable": (
        dict(zip(BINDINGS, (-32002, 400, "FAILED_PRECONDITION"), strict=True)),
        "TASK_NOT_CANCELABLE",
    ),
    "unsupported": (
        dict(zip(BINDINGS, (-32004, 400, "FAILED_PRECONDITION"), strict=True)),
        "UNSUPPORTED_OPERATION",
    ),
    "version": (
        dict(zip(BINDINGS, (-32009, 400, "FAILED_PRECONDITION"), strict=True)),
        "VERSION_NOT_SUPPORTED",
    ),
}


@pytest_asyncio.fixture(scope="module")
async def gateway(fresh_xds_of_module: None, servers: embedded.Endpoints) -> AsyncIterator[Gateway]:
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute("create database a2a_kit template template0")
    async with mesh(urlsplit(servers.database_url)._replace(path="/a2a_kit").geturl()) as made:
        yield made
    await admin.execute("drop database a2a_kit with (force)")
    await admin.close()


@pytest_asyncio.fixture(scope="module")
async def card(gateway: Gateway) -> Json:
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        found: Json = (await http.get("/.well-known/agent-card.json")).json()
    assert found["name"] == "kit"
    return found


@pytest_asyncio.fixture(params=BINDINGS)
async def caller(request: pytest.FixtureRequest, card: Json) -> AsyncIterator[Caller]:
    """A caller that knows what the card says."""
    ways = {each["protocolBinding"]: each for each in card["supportedInterfaces"]}
    assert tuple(ways) == BINDINGS
    way = ways[request.param]
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "GRPC":
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(way["url"]))
            yield Grpc(channel, way["tenant"])
            return
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=20))
        yield (JsonRpc if request.param == "JSONRPC" else Rest)(http, way["url"])


@pytest.fixture
def binding(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["caller"])


def sending(does: str = "tck-complete-task", **further: Any) -> Json:
    made = {"messageId": does, "role": "ROLE_USER", "parts": [{"text": "go"}]}
    configuration = further.pop("configuration", None)
    return {
        "message": made | further,
        **({"configuration": configuration} if configuration else {}),
    }


async def task_of(caller: Caller, does: str = "tck-complete-task", **further: Any) -> Json:
    found: Json = (await caller.call("SendMessage", sending(does, **further)))["task"]
    return found


async def refused(
    caller: Caller, binding: str, error: str, operation: str, params: Json, **metadata: str
) -> None:
    with pytest.raises(Refused) as told:
        await caller.call(operation, params, **metadata)
    codes, reason = ERRORS[error]
    assert (told.value.code, told.value.reason) == (codes[binding], reason)
    assert told.value.domain == "a2a-protocol.org"


async def test_a_task_is_completed(caller: Caller) -> None:
    done = await task_of(caller)
    assert done["status"]["state"] == "TASK_STATE_COMPLETED"
    assert done["artifacts"][0]["parts"] == [{"text": "Hello from TCK"}]
    assert await caller.call("GetTask", {"id": done["id"]}) == done


@pytest.mark.parametrize(
    ("does", "part"),
    [
        ("tck-artifact-text", {"text": "Generated text content"}),
        (
            "tck-artifact-file",
            {"raw": "VGVzdCBmaWxl", "filename": "output.txt", "mediaType": "text/plain"},
        ),
        (
            "tck-artifact-file-url",
            {
                "url": "https://example.com/output.txt",
                "filename": "output.txt",
                "mediaType": "text/plain",
            },
        ),
        ("tck-artifact-data", {"data": {"key": "value", "count": 42}}),
    ],
)
async def test_parts_of_every_kind(caller: Caller, does: str, part: Json) -> None:
    [artifact] = (await task_of(caller, does))["artifacts"]
    assert artifact["parts"] == [part]
    assert artifact["artifactId"]


async def test_an_agent_may_answer_with_a_message(caller: Caller) -> None:
    context = f"c{next(_IDS)}"
    told = await caller.call("SendMessage", sending("tck-message-response", contextId=context))
    assert told.keys() == {"message"}
    assert told["message"]["parts"] == [{"text": "Direct message response"}]
    assert told["message"]["contextId"] == context
    # No task was made of it.
    assert (await caller.call("ListTasks", {"contextId": context})).get("totalSize", 0) == 0


async def test_states_that_wait_and_turns_of_one_task(caller: Caller, binding: str) -> None:
    for does, state in (
        ("tck-input-required", "TASK_STATE_INPUT_REQUIRED"),
        ("tck-auth-required", "TASK_STATE_AUTH_REQUIRED"),
    ):
        waiting = await task_of(caller, does)
        assert waiting["status"]["state"] == state
        listed = await caller.call(
            "ListTasks", {"contextId": waiting["contextId"], "status": state}
        )
        assert [each["id"] for each in listed["tasks"]] == [waiting["id"]]
        # The same id of a message, and no context: neither matters.
        again = await task_of(caller, does, taskId=waiting["id"])
        assert (again["id"], again["status"]["state"]) == (waiting["id"], state)
        done = await task_of(caller, taskId=waiting["id"])
        assert (done["contextId"], done["status"]["state"]) == (
            waiting["contextId"],
            "TASK_STATE_COMPLETED",
        )
        assert len(done["history"]) == 5
        for length, left in ((0, 0), (1, 1), (100, 5)):
            shown = await caller.call("GetTask", {"id": done["id"], "historyLength": length})
            assert len(shown.get("history", [])) == left
        more = sending(taskId=done["id"])
        await refused(caller, binding, "unsupported", "SendMessage", more)


async def test_a_rejected_task(caller: Caller) -> None:
    done = await task_of(caller, "tck-reject-task")
    assert done["status"]["state"] == "TASK_STATE_REJECTED"
    params = {"contextId": done["contextId"], "status": "TASK_STATE_REJECTED"}
    assert (await caller.call("ListTasks", params))["totalSize"] == 1


@pytest.mark.parametrize("does", ["tck-stream-001", "tck-stream-003", "tck-stream-ordering-001"])
async def test_streams_begin_with_the_task_and_end_with_its_end(caller: Caller, does: str) -> None:
    seen = [each async for each in caller.stream("SendStreamingMessage", sending(does))]
    kinds = [next(iter(each)) for each in seen]
    assert kinds == ["task", "artifactUpdate", "statusUpdate"]
    assert seen[0]["task"]["status"]["state"] == "TASK_STATE_WORKING"
    assert seen[1]["artifactUpdate"]["lastChunk"] is True
    assert seen[2]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    kept = await caller.call("GetTask", {"id": seen[0]["task"]["id"]})
    assert kept["artifacts"] == [seen[1]["artifactUpdate"]["artifact"]]


async def test_all_who_subscribe_see_the_same(caller: Caller, binding: str) -> None:
    waiting = await task_of(caller, "tck-input-required")
    named = {"id": waiting["id"]}
    begun: asyncio.Queue[None] = asyncio.Queue()

    async def watch() -> list[str]:
        kinds = []
        async for event in caller.stream("SubscribeToTask", named):
            kinds.append(next(iter(event)))
            begun.put_nowait(None)
        return kinds

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        watching = [group.create_task(watch()) for _ in range(2)]
        for _ in watching:
            await begun.get()
        await task_of(caller, taskId=waiting["id"])
    for each in watching:
        kinds = each.result()
        assert (kinds[0], kinds[-1]) == ("task", "statusUpdate")
        assert "artifactUpdate" in kinds
    with pytest.raises(Refused) as told:
        await anext(aiter(caller.stream("SubscribeToTask", named)))
    assert told.value.code == ERRORS["unsupported"][0][binding]


async def test_cancelling(caller: Caller, binding: str) -> None:
    waiting = await task_of(caller, "tck-input-required")
    named = {"id": waiting["id"]}
    assert (await caller.call("CancelTask", named))["status"]["state"] == "TASK_STATE_CANCELED"
    await refused(caller, binding, "not cancelable", "CancelTask", named)
    await refused(caller, binding, "not found", "CancelTask", {"id": "nothing"})


async def test_lists(caller: Caller) -> None:
    context = f"l{next(_IDS)}"
    made = [(await task_of(caller, contextId=context))["id"] for _ in range(3)]
    first = await caller.call("ListTasks", {"contextId": context, "pageSize": 2})
    assert [each["id"] for each in first["tasks"]] == made[:0:-1]
    assert (first["pageSize"], first["totalSize"]) == (2, 3)
    assert not any("artifacts" in each for each in first["tasks"])
    more = {"contextId": context, "pageToken": first["nextPageToken"], "includeArtifacts": True}
    second = await caller.call("ListTasks", more)
    assert [each["id"] for each in second["tasks"]] == made[:1]
    assert second["tasks"][0]["artifacts"]


async def test_what_is_not_there(caller: Caller, binding: str) -> None:
    for operation in ("GetTask", "CancelTask"):
        await refused(caller, binding, "not found", operation, {"id": "nothing"})
    await refused(caller, binding, "not found", "SendMessage", sending(taskId="nothing"))
    params = {"taskId": "nothing", "url": "http://127.0.0.1:9/"}
    await refused(caller, binding, "not found", "CreateTaskPushNotificationConfig", params)


@pytest.mark.parametrize("version", ["", "0.3", "1.7", "99.0"])
async def test_versions(caller: Caller, binding: str, version: str) -> None:
    await refused(caller, binding, "version", "ListTasks", {}, a2a_version=version)


async def test_push_configs(caller: Caller) -> None:
    waiting = (await task_of(caller, "tck-input-required"))["id"]
    params = {
        "taskId": waiting,
        "id": "c",
        "url": "http://127.0.0.1:9/",
        "authentication": {"scheme": "Bearer", "credentials": "x"},
    }
    assert await caller.call("CreateTaskPushNotificationConfig", params) == params
    named = {"taskId": waiting, "id": "c"}
    assert await caller.call("GetTaskPushNotificationConfig", named) == params
    listed = await caller.call("ListTaskPushNotificationConfigs", {"taskId": waiting})
    assert listed == {"configs": [params]}
    for _ in range(2):
        assert await caller.call("DeleteTaskPushNotificationConfig", named) == {}
    with pytest.raises(Refused):
        await caller.call("GetTaskPushNotificationConfig", named)


async def test_the_extended_card(caller: Caller, card: Json) -> None:
    extended = await caller.call("GetExtendedAgentCard", {})
    assert extended["name"] == card["name"]
    assert [each["url"] for each in extended["supportedInterfaces"]] == [
        each["url"] for each in card["supportedInterfaces"]
    ]


async def test_names_of_the_contract_are_taken_as_well(caller: Caller) -> None:
    # ProtoJSON, and what the kit does by JSON-RPC.
    if isinstance(caller, Grpc):
        return
    sent = {"message": {"message_id": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}}
    done = (await caller.call("SendMessage", sent))["task"]
    assert done["history"][0]["messageId"] == "m"
    if isinstance(caller, JsonRpc):
        shown = await caller.call("GetTask", {"id": done["id"], "history_length": 0})
        assert "history" not in shown


def test_what_is_left_out_of_the_kit_is_judged() -> None:
    known = dict.fromkeys(excluded(), "failed")
    assert len(known) == 3
    assert judge({"a": "passed"} | known) == 0
    assert judge({"a": "failed"} | known) == 1
    assert judge({"a": "passed"} | dict.fromkeys(known, "passed")) == 1
    assert judge(known) == 1
