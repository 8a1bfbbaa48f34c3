"""The capacity page says what its data says, and its arithmetic is right; the benchmark measures what it claims to."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PLAN = BENCHMARKS / "capacity_plan.py"
DATA = BENCHMARKS / "data" / "capacity.json"


def plan(*options: str) -> list[dict]:
    told = subprocess.run(
        (sys.executable, PLAN, "--json", *options), check=True, capture_output=True, text=True
    )
    (rows,) = json.loads(told.stdout).values()
    return rows


def value(rows: list[dict], name: str) -> float:
    (found,) = (row["value"] for row in rows if row["name"] == name)
    return found


def test_the_page_says_what_was_measured():
    subprocess.run((sys.executable, PLAN, "--check"), check=True)


def test_load_follows_from_people():
    rows = plan(
        "--people=86400", "--turns=2", "--peak=3", "--calls=4", "--working=5", "--messages=2"
    )
    assert value(rows, "turns") == pytest.approx(6)
    assert value(rows, "calls of agents") == pytest.approx(24)
    assert value(rows, "messages") == pytest.approx(12)
    assert value(rows, "calls in flight") == pytest.approx(120)


def test_there_are_two_instances_of_each_agent_at_least_and_as_many_as_calls_in_flight_take():
    few = plan("--people=1", "--agents=7", "--per-host=2")
    assert value(few, "instances") == 14
    assert value(few, "processes of agents") == 7
    load = ("--people=86400", "--peak=1", "--calls=1", "--working=100", "--concurrency=3")
    many = plan("--turns=1", *load)
    assert value(many, "instances") == 200  # of 100 agents, and 34 would do
    busy = plan("--turns=10", *load)
    assert value(busy, "instances") == 334


def test_no_mesh_is_planned_larger_than_was_measured():
    points = json.loads(DATA.read_text())["figures"]["points"]
    most = points["agents"][-1]["n"]
    assert value(plan(f"--agents={most:.0f}", "--people=1", "--per-host=1000"), "meshes") == 1
    assert value(plan(f"--agents={most + 1:.0f}", "--people=1", "--per-host=1000"), "meshes") > 1


def test_twice_the_people_take_twice_the_gateway():
    once, twice = (value(plan(f"--people={n}"), "gateway") for n in (1e6, 2e6))
    assert twice == pytest.approx(2 * once)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "many"])
def test_what_is_no_size_is_refused_by_its_name(value):
    command = (sys.executable, PLAN, f"--busy={value}")
    told = subprocess.run(command, check=False, capture_output=True, text=True)
    assert told.returncode == 2
    assert "--busy" in told.stderr.splitlines()[-1]


@pytest.mark.timeout(180)
async def test_the_benchmark_reads_each_part():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(BENCHMARKS / "capacity.py")),
        *("--quick", "--json", "--only=calls", "--only=messages"),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0
    points = json.loads(told)["figures"]["points"]
    assert [point["n"] for point in points["calls"]] == [1, 5]
    for way in ("direct", "grpc", "rest"):
        assert all(point[f"{way}_per_second"] > 0 for point in points["calls"])
    # A direct call does not pass the gateway.
    assert "direct_gateway_us" not in points["calls"][0]
    assert [point["n"] for point in points["queues"]] == [1, 5]
    first, last = points["waiting"]
    assert last["redis_mb"] > first["redis_mb"]
