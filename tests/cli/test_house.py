from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from weft import embedded

pytestmark = pytest.mark.timeout(120)


def test_one_mesh_per_folder(weft, house):
    told = weft("up")
    assert told.code == 1
    assert f"process {house.process.pid}" in told.err
    assert house.address("gateway") in told.err
    assert "--data" in told.err


def test_a_port_in_use_names_the_setting(nowhere):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        told = nowhere("up", "--gateway-listen", address)
    assert told.code == 1
    assert f"{address} is in use" in told.err
    assert "WEFT_GATEWAY_LISTEN" in told.err


def test_an_address_that_is_none_names_the_setting(nowhere):
    told = nowhere("up", "--registry-listen", "here")
    assert told.code == 1
    assert "WEFT_REGISTRY_LISTEN must be HOST:PORT" in told.err


def test_a_folder_that_cannot_be_made_is_named(nowhere, tmp_path: Path):
    (tmp_path / "file").touch()
    told = nowhere("up", "--data", str(tmp_path / "file" / "data"))
    assert told.code == 1
    assert "--data" in told.err


def test_a_part_that_cannot_use_its_settings_ends_the_start(house, tools, tmp_path):
    servers = embedded.endpoints(house.data)
    settings = {
        "WEFT_DATABASE_URL": servers.database_url,
        "WEFT_REDIS_URL": servers.redis_url,
        "WEFT_REGISTRY_LEASE_TTL": "0s",
    }
    code, shown = tools.on_terminal(("up",), tools.environment(tmp_path, **settings))
    assert code == 1
    assert re.search(r"^PART +STATE +PID", shown, re.MULTILINE)
    assert re.search(r"^registry +failed", shown, re.MULTILINE)
    assert "registry does not run (exit status 2)" in shown
    assert "WEFT_REGISTRY_LEASE_TTL" in shown
    assert tools.processes_of(tmp_path) == {}


def test_alerts_are_taken_where_a_webhook_is_set(house):
    alerts = f"http://{house.address('alerts')}/api/v2/alerts"
    labels = {"alertname": "WeftAgentDown", "agent": "nobody"}
    assert httpx.post(alerts, json=[{"labels": labels}]).status_code == 200
    assert [one["labels"] for one in httpx.get(alerts).json()] == [labels]


def test_alerts_do_not_share_a_port(nowhere, monkeypatch):
    monkeypatch.setenv("WEFT_ALERTS_TO", "http://127.0.0.1:1/nobody")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("WEFT_ALERTS_LISTEN", f"127.0.0.1:{taken.getsockname()[1]}")
        told = nowhere("up")
    assert told.code == 1
    assert "WEFT_ALERTS_LISTEN" in told.err


@pytest.mark.failure
def test_a_part_that_dies_is_started_again(weft, house, tools):
    before = house.child("gateway")
    os.kill(before, signal.SIGKILL)
    house.wait_for("gateway: ended (SIGKILL), starting it again")

    def serving() -> bool:
        try:
            return httpx.get(f"{house.address('gateway')}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    tools.wait_for(serving)
    assert house.child("gateway") != before
    assert weft("status").code == 0


@pytest.mark.failure
def test_demo_alone_then_up_killed_leave_nothing_behind(short_folder: Path, tools):
    folder = short_folder / "alone"
    told = subprocess.run(
        (*tools.command, "demo", "--json"),
        env=tools.environment(folder, WEFT_GATEWAY="http://127.0.0.1:1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["result"]["answer"]["citations"]
    assert any(span["service"] == "gateway" for span in found["trace"])
    assert tools.processes_of(folder) == {}

    # The same data again, and a supervisor that is not asked.
    up = tools.up(folder / "demo", short_folder / "alone.txt")
    try:
        up.wait_for("registry: ready")
        assert len(tools.processes_of(folder)) > 5
    finally:
        up.process.kill()
        up.process.wait()
    tools.wait_for(lambda: tools.processes_of(folder) == {}, timedelta(seconds=20))
