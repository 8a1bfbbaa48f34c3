"""`weft up --registries`: replicas of the registry, one of which dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import COMMAND, Up, environment, processes_of, wait_for

pytestmark = pytest.mark.timeout(120)


def registries(up: Up) -> list[dict[str, Any]]:
    """What `weft status` says of the replicas."""
    told = subprocess.run(
        (*COMMAND, "status", "--json"),
        env=environment(up.data, **up.environment()),
        capture_output=True,
        check=False,
    )
    parts = json.loads(told.stdout)["parts"]
    assert next(part for part in parts if part["part"] == "registry")["state"] == "up", parts
    return [part for part in parts if part["part"] == "replica"]


@pytest.mark.failure
def test_a_replica_that_dies_is_missed_by_nobody_and_started_again(short_folder: Path) -> None:
    data = short_folder / "registries"
    up = Up(data, short_folder / "registries.txt", "--registries", "2")
    try:
        up.wait_for("try      weft ask")
        addresses = up.address("registry").split(",")
        assert len(addresses) == 2
        before = registries(up)
        assert sorted(part["address"] for part in before) == sorted(addresses)
        assert all(part["state"] == "up" and "leases" in part["detail"] for part in before)

        os.kill(up.child("weft.cli", "registry", "--listen"), signal.SIGKILL)
        up.wait_for("registry-2: ended (SIGKILL), starting it again")
        told = subprocess.run(
            (*COMMAND, "agents", "list", "--json"),
            env=environment(data, **up.environment()),
            capture_output=True,
            check=True,
        )
        assert len(json.loads(told.stdout)) > 5
        wait_for(lambda: [part["state"] for part in registries(up)] == ["up", "up"])
        assert up.stop() == 0
        assert processes_of(data) == {}
    finally:
        up.process.kill()
        up.process.wait()
