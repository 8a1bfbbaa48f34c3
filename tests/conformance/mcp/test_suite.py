"""The official MCP conformance suite against the gateway, counted by checks.

A scenario passes when none of its checks fails, even if none was made; so what is compared is every check by
its name. `baseline.toml` names each that fails, with the reason, and says how many succeed.
"""

from __future__ import annotations

import asyncio
import json
import platform
import re
import shutil
import subprocess
import tomllib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.mcp.fleet import fleet

from weft.gateway import Gateway

HERE = Path(__file__).parent
SUITE = HERE / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
ARCHITECTURE = {"x86_64": "x64", "aarch64": "arm64"}
NODE = HERE / f"node_modules/node-linux-{ARCHITECTURE.get(platform.machine(), '')}/bin/node"


_FOLDER = re.compile(r"server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z")


@pytest.fixture(scope="module")
def baseline() -> Any:
    return tomllib.loads((HERE / "baseline.toml").read_text())


@pytest.fixture(scope="module")
def suite() -> tuple[str, str]:
    """The command that runs the suite."""
    npm = shutil.which("npm")
    assert npm, "npm is missing: install Node.js"
    if not (HERE / "node_modules/.package-lock.json").exists():
        done = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=HERE,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return str(NODE) if NODE.exists() else "node", str(SUITE)


@pytest.fixture
async def gateway(fresh_xds: None, database_url: str) -> AsyncIterator[Gateway]:
    async with fleet(database_url) as (found, _):
        yield found


@pytest.mark.timeout(300)  # the first time, npm fetches the suite
@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_every_check_of_what_is_offered_passes(
    suite: tuple[str, str], gateway: Gateway, baseline: Any, revision: str, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        *suite,
        "server",
        *("--url", f"{gateway.url}/mcp", "--requirements", revision, "-o", str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    statuses, failed = checks(tmp_path)
    assert statuses, told.decode()
    expected = baseline[revision]
    assert failed == set(expected["fails"])
    assert statuses["SUCCESS"] == expected["passes"]
    assert all(expected["fails"].values()), "each has a reason"


def checks(folder: Path) -> tuple[Counter[str], set[str]]:
    """How many checks have which status, and those that failed: scenario:check."""
    statuses: Counter[str] = Counter()
    failed: set[str] = set()
    for file in sorted(folder.rglob("checks.json")):
        scenario = _FOLDER.fullmatch(file.parent.name)
        assert scenario, file
        for check in json.loads(file.read_text()):
            statuses[check["status"]] += 1
            if check["status"] == "FAILURE":
                failed.add(f"{scenario[1]}:{check['id']}")
    return statuses, failed
