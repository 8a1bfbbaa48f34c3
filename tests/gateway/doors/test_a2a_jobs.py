"""A2A tasks as the jobs that they are, and what the gateway does for both."""

from __future__ import annotations

import base64
import json
from typing import Any

import grpc
import httpx
import jwt
import pytest
from a2a.types import a2a_pb2 as pb
from a2a.types import a2a_pb2_grpc
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import ParseDict
from tests.conformance.a2a.fleet import fleet
from tests.gateway.doors.a2a_client import (
    ASK,
    COUNT,
    URI,
    call,
    error,
    message,
    result,
    streaming,
    task,
    text,
)

from weft.gateway.doors.a2a import A2aSettings
from weft.gateway.doors.a2a.jcs import canonical
from weft.gateway.guards import limit_rules
from weft.gateway.jobs.office import JobSettings
from weft.gateway.jobs.runner import RunnerSettings
from weft.rpc.signing import Signer
from weft.rpc.testing import wait_until

AT_ONCE = {"returnImmediately": True}


async def test_a_task_is_a_job(fresh_xds: None, database_url: str) -> None:
    async with (
        fleet(database_url) as mesh,
        httpx.AsyncClient(base_url=mesh.gateway.url, timeout=20) as http,
    ):
        waiting = await task(http, text("ask me"))
        job = (await http.get(f"/v1/jobs/{waiting['id']}")).json()
        assert (job["state"], job["kind"], job["context"], job["method"]) == (
            "JOB_STATE_WAITING",
            "a2a",
            waiting["contextId"],
            ASK,
        )
        assert job["error"]["reason"] == "INPUT_REQUIRED"
        assert "endTime" not in job
        # Who waits for the job is told that it waits.
        waited = await http.post(f"/v1/jobs/{waiting['id']}:wait", json={"timeout": "10s"})
        assert waited.json()["state"] == "JOB_STATE_WAITING"
        listed = (await http.get("/v1/jobs", params={"state": "JOB_STATE_WAITING"})).json()
        assert [each["id"] for each in listed["jobs"]] == [waiting["id"]]
        # What is done to the one is done to the other.
        await http.post(f"/v1/jobs/{waiting['id']}:cancel", json={})
        told = await result(http, "GetTask", {"id": waiting["id"]})
        assert told["status"]["state"] == "TASK_STATE_CANCELED"
        done = await task(http, text("x"))
        shown = (await http.get(f"/v1/jobs/{done['id']}")).json()
        assert shown["state"] == "JOB_STATE_SUCCEEDED"
        assert shown["response"]["json"] == {"text": "said: x"}
        # A job of another door is no task.
        begun = await http.post(f"/{ASK}", json={"text": "x"}, headers={"prefer": "respond-async"})
        assert (await error(http, "GetTask", {"id": begun.json()["id"]}))["code"] == -32001


async def test_states_are_the_same_in_lists(fresh_xds: None, database_url: str) -> None:
    async with (
        fleet(database_url) as mesh,
        httpx.AsyncClient(base_url=mesh.gateway.url, timeout=20) as http,
    ):
        states: dict[str, str] = {}
        for said in ("x", "refuse", "fail", "ask me", "sign in"):
            made = await task(http, text(said))
            states[made["id"]] = made["status"]["state"]
        running = await task(http, text("wait", configuration=AT_ONCE))
        states[running["id"]] = "TASK_STATE_WORKING"
        left = await task(http, text("wait", configuration=AT_ONCE))
        await result(http, "CancelTask", {"id": left["id"]})
        states[left["id"]] = "TASK_STATE_CANCELED"
        assert len(set(states.values())) == len(states)
        for task_id, state in states.items():
            [found] = (await result(http, "ListTasks", {"status": state}))["tasks"]
            assert (found["id"], found["status"]["state"]) == (task_id, state)


async def test_a_key_makes_one_task(fresh_xds: None, database_url: str) -> None:
    async with (
        fleet(database_url) as mesh,
        httpx.AsyncClient(base_url=mesh.gateway.url, timeout=20) as http,
    ):
        key = {"idempotency-key": "k"}
        made = [await task(http, text("once"), headers=key) for _ in range(2)]
        assert made[0]["id"] == made[1]["id"]
        assert made[1]["status"]["state"] == "TASK_STATE_COMPLETED"
        assert mesh.told.asked.count("once") == 1
        other = await error(http, "SendMessage", text("another"), headers=key)
        assert other["data"][0]["reason"] == "IDEMPOTENCY_KEY_REUSED"


async def test_tasks_wait_for_room(fresh_xds: None, database_url: str) -> None:
    jobs = JobSettings(runner=RunnerSettings(at_once=1))
    async with (
        fleet(database_url, jobs=jobs) as mesh,
        httpx.AsyncClient(base_url=mesh.gateway.url, timeout=20) as http,
    ):
        first = await task(http, text("wait", configuration=AT_ONCE))
        second = await task(http, text("x", configuration=AT_ONCE))
        assert first["status"]["state"] == "TASK_STATE_WORKING"
        assert second["status"]["state"] == "TASK_STATE_SUBMITTED"
        async with streaming(http, "SubscribeToTask", {"id": second["id"]}) as told:
            assert (await anext(told))["task"]["id"] == second["id"]
            mesh.told.go.set()
            seen = [each async for each in told]
        assert [next(iter(each)) for each in seen][-2:] == ["artifactUpdate", "statusUpdate"]
        assert seen[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_limits_come_first(fresh_xds: None, database_url: str) -> None:
    limits = limit_rules.parse(f"per=all rate=2/h methods={ASK}; per=all rate=1/h methods={COUNT}")
    async with (
        fleet(database_url, limits=limits) as mesh,
        httpx.AsyncClient(base_url=mesh.gateway.url, timeout=20) as http,
    ):
        counting = message({"data": {"upTo": 1}}, skill=COUNT, configuration=AT_ONCE)
        await task(http, text("x"))
        for params in (counting, text("x", configuration=AT_ONCE)):
            while (answer := await call(http, "SendMessage", params)).status_code == 200:
                pass
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) > 0
        listed = await result(http, "ListTasks")
        assert listed["totalSize"] == len(mesh.told.asked) + 1


