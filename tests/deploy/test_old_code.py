"""A rolling update: the schema is new already, and processes of the version before work on it beside new ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.deploy.older import Tree, tree_before_newest_migration
from tests.deploy.processes import PATIENCE, Part, Parts, finished, parts_of
from tests.ports import free_port

from weft.rpc.testing import wait_until

UNANSWERABLE = "Xyzzy plugh frobnicate quux?"
pytestmark = pytest.mark.timeout(240)


@dataclass
class Update:
    """A mesh in the middle of a rolling update."""

    parts: Parts
    old: Tree
    settings: dict[str, str]

    def _settings(self, *, new: bool, **more: str) -> dict[str, str]:
        path = {} if new else {"PYTHONPATH": self.old.python_path}
        return {**self.settings, **path, **more}

    def registry(self, *, new: bool) -> Part:
        return self._part("registry", new=new, WEFT_REGISTRY_LISTEN=self.settings["WEFT_REGISTRY"])

    async def gateway(self, *, new: bool) -> str:
        found = await self._part("gateway", new=new).ready()
        return next(value for value in found.values() if value.startswith("http"))

    async def broker(self, *, new: bool) -> str:
        return (await self._part("broker", new=new).ready())["address"]

    def agents(self, *what: str, new: bool, broker: str) -> Part:
        return self._part("agents", "serve", *what, new=new, WEFT_BROKER=broker)

    def _part(self, *command: str, new: bool, **more: str) -> Part:
        return self.parts.start(*command, **self._settings(new=new, **more))

    async def weft(self, *arguments: str, new: bool = True, **more: str) -> Any:
        told = await finished(*arguments, "--json", **self._settings(new=new, **more))
        assert told.code == 0, told.err
        return told.json


@pytest.fixture
async def update(
    database_url: str, redis_url: str, fresh_xds: None, tmp_path: Path
) -> AsyncIterator[Update]:
    old = await asyncio.to_thread(tree_before_newest_migration, tmp_path / "old")
    anywhere = "127.0.0.1:0"
    settings = {
        "WEFT_DATA": str(tmp_path / "data"),
        "WEFT_DATABASE_URL": database_url,
        "WEFT_REDIS_URL": redis_url,
        "WEFT_REGISTRY": f"127.0.0.1:{free_port()}",
        "WEFT_BROKER_LISTEN": anywhere,
        "WEFT_GATEWAY_LISTEN": anywhere,
        "WEFT_GATEWAY_GRPC_LISTEN": anywhere,
        **dict.fromkeys(
            (f"WEFT_{part}_METRICS" for part in ("REGISTRY", "BROKER", "GATEWAY", "AGENTS")),
            anywhere,
        ),
    }
    async with parts_of(tmp_path) as parts:
        yield Update(parts, old, settings)


async def say(http: httpx.AsyncClient, text: str, **headers: str) -> dict[str, Any]:
    answer = await http.post("/v1/echo:say", json={"text": text}, headers=headers)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def serves(http: httpx.AsyncClient) -> None:
    async def served() -> bool:
        paths = ("/v1/echo/ready", "/openapi.json")
        echo, api = [await http.get(path) for path in paths]
        return echo.status_code == 200 and "/v1/support:handle" in api.text

    await wait_until(served, timeout=PATIENCE)


async def test_old_code_works_on_the_new_schema_beside_new_code(update: Update) -> None:
    migrated = (await update.weft("migrate"))["migrated"]
    assert update.old.newer, "there is nothing new about the schema"
    names = {step["migration"] for step in migrated}
    assert names >= {Path(path).name for path in update.old.newer}

    registry = update.registry(new=False)
    await registry.ready()
    old_broker = await update.broker(new=False)
    fleet = update.agents(
        *("support", "orchestrator", "weft.agents.echo:Echo"), new=False, broker=old_broker
    )
    await fleet.ready()
    async with httpx.AsyncClient(base_url=await update.gateway(new=False), timeout=30) as old:
        await serves(old)
        await _everything(update, old, old_broker, old, new=False)

        # The new version arrives beside it.
        new_broker = await update.broker(new=True)
        echo = update.agents("weft.agents.echo:Echo", new=True, broker=new_broker)
        await echo.ready()
        async with httpx.AsyncClient(base_url=await update.gateway(new=True), timeout=30) as new:
            await serves(new)
            await _everything(update, old, old_broker, new, new=False)
            await _everything(update, new, new_broker, old, new=True)

            # Its registry takes the old one's place; leases and contracts are in the database.
            assert await registry.stop() == 0
            await update.registry(new=True).ready()
            await serves(old)
            await _everything(update, new, old_broker, old, new=True)
            assert await fleet.stop() == 0
            assert (await say(new, "still"))["text"] == "still"


async def _everything(
    update: Update, http: httpx.AsyncClient, broker: str, other: httpx.AsyncClient, *, new: bool
) -> None:
    """Calls, jobs seen from another gateway, messages, a workflow of the support fleet and its ticket."""
    assert (await say(http, "called"))["text"] == "called"

    job = (await say(http, "job", prefer="respond-async"))["id"]

    async def done() -> bool:
        found = await other.get(f"/v1/jobs/{job}")
        return found.is_success and found.json()["state"] == "JOB_STATE_SUCCEEDED"

    await wait_until(done, timeout=PATIENCE)

    sent = await update.weft(
        *("send", "echo.Say", '{"text": "sent"}', "--wait", "20s"), new=new, WEFT_BROKER=broker
    )
    assert sent["text"] == "sent"

    asked = {"text": UNANSWERABLE}
    answer = await http.post("/v1/support:handle", json=asked)
    assert answer.is_success, answer.text
    handled = answer.json()
    # Every agent of the fleet did its part, over both versions, and the ticket is there for all.
    assert handled.get("missing", []) == [], handled
    tickets = await update.weft("tickets", new=new)
    assert handled["ticketId"] in str(tickets), handled
