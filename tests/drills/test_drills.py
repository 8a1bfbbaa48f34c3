"""Some of the drills; `python tests/drills/run.py` does all of them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.drills.drilling import all_done
from tests.drills.drills import DRILLS
from tests.drills.mesh import running
from tests.drills.prometheus import watching
from tests.drills.receiver import Receiver, receiving
from tests.faults.processes import Child, python
from tests.ports import free_port

from weft.rpc.testing import wait_until

_QUICK = ("WeftAgentDown", "WeftAgentErrors", "WeftBreakerOpen", "WeftDeadLetters", "WeftPartDown")


def _titles(receiver: Receiver) -> list[str]:
    return [embed["title"] for _, told in receiver.told for embed in told["embeds"]]


@contextlib.asynccontextmanager
async def _telling(receiver: Receiver, folder: Path) -> AsyncIterator[str]:
    """`weft alerts` between Prometheus and Discord; where it listens."""
    address = f"127.0.0.1:{free_port()}"
    command = python("weft.cli", "alerts", "--listen", address, "--format", "discord")
    child = Child(command, folder / "alerts.log", {"WEFT_ALERTS_TO": receiver.url})
    child.start()
    try:
        await wait_until(lambda: child.told(b"ready: "), timedelta(seconds=30))
        yield address
    finally:
        child.kill()


@pytest.mark.failure
@pytest.mark.timeout(240)
async def test_alerts_fire_and_clear(short_folder: Path):
    folder = Path(tempfile.mkdtemp(prefix="drills-", dir=short_folder))
    drills = [DRILLS[name] for name in _QUICK]
    parts = {part for each in drills for part in each.parts}
    async with (
        running(folder, *sorted(parts)) as mesh,
        receiving() as receiver,
        _telling(receiver, mesh.folder) as address,
        watching(mesh, address) as prometheus,
    ):
        outcomes = [outcome async for outcome in all_done(drills, mesh, prometheus)]
        wanted = {f"{state}: {name}" for state in ("FIRING", "RESOLVED") for name in _QUICK}
        await wait_until(lambda: wanted <= set(_titles(receiver)), timedelta(seconds=30))
    assert {outcome.alert for outcome in outcomes} == set(_QUICK)
    assert [outcome for outcome in outcomes if not outcome.passed] == []
