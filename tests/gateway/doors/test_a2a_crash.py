"""A2A tasks are jobs: a gateway that is killed loses none."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from tests.gateway.conftest import running
from tests.gateway.doors.a2a_client import message, result, task
from tests.gateway.jobs.test_crash import PATIENCE, GatewayProcess, serving

from weft.gateway.jobs.office import JobSettings
from weft.gateway.jobs.runner import RunnerSettings
from weft.rpc.testing import wait_until

TWICE, ONCE = "weft.echo.v1.EchoService/Say", "weft.echo.v1.EchoService/SayOnce"
OPEN = {"TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"}


async def test_tasks_survive_a_killed_gateway(
    fresh_xds: None, database_url: str, tmp_path: Path
) -> None:
    settings = JobSettings(runner=RunnerSettings(lease=timedelta(seconds=2)))
    async with running(database_url, jobs=settings) as mesh:
        dying = GatewayProcess(mesh, tmp_path / "log")
        begun: dict[str, str] = {}
        try:
            await serving(dying, mesh.http)
            async with httpx.AsyncClient(base_url=dying.url, timeout=30) as http:
                for number in range(12):
                    skill = TWICE if number % 3 else ONCE
                    say = {"text": f"{number}", "delay": "1s"}
                    sent = message(
                        {"data": say if number % 3 else {"say": say}},
                        skill=skill,
                        configuration={"returnImmediately": True},
                    )
                    begun[(await task(http, sent, agent="echo"))["id"]] = skill
        finally:
            dying.kill()
        listed: dict[str, Any] = {}

        async def all_ended() -> bool:
            page = await result(mesh.http, "ListTasks", {"includeArtifacts": True}, agent="echo")
            listed.update({each["id"]: each for each in page["tasks"]})
            return not OPEN & {each["status"]["state"] for each in page["tasks"]}

        await wait_until(all_ended, timeout=PATIENCE)
    assert listed.keys() == begun.keys()
    states: dict[str, list[str]] = {skill: [] for skill in (TWICE, ONCE)}
    for task_id, skill in begun.items():
        states[skill].append(listed[task_id]["status"]["state"])
    assert set(states[TWICE]) == {"TASK_STATE_COMPLETED"}
    # The other gateway may have taken those that the first had no room for.
    assert "TASK_STATE_FAILED" in states[ONCE]
    lost = next(each for each in listed.values() if each["status"]["state"] == "TASK_STATE_FAILED")
    assert "not known" in lost["status"]["message"]["parts"][0]["text"]
