"""How the gateway's own calls are spread, and which addresses they leave alone."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from tests.gateway.dataplane.agents import Agent, agent_at, unary

from weft.gateway.dataplane import CallFailed, Mesh
from weft.gateway.dataplane.traffic import Balancing, Fault, Outliers, Traffic
from weft.rpc.call import Metadata
from weft.rpc.testing import wait_until
from weft.rpc.utilization import UTILIZATION_KEY
from weft.xds.v1.orca_pb2 import OrcaLoadReport


@contextlib.asynccontextmanager
async def agents(number: int) -> AsyncIterator[tuple[Mesh, list[Agent]]]:
    async with contextlib.AsyncExitStack() as stack:
        found = [await stack.enter_async_context(agent_at()) for _ in range(number)]
        mesh = Mesh()
        stack.push_async_callback(mesh.close)
        yield mesh, found


def spread(mesh: Mesh, found: Sequence[Agent], **traffic: object) -> None:
    mesh.update({"a": [each.address for each in found]}, {"a": Traffic(**traffic)})  # type: ignore[arg-type]


async def asked(mesh: Mesh, times: int, metadata: Metadata = ()) -> collections.Counter[str]:
    """Addresses that answered, and statuses of those that did not."""
    counted: collections.Counter[str] = collections.Counter()
    method = mesh.method("a", "/t.T/Where")
    for _ in range(times):
        try:
            answer, _ = await method.unary(b"", 10.0, metadata)
            counted[answer.decode()] += 1
        except CallFailed as failed:
            counted[failed.code().name] += 1
    return counted


async def connected(mesh: Mesh, found: Sequence[Agent]) -> None:
    mesh.update({"a": [each.address for each in found]})

    async def all_of_them() -> bool:
        return len(await asked(mesh, 20)) == len(found)

    await wait_until(all_of_them)


async def test_subsets_have_their_shares() -> None:
    async with agents(3) as (mesh, found):
        await connected(mesh, found)
        canary = found[2].address
        spread(mesh, found, shares={"": 90, "canary": 10}, subsets={canary: "canary"})
        counted = await asked(mesh, 1_000)
        assert 52 <= counted[canary] <= 148, counted  # five deviations
        others = [counted[each.address] for each in found[:2]]
        assert abs(others[0] - others[1]) <= 1, counted  # in turn


async def test_a_caller_with_a_header_stays_in_its_subset_and_at_its_instance() -> None:
    async with agents(4) as (mesh, found):
        await connected(mesh, found)
        subsets = {each.address: "next" for each in found[2:]}
        spread(
            mesh,
            found,
            shares={"": 50, "next": 50},
            subsets=subsets,
            balancing=Balancing.RING_HASH,
            header="x-session",
        )
        homes = {
            session: await asked(mesh, 10, (("x-session", session),))
            for session in map(str, range(40))
        }
        assert all(len(home) == 1 for home in homes.values()), homes
        assert len({next(iter(home)) for home in homes.values()}) == 4
        # One that goes moves its own callers only.
        gone = found[0].address
        spread(
            mesh,
            found[1:],
            shares={"": 50, "next": 50},
            subsets=subsets,
            balancing=Balancing.RING_HASH,
            header="x-session",
        )
        for session, home in homes.items():
            now = await asked(mesh, 1, (("x-session", session),))
            assert now.keys() == home.keys() or gone in home


async def test_the_zone_of_the_gateway_first_and_then_elsewhere() -> None:
    async with agents(3) as (mesh, found):
        zones = {found[0].address: "a", found[1].address: "b", found[2].address: "b"}
        spread(mesh, found, zone="a", zones=zones)
        assert await asked(mesh, 30) == {found[0].address: 30}
        await found[0].server.stop(0)

        async def elsewhere() -> bool:
            return (await asked(mesh, 10)).keys() == {found[1].address, found[2].address}

        await wait_until(elsewhere)


async def test_an_address_whose_calls_fail_is_left_alone_and_tried_again() -> None:
    async with agents(3) as (mesh, found):
        await connected(mesh, found)
        spread(mesh, found, outliers=Outliers(ejection=0.5))
        ill = found[0]
        ill.failing = grpc.StatusCode.INTERNAL
        seen = await asked(mesh, 30)
        assert seen["INTERNAL"] == 10

        async def left_alone() -> bool:
            return not (await asked(mesh, 30))["INTERNAL"]

        await wait_until(left_alone)
        ill.failing = None

        async def back() -> bool:
            return bool((await asked(mesh, 9))[ill.address])

        await wait_until(back)


async def test_what_is_the_callers_fault_is_no_reason_nor_are_all_left_alone() -> None:
    async with agents(2) as (mesh, found):
        await connected(mesh, found)
        spread(mesh, found, outliers=Outliers(ejection=30))
        for each in found:
            each.failing = grpc.StatusCode.INVALID_ARGUMENT
        started = time.monotonic()
        while time.monotonic() - started < 1.3:
            await asked(mesh, 20)
        assert not any(e.ejected for e in mesh._agents["a"]._ring)
        for each in found:
            each.failing = grpc.StatusCode.UNKNOWN

        async def one() -> bool:
            await asked(mesh, 20)
            return any(e.ejected for e in mesh._agents["a"]._ring)

        await wait_until(one)
        assert sum(e.ejected for e in mesh._agents["a"]._ring) == 1
        # With no other left, one that is left alone is better than none.
        other = next(e.address for e in mesh._agents["a"]._ring if not e.ejected)
        mesh.update(
            {"a": [each.address for each in found if each.address != other]},
            {"a": Traffic(outliers=Outliers(ejection=30))},
        )
        assert (await asked(mesh, 5)) == {"UNKNOWN": 5}


async def test_weights_are_what_instances_report() -> None:
    async with agents(2) as (mesh, found):
        await connected(mesh, found)
        for agent, used in zip(found, (0.2, 0.8), strict=True):
            report = OrcaLoadReport(rps_fractional=100, application_utilization=used)
            agent.trailing = ((UTILIZATION_KEY, report.SerializeToString()),)
        spread(mesh, found, balancing=Balancing.WEIGHTED)

        async def four_to_one() -> bool:
            counted = await asked(mesh, 500)
            return 3.0 < counted[found[0].address] / counted[found[1].address] < 5.3

        await wait_until(four_to_one)


@pytest.mark.parametrize(
    "numbers",
    [
        (100, -50, 0.5),  # rate, errors, utilization: the weight would be that by nothing
        (100, -5000, 0.5),
        (float("inf"), 0, 0.5),
        (float("nan"), 0, 0.5),
        (100, float("inf"), 0.5),
        (100, 0, 5e-324),
    ],
)
async def test_a_report_that_makes_no_sense_costs_no_call(
    numbers: tuple[float, float, float],
) -> None:
    rate, errors, used = numbers
    report = OrcaLoadReport(rps_fractional=rate, eps=errors, application_utilization=used)
    async with agents(2) as (mesh, found):
        await connected(mesh, found)
        found[0].trailing = ((UTILIZATION_KEY, report.SerializeToString()),)
        found[1].trailing = (
            (
                UTILIZATION_KEY,
                OrcaLoadReport(rps_fractional=100, application_utilization=0.5).SerializeToString(),
            ),
        )
        spread(mesh, found, balancing=Balancing.WEIGHTED)
        await asked(mesh, 10)  # reports are there
        spread(mesh, found, balancing=Balancing.WEIGHTED, retries=1)  # weights are made anew
        counted = await asked(mesh, 200)
        assert set(counted) == {agent.address for agent in found}
        assert sum(counted.values()) == 200


@pytest.mark.parametrize("value", ["", "yes"])
async def test_a_drill_hits_those_it_is_for_until_it_ends(value: str) -> None:
    async with agents(1) as (mesh, found):
        ends = time.time() + 1.0
        fault = Fault(
            abort=1, code=grpc.StatusCode.ABORTED, header="x-drill", value=value, ends=ends
        )
        spread(mesh, found, fault=fault)
        drilled = (("x-drill", "yes"),)
        assert await asked(mesh, 20, drilled) == {"ABORTED": 20}
        assert await asked(mesh, 20) == {found[0].address: 20}

        async def over() -> bool:
            return await asked(mesh, 1, drilled) == {found[0].address: 1}

        await wait_until(over)
        assert time.time() >= ends


async def test_a_drill_fails_and_delays_its_share_within_the_deadline() -> None:
    async with agents(1) as (mesh, found):
        spread(mesh, found, fault=Fault(abort=0.3, ends=time.time() + 60))
        counted = await asked(mesh, 400)
        assert 70 <= counted["UNAVAILABLE"] <= 170, counted  # five deviations
        spread(mesh, found, fault=Fault(delay=1, seconds=0.2, ends=time.time() + 60))
        started = time.perf_counter()
        await asked(mesh, 1)
        assert time.perf_counter() - started >= 0.2
        with pytest.raises(CallFailed) as failed:
            await mesh.method("a", "/t.T/Where").unary(b"", 0.1, ())
        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_calls_of_agents_nobody_said_anything_of_are_spread_in_turn(mesh: Mesh) -> None:
    assert (await unary(mesh, "Echo", b"hi"))[0] == b"hi"
