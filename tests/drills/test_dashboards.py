"""Every panel of every dashboard has data: its queries are run by a Prometheus that scraped a mesh at work."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.drills.mesh import running
from tests.drills.prometheus import Prometheus, rules, watching
from tests.drills.traffic import usual
from tests.faults.processes import ROOT

from weft.rpc.testing import wait_until

_GRAFANA = ROOT / "deploy" / "grafana"
_BOARDS = sorted((_GRAFANA / "dashboards").glob("*.json"))
_VARIABLES = {"$__rate_interval": "10s", "$agents": ".+", "[1h]": "[30s]", "[1d]": "[30s]"}
_PATIENCE = timedelta(seconds=60)


def _panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in _BOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            yield path.stem, panel


def _expressions() -> dict[str, str]:
    found = {}
    for board, panel in _panels():
        for target in panel["targets"]:
            text = target["expr"]
            for name, value in _VARIABLES.items():
                text = text.replace(name, value)
            found[f"{board}: {panel['title']}: {target['refId']}"] = text
    return found


@pytest.mark.timeout(180)
async def test_every_panel_has_data(short_folder: Path):
    folder = Path(tempfile.mkdtemp(prefix="panels-", dir=short_folder))
    async with (
        running(folder) as mesh,
        watching(mesh) as prometheus,
        usual(mesh),
    ):
        empty = _expressions()
        assert len(empty) > 100

        async def filled() -> bool:
            for name, expression in list(empty.items()):
                if await _has_data(prometheus, expression):
                    del empty[name]
            return not empty

        try:
            await wait_until(filled, _PATIENCE)
        except TimeoutError:
            pytest.fail("no data in\n" + "\n".join(f"{n}\n    {e}" for n, e in empty.items()))
        await _points_lead_to_traces(prometheus, mesh.environment())


async def _has_data(prometheus: Prometheus, expression: str) -> bool:
    found = await prometheus.query(expression)
    return any(not math.isnan(float(each["value"][1])) for each in found)


async def _points_lead_to_traces(prometheus: Prometheus, settings: dict[str, str]) -> None:
    """Exemplars of latencies name traces that `weft trace` shows."""
    now = time.time()
    name = 'rpc_server_call_duration_seconds_bucket{agents="echo"}'
    found = await prometheus.exemplars(name, now - 60, now)
    traces = [each["labels"]["trace_id"] for series in found for each in series["exemplars"]]
    assert traces
    command = [sys.executable, "-m", "weft.cli", "trace", traces[-1], "--wait", "--json"]
    showing = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **settings}, stdout=subprocess.PIPE
    )
    shown, _ = await showing.communicate()
    assert showing.returncode == 0
    assert json.loads(shown)


def test_dashboards_are_as_they_are_made():
    command = [sys.executable, str(ROOT / "tools" / "dashboards.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_panels_say_what_they_show():
    assert [path.stem for path in _BOARDS] == [
        *("agent", "broker", "cost", "gateway", "mesh", "orchestrator"),
    ]
    for board, panel in _panels():
        where = f"{board}: {panel['title']}"
        assert panel["description"].endswith("."), where
        assert panel["fieldConfig"]["defaults"]["unit"], where
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], where
        for link in panel["links"]:
            assert Path(link["url"]).stem in rules(), where


def test_every_alert_is_linked_from_a_panel():
    linked = {Path(link["url"]).stem for _, panel in _panels() for link in panel["links"]}
    assert set(rules()) - linked == set()


def test_provisioning_names_what_dashboards_use():
    sources = yaml.safe_load((_GRAFANA / "provisioning/datasources/weft.yml").read_text())
    (prometheus,) = (each for each in sources["datasources"] if each["type"] == "prometheus")
    assert prometheus["jsonData"]["exemplarTraceIdDestinations"][0]["name"] == "trace_id"
    boards = yaml.safe_load((_GRAFANA / "provisioning/dashboards/weft.yml").read_text())
    assert boards["providers"][0]["options"]["path"]
