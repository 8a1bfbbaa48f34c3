"""A2A with callers that are not each other, and gateways that come and go."""

from __future__ import annotations

import contextlib

import asyncpg
import httpx
from tests.conformance.a2a.fleet import fleet, gateway_of
from tests.gateway.doors.a2a_client import ASK, Receiver, call, error, result, streaming, task, text

from weft.gateway.doors.a2a import A2aSettings
from weft.gateway.guards.key_store import KeyStore
from weft.postgres import Database
from weft.rpc.testing import wait_until

GUARDED = "weft.scenarios.v1.ScenarioService/Guarded"
CARD = "/a2a/scenarios/.well-known/agent-card.json"


async def test_nobody_sees_anothers_tasks(fresh_xds: None, database_url: str) -> None:
    async with (
        fleet(
            database_url, auth="keys", a2a=A2aSettings(public_url="https://agents.example.com/")
        ) as mesh,
        httpx.AsyncClient(base_url=mesh.gateway.url, timeout=20) as http,
        await Database.connect(database_url, schema="gateway") as stored,
    ):
        stored.load("weft.gateway.sql")
        keys = KeyStore(stored)
        ann = {"x-api-key": (await keys.create("ann", tenant="acme")).text}
        bob = {"x-api-key": (await keys.create("bob", tenant="acme")).text}
        eve = {
            "authorization": "Bearer "
            + (await keys.create("eve", tenant="other", scopes=["scenarios.guarded"])).text
        }

        nobody = await call(http, "ListTasks")
        assert nobody.status_code == 401
        assert nobody.json()["error"]["data"][0]["reason"] == "KEY_MISSING"
        assert "www-authenticate" in nobody.headers
        refused = await http.post("/a2a/scenarios/message:send", json=text("x"))
        assert refused.status_code == 401
        assert mesh.told.asked == []

        # The public card is for all, without what needs a scope.
        card = (await http.get(CARD)).json()
        assert GUARDED not in {each["id"] for each in card["skills"]}
        assert {"bearer", "apiKey"} == card["securitySchemes"].keys()
        assert card["supportedInterfaces"][0]["url"] == "https://agents.example.com/a2a/scenarios"
        for caller, sees in ((ann, False), (eve, True)):
            extended = await result(http, "GetExtendedAgentCard", headers=caller)
            assert (GUARDED in {each["id"] for each in extended["skills"]}) is sees

        waiting = await task(http, text("ask me"), headers=ann)
        named = {"id": waiting["id"], "taskId": waiting["id"]}
        assert (await result(http, "GetTask", named, headers=ann))["id"] == waiting["id"]
        for other in (bob, eve):
            for method in (
                *("GetTask", "CancelTask", "SubscribeToTask"),
                *("ListTaskPushNotificationConfigs", "GetTaskPushNotificationConfig"),
                *("DeleteTaskPushNotificationConfig", "CreateTaskPushNotificationConfig"),
            ):
                assert (await error(http, method, named, headers=other))["code"] == -32001
            follow = text("mine", taskId=waiting["id"])
            assert (await error(http, "SendMessage", follow, headers=other))["code"] == -32001
            listed = await result(http, "ListTasks", headers=other)
            assert (listed["tasks"], listed["totalSize"]) == ([], 0)
        assert (await result(http, "ListTasks", headers=ann))["totalSize"] == 1

        # Naming another's context is no way into its conversation.
        for caller in (ann, bob):
            await task(http, text("x", contextId=waiting["contextId"]), headers=caller)
        assert len(set(mesh.told.conversations[-2:])) == 2

        guarded = text("x", skill=GUARDED) | {}
        guarded["message"]["parts"] = [{"data": {}}]
        missing = await call(http, "SendMessage", guarded, headers=ann)
        assert missing.status_code == 403
        assert missing.json()["error"]["data"][0]["reason"] == "SCOPE_MISSING"
        done = await task(http, guarded, headers=eve)
        assert done["artifacts"][0]["parts"][0]["data"]["caller"].startswith("key:")

        own = {**text("x"), "tenant": "acme"}
        assert (await task(http, own, headers=ann))["status"]["state"] == "TASK_STATE_COMPLETED"
        assert (await error(http, "SendMessage", own, headers=eve))["code"] == -32602
        path = "/a2a/scenarios/acme/message:send"
        version = {"a2a-version": "1.0"}
        answer = await http.post(path, json=text("x"), headers=ann | version)
        assert answer.status_code == 200
        assert (await http.post(path, json=text("x"), headers=eve | version)).status_code == 400


