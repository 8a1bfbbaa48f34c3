"""The benchmark of the registry with little of everything: it checks what it measures."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "registry.py"


@pytest.mark.failure
@pytest.mark.timeout(120)
async def test_a_death_under_calls_costs_no_call_no_lease_and_no_change() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(BENCHMARK),
        "--quick",
        "--rounds=1",
        "--json",
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    found = json.loads(told)
    assert found["ratios"].keys() == {"resolve_p99_ms", "watchers_all_s", "xds_all_ms"}
    figures = found["figures"]
    assert figures["failed_calls"] == 0
    assert figures["calls_under_kill"] > 0
    assert figures["fewest_instances"] == figures["instances"] == 200
    assert figures["watchers_resumed"] > 0
    assert figures["watchers_snapshots"] == 0
    assert len(figures["replicas_mb"]) == 3
