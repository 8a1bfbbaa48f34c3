"""A mesh that works is backed up, destroyed and restored: all that it had said it had is there, and works."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cli.conftest import Up, processes_of
from tests.deploy.processes import PATIENCE, Parts, Told, finished, parts_of

from weft import rpc
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2 as pb
from weft.v1 import broker_pb2_grpc, message_pb2

pytestmark = pytest.mark.timeout(240)

UNANSWERABLE = "Xyzzy plugh frobnicate quux?"
WORKFLOW = """
name: said
input_type: weft.echo.v1.SayRequest
nodes:
  - id: greeting
    wait: {name: greeting, type: weft.echo.v1.SayResponse}
  - id: say
    call:
      agent: echo
      method: weft.echo.v1.EchoService/Say
      fields: {text: greeting.text + input.text}
edges:
  - {from: greeting, to: say}
"""
LARGE = 300 * 1024  # bytes; what does not fit into Redis is in PostgreSQL


class Mesh:
    """A `weft up` that asks for keys, with the agent `echo` beside it."""

    def __init__(self, up: Up, key: str = "") -> None:
        self.up = up
        self.key = key

    @property
    def settings(self) -> dict[str, str]:
        return {**self.up.environment(), "WEFT_GATEWAY_KEY": self.key}

    async def weft(self, *arguments: str) -> Told:
        return await finished(*arguments, **self.settings)

    async def json(self, *arguments: str) -> Any:
        return (await self.weft(*arguments, "--json")).json

    @contextlib.asynccontextmanager
    async def http(self) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(
            base_url=self.settings["WEFT_GATEWAY"], headers=headers, timeout=30
        ) as client:
            yield client

    @contextlib.asynccontextmanager
    async def broker(self) -> AsyncIterator[broker_pb2_grpc.BrokerServiceStub]:
        async with rpc.Channel(self.settings["WEFT_BROKER"]) as channel:
            yield broker_pb2_grpc.BrokerServiceStub(channel)

    def destroy(self) -> None:
        """Kills all of it, and its data."""
        for pid in processes_of(self.up.data):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.up.process.kill()
        self.up.process.wait()
        shutil.rmtree(self.up.data)


@contextlib.asynccontextmanager
async def mesh(data: Path, parts: Parts, key: str = "") -> AsyncIterator[Mesh]:
    up = Up(data, data.with_suffix(".txt"), "--gateway-auth", "keys")
    try:
        await asyncio.to_thread(up.wait_for, "try      weft ask")
        found = Mesh(up, key)
        await parts.start("agents", "serve", "weft.agents.echo:Echo", **found.settings).ready()
        yield found
        if up.process.poll() is None:
            assert await asyncio.to_thread(up.stop) == 0
    finally:
        up.process.kill()
        up.process.wait()


async def publish(stub: Any, queue: str, id_: str, payload: bytes = b"x", **more: Any) -> None:
    message = message_pb2.Message(id=id_, sender="test", recipient=queue, payload=payload, **more)
    await stub.Publish(pb.PublishRequest(message=message), timeout=20)


async def held(stub: Any, queue: str) -> dict[str, bytes]:
    """Messages that are in a queue still, by id."""
    request = pb.ReplayRequest(queue=queue)
    return {
        record.message.id: record.message.payload
        async for answer in stub.Replay(request, timeout=20)
        for record in answer.records
        if not record.HasField("finish_time")
    }


async def test_a_mesh_is_backed_up_destroyed_and_restored(
    short_folder: Path, tmp_path: Path, fresh_xds: None
) -> None:
    backup = tmp_path / "backup"
    async with parts_of(tmp_path) as parts:
        async with mesh(short_folder / "before", parts) as before:
            before.key = (await before.json("keys", "create", "shop"))["key"]
            was = await _fill(before, tmp_path)
            acknowledged = await _backed_up_under_traffic(before, backup)
            identity = (before.up.data / "identity.pem").read_bytes()
            before.destroy()

        data = short_folder / "after"
        restored = await finished(
            *("restore", "--from", str(backup), "--with-secrets"), WEFT_DATA=str(data)
        )
        assert restored.code == 0, restored.err
        assert (data / "identity.pem").read_bytes() == identity
        assert (data / "identity.pem").stat().st_mode & 0o777 == 0o600

        again = await finished("restore", "--from", str(backup), WEFT_DATA=str(data))
        assert (again.code, "not empty" in again.err) == (1, True)

        async with mesh(data, parts, before.key) as after:
            await _is_there(after, was, acknowledged)
            running = await finished("restore", "--from", str(backup), WEFT_DATA=str(data))
            assert (running.code, "Weft runs on" in running.err) == (1, True)


async def _fill(mesh: Mesh, folder: Path) -> dict[str, Any]:
    was: dict[str, Any] = {}
    async with mesh.broker() as stub:
        policy = message_pb2.QueuePolicy()
        for queue in ("waiting", "traffic", "large"):
            await stub.SetQueue(pb.SetQueueRequest(queue=queue, policy=policy), timeout=10)
        for number in range(50):
            await publish(stub, "waiting", f"w{number}")
        was["large"] = os.urandom(LARGE)
        await publish(stub, "large", "large", was["large"])
    refused = await mesh.weft("send", "echo.Say", '{"text": "dead", "failWith": 3}')
    assert refused.code == 0, refused.err
    later = await mesh.weft("send", "echo.Say", '{"text": "later"}', "--delay", "10h")
    assert later.code == 0, later.err

    async def dead() -> list[Any]:
        return list(await mesh.json("dead", "list", "echo"))

    await wait_until(dead, timeout=PATIENCE)

    asked = await mesh.json("ask", UNANSWERABLE)
    was["ticket"], was["conversation"] = asked["ticketId"], asked["conversationId"]
    document = folder / "leave.md"
    document.write_text("# Leave\n\nEverybody has thirty-one days of leave a year.\n")
    added = await mesh.weft("knowledge", "add", str(document))
    assert added.code == 0, added.err
    async with mesh.http() as http:
        later = {"prefer": "respond-async"}
        done = await http.post("/v1/echo:say", json={"text": "done"}, headers=later)
        was["done"] = done.json()["id"]
        await _succeeded(http, was["done"])
        # It runs while the backup is made, and has to be made again by the restored mesh.
        slow = await http.post("/v1/echo:say", json={"text": "slow", "delay": "10s"}, headers=later)
        was["slow"] = slow.json()["id"]
    graph = folder / "said.yaml"
    graph.write_text(WORKFLOW)
    begun = await mesh.weft(
        *("run", str(graph), "--id", "halfway", "--input", '{"text": "!"}', "--detach")
    )
    assert begun.code == 0, begun.err
    return was


async def _succeeded(http: httpx.AsyncClient, job: str) -> None:
    async def done() -> bool:
        found = await http.get(f"/v1/jobs/{job}")
        return found.is_success and found.json()["state"] == "JOB_STATE_SUCCEEDED"

    await wait_until(done, timeout=PATIENCE)


async def _backed_up_under_traffic(mesh: Mesh, backup: Path) -> set[str]:
    """Makes the backup while messages are published; those that were acknowledged before it began."""
    acknowledged: list[str] = []
    async with mesh.broker() as stub:

        async def traffic() -> None:
            for number in itertools.count():
                await publish(stub, "traffic", f"t{number}", b"x" * 1_000)
                acknowledged.append(f"t{number}")

        publishing = asyncio.create_task(traffic())
        try:
            await wait_until(lambda: len(acknowledged) > 100, timeout=PATIENCE)
            before = set(acknowledged)
            made = await mesh.json("backup", "--to", str(backup), "--with-secrets")
            assert len(acknowledged) > len(before), "nothing went on meanwhile"
        finally:
            publishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await publishing
    names = {"redis-0.rdb", "postgres.dump", "secrets/identity.pem"}
    assert {file["name"] for file in made["files"]} == names
    for name in (*names, "manifest.json"):
        assert (backup / name).stat().st_mode & 0o777 == 0o600
    assert set(made["postgres"]["schemas"]) >= {"registry", "broker", "gateway", "support"}
    return before


async def _is_there(mesh: Mesh, was: dict[str, Any], acknowledged: set[str]) -> None:
    async with mesh.broker() as stub:
        waiting = await held(stub, "waiting")
        assert waiting.keys() == {f"w{number}" for number in range(50)}
        assert (await held(stub, "traffic")).keys() >= acknowledged
        assert await held(stub, "large") == {"large": was["large"]}
    (dead,) = await mesh.json("dead", "list", "echo")
    assert dead["message"]["payload"]["text"] == "dead"
    # The delayed one.
    assert int((await mesh.json("queues", "show", "echo")).get("delayed", 0)) == 1
    assert was["ticket"] in {each["ticketId"] for each in await mesh.json("tickets")}
    answered = await mesh.weft("tickets", "claim", was["ticket"])
    assert answered.code == 0, answered.err
    told = await mesh.weft("run", "signal", "halfway", "greeting", '{"text": "hello"}')
    assert told.code == 0, told.err
    await mesh.weft("run", "watch", "halfway")
    run = await mesh.json("run", "get", "halfway")
    assert run["state"] == "RUN_STATE_SUCCEEDED", run
    found = await mesh.weft("knowledge", "search", "How many days of leave?")
    assert "thirty-one days" in found.out, found
    async with mesh.http() as http:
        nobody = await http.post("/v1/echo:say", json={}, headers={"authorization": "Bearer no"})
        assert nobody.status_code == 401
        talk = await http.get(f"/v1/support/conversations/{was['conversation']}")
        assert UNANSWERABLE in json.dumps(talk.json())
        await _succeeded(http, was["done"])
        await _succeeded(http, was["slow"])
        # A message is consumed, and a question answered, as before.
    sent = await mesh.json("send", "echo.Say", '{"text": "new"}', "--wait", "20s")
    assert sent["text"] == "new"