async def test_a_caller_that_hangs_up_leaves_its_task(fresh_xds: None, database_url: str) -> None:
    async with (
        fleet(database_url) as mesh,
        grpc.aio.insecure_channel(mesh.gateway.grpc_address) as channel,
    ):
        stub = a2a_pb2_grpc.A2AServiceStub(channel)
        sent = ParseDict({"tenant": "scenarios", **text("wait")}, pb.SendMessageRequest())
        version = (("a2a-version", "1.0"),)
        asked = stub.SendMessage(sent, metadata=version)
        await wait_until(lambda: mesh.told.asked == ["wait"])
        asked.cancel()
        mesh.told.go.set()

        async def done() -> bool:
            listed = await stub.ListTasks(pb.ListTasksRequest(), metadata=version)
            return [each.status.state for each in listed.tasks] == [pb.TASK_STATE_COMPLETED]

        await wait_until(done)


async def test_grpc_waits_no_longer_than_its_deadline(fresh_xds: None, database_url: str) -> None:
    async with (
        fleet(database_url, a2a=A2aSettings(agent="scenarios")) as mesh,
        grpc.aio.insecure_channel(mesh.gateway.grpc_address) as channel,
    ):
        stub = a2a_pb2_grpc.A2AServiceStub(channel)
        metadata = (("a2a-version", "1.0"), ("a2a-extensions", URI))
        # Who names no agent means the one that the settings name.
        asked = stub.SendMessage(
            ParseDict(text("wait"), pb.SendMessageRequest()), metadata=metadata, timeout=2
        )
        begun = (await asked).task
        assert begun.status.state == pb.TASK_STATE_WORKING
        assert dict(await asked.initial_metadata())["a2a-extensions"] == URI
        told = stub.SubscribeToTask(pb.SubscribeToTaskRequest(id=begun.id), metadata=metadata)
        assert (await anext(aiter(told))).task.id == begun.id
        mesh.told.go.set()
        seen = [each async for each in told]
        assert seen[-1].status_update.status.state == pb.TASK_STATE_COMPLETED
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListTasks(pb.ListTasksRequest())
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_cards_are_signed(fresh_xds: None, database_url: str) -> None:
    signer = Signer(Ed25519PrivateKey.generate())
    async with (
        fleet(database_url, signer=signer) as mesh,
        httpx.AsyncClient(base_url=mesh.gateway.url, timeout=20) as http,
    ):
        keys = {
            each["kid"]: jwt.PyJWK(each)
            for each in (await http.get("/a2a/.well-known/jwks.json")).json()["keys"]
        }
        verify = create_signature_verifier(lambda kid, _: keys[kid or ""], ["EdDSA"])
        extended = await result(http, "GetExtendedAgentCard")
        public = (await http.get("/a2a/scenarios/.well-known/agent-card.json")).json()
        whole = (await http.get("/.well-known/agent-card.json")).json()
        for card in (extended, public, whole):
            # By the rules of the specification, and by those of the SDK.
            _verify(card, keys)
            read = ParseDict(card, pb.AgentCard())
            verify(read)
            read.description += "."
            with pytest.raises(InvalidSignaturesError):
                verify(read)


def _verify(card: dict[str, Any], keys: dict[str, jwt.PyJWK]) -> None:
    card = dict(card)
    signature = card.pop("signatures")[0]
    protected = json.loads(_decoded(signature["protected"]))
    assert (protected["alg"], protected["typ"]) == ("EdDSA", "JOSE")
    assert protected["jku"].endswith("/a2a/.well-known/jwks.json")
    payload = base64.urlsafe_b64encode(canonical(card).encode()).rstrip(b"=")
    signed = signature["protected"].encode() + b"." + payload
    keys[protected["kid"]].key.verify(_decoded(signature["signature"]), signed)


def _decoded(text_: str) -> bytes:
    return base64.urlsafe_b64decode(text_ + "=" * (-len(text_) % 4))


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ({"b": 1, "a": [True, None, "é\n\u2028"]}, '{"a":[true,null,"é\\n\u2028"],"b":1}'),
        # RFC 8785, 3.2.3: by UTF-16 code units.
        ({"\ufb33": 1, "\U0001f600": 2}, '{"\U0001f600":2,"\ufb33":1}'),
        # RFC 8785, appendix B.
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (-1.7976931348623157e308, "-1.7976931348623157e+308"),
        (9007199254740992, "9007199254740992"),
        (295147905179352830000, "295147905179352830000"),
        (999999999999999900000.0, "999999999999999900000"),
        (1e21, "1e+21"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (0.000001, "0.000001"),
        (1e-7, "1e-7"),
        (333333333.33333329, "333333333.3333333"),
        (0.0000033333333333333333, "0.0000033333333333333333"),
        (424242.0, "424242"),
    ],
)
def test_canonical_json(value: Any, form: str) -> None:
    assert canonical(value) == form
