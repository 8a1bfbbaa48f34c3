"""Traffic of an agent, set by an operator, as callers at the gateway and agents see it."""

from __future__ import annotations

import time

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.gateway.dataplane.agents import mesh_of

from weft import rpc
from weft.agents import Host
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2
from weft.rpc.testing import wait_until
from weft.rpc.utilization import UTILIZATION_KEY
from weft.v1 import lifecycle_pb2, lifecycle_pb2_grpc
from weft.v1.traffic_pb2 import (
    BALANCING_RING_HASH,
    BALANCING_WEIGHTED_ROUND_ROBIN,
    Fault,
    Subset,
    Traffic,
)
from weft.xds.v1.orca_pb2 import OrcaLoadReport


async def set_traffic(own, *paths: str, **fields: object) -> None:
    async with rpc.Channel(own.registry) as channel:
        await lifecycle_pb2_grpc.LifecycleServiceStub(channel).SetTraffic(
            lifecycle_pb2.SetTrafficRequest(
                agent="echo", traffic=Traffic(**fields), update_paths=paths
            )
        )


@pytest.fixture
async def two(own):
    """A second echo, a canary."""
    async with Host(registry=own.registry) as host:
        host.add(Echo("two"), labels={"track": "canary"})
        await host.start()
        yield own


async def names(entry, times: int, **headers: str) -> set[str]:
    answers = [
        await entry.http.get(
            "/v1/echo/hi", headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        for _ in range(times)
    ]
    return {answer.json().get("instance", answer.text) for answer in answers}


async def test_a_split_and_sessions_at_rest(two, entry_of_own):
    async def both() -> bool:
        return await names(entry_of_own, 10) == {"one", "two"}

    await wait_until(both)
    await set_traffic(two, subsets=[Subset(name="canary", selector="track=canary", percent=0)])

    async def rest_alone() -> bool:
        return await names(entry_of_own, 10) == {"one"}

    await wait_until(rest_alone)
    await set_traffic(two, "subsets", balancing=BALANCING_RING_HASH, hash_header="x-session")
    await set_traffic(two, balancing=BALANCING_RING_HASH, hash_header="x-session")

    async def sticky() -> bool:
        homes = [await names(entry_of_own, 4, x_session=str(number)) for number in range(12)]
        return all(len(home) == 1 for home in homes) and len(set.union(*homes)) == 2

    await wait_until(sticky)


async def test_a_drill_at_rest_ends_by_itself_and_leaves_others_alone(own, entry_of_own):
    ends = Timestamp(seconds=int(time.time()) + 3)
    fault = Fault(abort_percent=100, abort_code=5, header="x-drill", expire_time=ends)
    await set_traffic(own, fault=fault)

    async def status() -> int:
        return (await entry_of_own.http.get("/v1/echo/hi", headers={"x-drill": "1"})).status_code

    async def drilled() -> bool:
        return await status() == 404

    await wait_until(drilled)
    assert await names(entry_of_own, 5) == {"one"}

    async def over() -> bool:
        return await status() == 200

    await wait_until(over)
    assert time.time() >= ends.seconds


async def test_agents_report_their_utilization_only_where_it_is_asked_for(own):
    (member,) = own.echo._members
    # The gRPC core keeps this metadata to itself; the gateway's own client shows it.
    async with mesh_of(own.echo.server.address) as agents:
        say = agents.method("a", "/weft.echo.v1.EchoService/Say")

        async def report() -> OrcaLoadReport | None:
            _, call = await say.unary(echo_pb2.SayRequest(text="hi").SerializeToString(), 5.0, ())
            found = dict(call.trailing).get(UTILIZATION_KEY)
            return None if found is None else OrcaLoadReport.FromString(found)

        assert await report() is None
        await set_traffic(own, balancing=BALANCING_WEIGHTED_ROUND_ROBIN)
        await wait_until(report)
        told = await report()
        assert told is not None
        assert told.rps_fractional > 0
        assert 0 < told.application_utilization < 1
        await set_traffic(own, "balancing")
        await wait_until(lambda: member.live.utilization is None)
        assert await report() is None