async def test_gateways_share_tasks(fresh_xds: None, database_url: str) -> None:
    async with (
        fleet(database_url) as mesh,
        gateway_of(mesh.registry, database_url) as second,
        httpx.AsyncClient(base_url=mesh.gateway.url, timeout=20) as here,
        httpx.AsyncClient(base_url=second.url, timeout=20) as there,
    ):
        at_once = {"returnImmediately": True}
        begun = await task(here, text("wait", configuration=at_once))
        named = {"id": begun["id"]}
        assert (await result(there, "GetTask", named))["status"]["state"] == "TASK_STATE_WORKING"
        async with streaming(there, "SubscribeToTask", named) as told:
            assert (await anext(told))["task"]["id"] == begun["id"]
            mesh.told.go.set()
            seen = [each async for each in told]
        assert seen[-2]["artifactUpdate"]["artifact"]["parts"][0]["text"] == "said: wait"
        assert seen[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"

        mesh.told.go.clear()
        asked = len(mesh.told.asked)
        begun = await task(here, text("wait", configuration=at_once))
        await wait_until(lambda: len(mesh.told.asked) > asked)
        cancelled = await result(there, "CancelTask", {"id": begun["id"]})
        assert cancelled["status"]["state"] == "TASK_STATE_CANCELED"
        # The gateway that works on it hears of it and lets the agent go.
        await wait_until(lambda: mesh.told.cancelled == 1)

        waiting = await task(here, text("ask me"))
        done = await task(there, text("that one", taskId=waiting["id"]))
        assert done["status"]["state"] == "TASK_STATE_COMPLETED"
        assert await result(here, "GetTask", {"id": waiting["id"]}) == done


async def test_a_task_whose_gateway_is_gone_fails_and_is_told(
    fresh_xds: None, database_url: str
) -> None:
    async with (
        fleet(database_url) as mesh,
        httpx.AsyncClient(base_url=mesh.gateway.url, timeout=20) as http,
        contextlib.AsyncExitStack() as stack,
        Receiver().listening() as receiver,
    ):
        configuration = {
            "returnImmediately": True,
            "taskPushNotificationConfig": {"url": receiver.url},
        }
        begun = await task(http, text("wait", configuration=configuration))
        # As after kill -9: the row stays behind, and no gateway renews its lease.
        database = await asyncpg.connect(database_url)
        stack.push_async_callback(database.close)
        await database.execute(
            "update gateway.jobs set fence = fence + 1, lease_until = now() - interval '1 s'"
        )
        _, told = await receiver.seen.get()
        assert told["task"]["id"] == begun["id"]
        assert told["task"]["status"]["state"] == "TASK_STATE_FAILED"
        assert (await result(http, "GetTask", {"id": begun["id"]}))["status"] == (
            told["task"]["status"]
        )


async def test_a_gateway_that_stops_ends_its_tasks(fresh_xds: None, database_url: str) -> None:
    async with (
        fleet(database_url) as mesh,
        httpx.AsyncClient(base_url=mesh.gateway.url, timeout=20) as http,
    ):
        async with gateway_of(mesh.registry, database_url) as second:
            async with httpx.AsyncClient(base_url=second.url, timeout=20) as there:

                async def knows() -> bool:
                    return (await there.get(CARD)).status_code == 200

                await wait_until(knows)
                sent = text("wait", skill=ASK, configuration={"returnImmediately": True})
                begun = await task(there, sent)
            mesh.told.go.set()
        done = await result(http, "GetTask", {"id": begun["id"]})
        assert done["status"]["state"] == "TASK_STATE_COMPLETED"
