"""Gateway processes that are killed: every job ends once, every webhook arrives and verifies."""

from __future__ import annotations

import base64
import collections
import hashlib
import hmac
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway.conftest import Mesh, running
from tests.ports import free_port

from weft.gateway.http import HttpServer, HttpSettings
from weft.gateway.jobs.office import JobSettings
from weft.gateway.jobs.runner import RunnerSettings
from weft.gateway.jobs.webhooks import SenderSettings
from weft.rpc.testing import wait_until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PATIENCE = timedelta(seconds=30)


class GatewayProcess:
    """A gateway as a process of its own."""

    def __init__(self, mesh: Mesh, log: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        settings = {
            "WEFT_REGISTRY": mesh.registry,
            "WEFT_DATABASE_URL": mesh.database_url,
            "WEFT_GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "WEFT_GATEWAY_GRPC_LISTEN": "127.0.0.1:0",
            "WEFT_GATEWAY_METRICS": "127.0.0.1:0",
            "WEFT_GATEWAY_JOB_LEASE": "2s",
            "WEFT_GATEWAY_JOBS_AT_ONCE": "8",
            "WEFT_GATEWAY_WEBHOOK_PAUSE": "0.2s",
            "WEFT_GATEWAY_WEBHOOK_TIME": "1s",
            "WEFT_GATEWAY_WEBHOOK_NETWORKS": "127.0.0.0/8",
            "WEFT_TRACE_SAMPLE": "0",
        }
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "weft.cli", "gateway"],
                env={**os.environ, **settings},
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Receiver:
    """Counts webhooks that verify; every third is refused at first."""

    def __init__(self) -> None:
        self.states: dict[str, list[str]] = collections.defaultdict(list)
        self.forged = 0
        self.url = ""
        self._refused: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        id_ = headers["webhook-id"]
        status = 204
        if int(id_[-2:], 16) % 3 == 0 and id_ not in self._refused:
            self._refused.add(id_)
            status = 500
        else:
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            key = base64.b64decode(SECRET.removeprefix("whsec_"))
            digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
            if headers["webhook-signature"] != f"v1,{digest}":
                self.forged += 1
            data = json.loads(body)["data"]
            self.states[data["job"]].append(data["state"])
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = HttpServer(made, HttpSettings(port=0))
    await server.start()
    made.url = f"http://{server.address}/"
    yield made
    await server.stop(timedelta(0))


async def serving(gateway: GatewayProcess, http: httpx.AsyncClient) -> None:
    async def served() -> bool:
        assert gateway.process.poll() is None
        try:
            return (await http.get(f"{gateway.url}/v1/echo/ready")).status_code == 200
        except httpx.HTTPError:
            return False

    await wait_until(served, timeout=PATIENCE)


async def test_killed_gateways(
    fresh_xds: None, database_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    # The one that stays is asked about the jobs, and takes over those of the dead, few at a time.
    settings = JobSettings(
        runner=RunnerSettings(lease=timedelta(seconds=2), at_once=4),
        sender=SenderSettings(first_pause=timedelta(seconds=0.2), time=timedelta(seconds=1)),
        webhook_networks=("127.0.0.0/8",),
    )
    async with running(database_url, jobs=settings) as mesh:
        http = mesh.http
        begun: dict[str, bool] = {}  # by id: whether it may be called twice
        asked = {
            "prefer": "respond-async",
            "job-webhook": receiver.url,
            "job-webhook-secret": SECRET,
        }
        for round_ in range(2):
            dying = GatewayProcess(mesh, tmp_path / "log")
            try:
                await serving(dying, http)
                for number in range(40):
                    twice = number % 4 > 0
                    say = {"text": f"{round_}-{number}", "delay": "0.3s"}
                    path = "Say" if twice else "SayOnce"
                    answer = await http.post(
                        f"{dying.url}/weft.echo.v1.EchoService/{path}",
                        json=say if twice else {"say": say},
                        headers=asked,
                    )
                    assert answer.status_code == 202, answer.text
                    begun[answer.json()["id"]] = twice
            finally:
                dying.kill()

        async def all_told() -> bool:
            return receiver.states.keys() == begun.keys()

        await wait_until(all_told, timeout=PATIENCE)
        found = {id_: (await http.get(f"/v1/jobs/{id_}")).json() for id_ in begun}
    assert receiver.forged == 0
    for id_, twice in begun.items():
        job = found[id_]
        # At least once, and always the same.
        assert set(receiver.states[id_]) == {job["state"]}
        if job["state"] == "JOB_STATE_SUCCEEDED":
            assert job["response"]["json"]
        else:
            assert not twice
            assert job["error"]["reason"] == "JOB_OUTCOME_UNKNOWN"
    # The kills did hit: some jobs were begun again.
    assert any(job.get("losses") for job in found.values())
