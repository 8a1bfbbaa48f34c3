"""A replica that dies or hangs under load."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from weft.rpc.testing import wait_until

pytestmark = [pytest.mark.failure, pytest.mark.timeout(120)]


async def test_a_killed_replica_costs_no_idempotent_call(house, calling):
    async with calling(house.registry, rate=200, deadline=5) as load:
        await wait_until(lambda: len(load.outcomes) > 100)
        house.processes[-1].kill()
        killed = len(load.outcomes)
        gone = await house.until(1)
        await wait_until(lambda: len(load.outcomes) > killed + 200)
    assert load.failed() == []
    assert gone < 1.5, "a refused connection takes a replica out at once"
    assert len({told for *_, told in load.outcomes}) == 2


async def test_a_hung_replica_costs_a_deadline_at_most_and_leaves_within_five_seconds(
    house, calling
):
    deadline = 1.0
    async with calling(house.registry, rate=50, deadline=deadline) as load:
        await wait_until(lambda: len(load.outcomes) > 50)
        hung = time.monotonic()
        house.processes[-1].hang()
        out = await house.until(1)
        left = time.monotonic()
        await wait_until(lambda: sum(began > left + 0.5 for began, *_ in load.outcomes) > 50)
    assert out < 5
    assert load.slowest() < deadline + 0.5
    for began, _, code, _ in load.failed():
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert hung - deadline < began < left + 0.2


async def test_a_replica_that_comes_back_is_used_again(house, calling):
    async with calling(house.registry, rate=50, deadline=5) as load:
        house.processes[-1].kill()
        await house.until(1)
        house.start_echo()
        await house.until(2)
        back = time.monotonic()

        def instances() -> set[str]:
            return {told for began, _, _, told in load.outcomes if began > back}

        await wait_until(lambda: len(instances()) == 2)
    assert load.failed() == []


async def test_a_stopped_replica_drains_and_costs_no_call_of_any_kind(house, calling):
    async with calling(house.registry, rate=100, deadline=5) as load:
        await wait_until(lambda: len(load.outcomes) > 50)
        leaving = house.processes[-1]
        leaving._process.terminate()
        await asyncio.to_thread(leaving._process.wait, 20)
        assert await house.in_service() == 1
    assert load.failed() == []
    assert leaving._process.returncode == 0
