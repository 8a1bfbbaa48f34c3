"""`weft jobs`, against a gateway."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.gateway.conftest import Mesh, routed, running

from weft.cli.app import root
from weft.gateway.jobs.office import JobSettings
from weft.gateway.jobs.webhooks import SenderSettings
from weft.rpc.testing import wait_until

LATER = {"prefer": "respond-async"}


async def weft(mesh: Mesh, *words: str) -> Result:
    arguments = ["jobs", *words, "--gateway", mesh.gateway.url]
    return await asyncio.to_thread(CliRunner().invoke, root, arguments)


async def begin(mesh: Mesh, path: str = "/v1/echo:say", **request: Any) -> str:
    answer = await mesh.http.post(path, json=request, headers=LATER)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def test_a_job_from_its_beginning_to_its_end(mesh: Mesh) -> None:
    job = await begin(mesh, text="hello")
    waited = await weft(mesh, "wait", job, "--json")
    assert waited.exit_code == 0, waited.output
    assert json.loads(waited.stdout)["response"]["json"]["text"] == "hello"
    shown = (await weft(mesh, "get", job)).output
    assert "succeeded" in shown
    assert '"text": "hello"' in shown
    table = (await weft(mesh, "list", "--state", "succeeded")).output
    assert job in table
    assert "weft.echo.v1.EchoService/Say" in table
    listed = json.loads((await weft(mesh, "--json")).stdout)
    assert job in [one["id"] for one in listed]
    assert "is forgotten" in (await weft(mesh, "delete", job)).output
    gone = await weft(mesh, "get", job)
    assert gone.exit_code == 1
    assert gone.exception is not None


async def test_waiting_ends_with_what_the_job_ends_with(mesh: Mesh) -> None:
    failing = await weft(mesh, "wait", await begin(mesh, failWith=5))
    assert failing.exit_code == 1
    assert "NOT_FOUND: The caller asked for this failure." in failing.output
    slow = await begin(mesh, delay="60s")
    waited = await weft(mesh, "wait", slow, "--timeout", "100ms")
    assert waited.exit_code == 1
    assert "The job has not ended yet." in waited.output
    cancelled = await weft(mesh, "cancel", slow)
    assert cancelled.exit_code == 0, cancelled.output
    assert (await weft(mesh, "wait", slow)).exit_code == 1


async def test_a_stream_is_watched(mesh: Mesh) -> None:
    job = await begin(mesh, "/v1/echo:repeat", text="x", count=3)
    told = await weft(mesh, "watch", job, "--json")
    changes = [json.loads(line) for line in told.stdout.splitlines()]
    assert [int(c["message"]["number"]) for c in changes if "message" in c] == [1, 2, 3]
    assert changes[-1]["job"]["state"] == "JOB_STATE_SUCCEEDED"
    behind = (await weft(mesh, "watch", job, "--after", "2")).output.splitlines()
    assert [line.split()[:1] for line in behind[:-1]] == [["3"]]
    assert behind[-1].endswith("succeeded")


@pytest.mark.usefixtures("fresh_xds")
async def test_webhooks_that_were_given_up(database_url: str) -> None:
    settings = JobSettings(
        sender=SenderSettings(attempts=1, time=timedelta(seconds=1)),
        webhook_networks=("127.0.0.0/8",),
    )
    async with running(database_url, jobs=settings) as mesh:
        await routed(mesh.http)
        headers = {**LATER, "job-webhook": "http://127.0.0.1:1/"}  # nobody is there
        await mesh.http.post("/v1/echo:say", json={}, headers=headers)

        async def dead() -> Any:
            asked = await weft(mesh, "webhooks", "--state", "dead", "--json")
            return json.loads(asked.stdout)

        await wait_until(dead, timeout=timedelta(seconds=15))
        (webhook,) = await dead()
        table = (await weft(mesh, "webhooks")).output
        assert webhook["id"] in table
        assert "it cannot be reached" in table
        again = await weft(mesh, "redeliver", webhook["id"])
        assert again.output == f"{webhook['id']} is tried again.\n"
        await wait_until(dead, timeout=timedelta(seconds=15))
