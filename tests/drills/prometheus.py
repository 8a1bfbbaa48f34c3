"""A real Prometheus with the configuration that ships, at the addresses of a mesh under drill."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import httpx
import pytest
import yaml
from tests.drills.mesh import Mesh
from tests.faults.processes import ROOT, Child
from tests.ports import free_port

from weft.rpc.testing import wait_until

SHIPPED = ROOT / "deploy" / "prometheus"
# What the drills shorten. Spans of time become a thirtieth, a drill waits no quarter of an hour; limits that are themselves
# a time are named. All else is as it ships.
_SPAN = re.compile(r"(\[|offset )(\d+)([mhd])")
_SHORT = {"m": 2, "h": 30, "d": 30}  # seconds for each
_LONGEST = 30
_LIMITS = {
    "weft_gateway_jobs_oldest_seconds) > 300": "weft_gateway_jobs_oldest_seconds) > 3",
    "weft_orchestrator_runs_overdue_seconds) > 30": "weft_orchestrator_runs_overdue_seconds) > 3",
}


def program(name: str) -> str:
    """The path of prometheus or promtool.

    Raises:
        pytest.skip.Exception: it is not installed; .ci/run installs it.
    """
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install prometheus)")
    return found


def rules() -> dict[str, Any]:
    """The rules that ship, by alert."""
    document = yaml.safe_load((SHIPPED / "weft.rules.yml").read_text())
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


def shortened(text: str) -> str:
    """The rules for a drill."""
    for limit, short in _LIMITS.items():
        assert text.count(limit) == 1, limit
        text = text.replace(limit, short)

    def short_span(match: re.Match[str]) -> str:
        seconds = min(_LONGEST, int(match[2]) * _SHORT[match[3]])
        return f"{match[1]}{max(10, seconds)}s"

    return re.sub(r"for: \w+", "for: 1s", _SPAN.sub(short_span, text))


class Prometheus:
    """A running one.

    Args:
        url: of its API.
    """

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=10, trust_env=False)

    async def close(self) -> None:
        """Ends the connection."""
        await self._client.aclose()

    async def _get(self, path: str, **query: str) -> Any:
        answer = (await self._client.get(path, params=query)).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def ready(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(httpx.HTTPError):
            return (await self._client.get("/-/ready")).is_success
        return False

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression gives now."""
        found = await self._get("/api/v1/query", query=expression)
        return found["result"]  # type: ignore[no-any-return]

    async def targets(self) -> dict[str, str]:
        """Health of what is scraped, by URL."""
        found = await self._get("/api/v1/targets", state="active")
        return {each["scrapeUrl"]: each["health"] for each in found["activeTargets"]}

    async def exemplars(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        """Exemplars of series."""
        span = {"start": str(start), "end": str(end)}
        return await self._get("/api/v1/query_exemplars", query=expression, **span)  # type: ignore[no-any-return]

    async def firing(self, alert: str, labels: Mapping[str, str]) -> bool:
        """Whether an alert with these labels fires."""
        for each in (await self._get("/api/v1/alerts"))["alerts"]:
            given = each["labels"]
            if each["state"] != "firing" or given["alertname"] != alert:
                continue
            if all(given.get(name) == value for name, value in labels.items()):
                return True
        return False


def configuration(mesh: Mesh, receiver: str) -> dict[str, Any]:
    """The configuration that ships, with the addresses of a mesh, and quick."""
    found: dict[str, Any] = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    found["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    found["rule_files"] = ["drill.rules.yml"]
    if receiver:
        found["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [receiver]
    else:
        del found["alerting"]
    for job in found["scrape_configs"]:
        part = job["job_name"].removeprefix("weft-")
        if part == "agents":
            (discovery,) = job["http_sd_configs"]
            discovery["url"] = f"http://{mesh.metrics['registry']}/targets"
            discovery["refresh_interval"] = "1s"
            continue
        (static,) = job["static_configs"]
        static["targets"] = [mesh.metrics[part]]
        if part == "gateway" and mesh.parts["edge"].starts:
            static["targets"].append(mesh.metrics["edge"])
    return found


@contextlib.asynccontextmanager
async def watching(mesh: Mesh, receiver: str = "") -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes a mesh every second; in the block all targets are up.

    Args:
        mesh: which.
        receiver: "host:port" that gets alerts as an Alertmanager does; empty: none.
    """
    folder = mesh.folder / "prometheus"
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration(mesh, receiver)))
    text = (SHIPPED / "weft.rules.yml").read_text()
    (folder / "drill.rules.yml").write_text(shortened(text))
    address = f"127.0.0.1:{free_port()}"
    child = Child(
        [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--enable-feature=exemplar-storage",
            "--rules.alert.resend-delay=1s",
        ],
        mesh.folder / "prometheus.log",
    )
    found = Prometheus(f"http://{address}")
    child.start()
    try:
        await wait_until(found.ready, timedelta(seconds=30))

        async def all_up() -> bool:
            health = await found.targets()
            wanted = [name for name, part in mesh.parts.items() if part.starts]
            return all(
                health.get(f"http://{mesh.metrics[name]}/metrics") == "up" for name in wanted
            )

        await wait_until(all_up, timedelta(seconds=30))
        yield found
    finally:
        await found.close()
        child.ask_to_end()
        if not await child.ended(10):
            child.kill()
