"""How calls find an instance, where operators say so: gRPC clients at `xds:///` follow."""

from __future__ import annotations

import asyncio
import collections
import time
from datetime import timedelta

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from weft import rpc
from weft.registry.traffic import Policy, rules
from weft.rpc.testing import wait_until
from weft.rpc.utilization import UTILIZATION_KEY
from weft.support.v1 import triage_pb2, triage_pb2_grpc
from weft.v1 import lifecycle_pb2, lifecycle_pb2_grpc, registry_pb2, registry_pb2_grpc
from weft.v1.traffic_pb2 import (
    BALANCING_RING_HASH,
    BALANCING_WEIGHTED_ROUND_ROBIN,
    ZONE_POLICY_PREFER,
    Fault,
    Outliers,
    Subset,
    Traffic,
)
from weft.xds.v1.orca_pb2 import OrcaLoadReport

AGENT = "support-triage"
SPLIT = [Subset(name="canary", selector="track=canary", percent=10)]


def ahead(seconds: float) -> Timestamp:
    return Timestamp(
        seconds=int(time.time() + seconds), nanos=int((time.time() + seconds) % 1 * 1e9)
    )


@pytest_asyncio.fixture
async def operator(mesh):
    async with rpc.Channel(mesh.address) as channel:
        yield lifecycle_pb2_grpc.LifecycleServiceStub(channel)


async def set_traffic(operator, *paths: str, **fields: object) -> lifecycle_pb2.Control:
    request = lifecycle_pb2.SetTrafficRequest(
        agent=AGENT, traffic=Traffic(**fields), update_paths=paths, reason="a test"
    )
    return (await operator.SetTraffic(request)).control


async def asked(channel, times: int, metadata=()) -> collections.Counter[str]:
    """Who answered, or with which status it was refused."""
    stub = triage_pb2_grpc.TriageServiceStub(channel)
    request = triage_pb2.ClassifyRequest(text="hello")
    counted: collections.Counter[str] = collections.Counter()
    for _ in range(times):
        try:
            counted[(await stub.Classify(request, timeout=10, metadata=metadata)).model] += 1
        except grpc.aio.AioRpcError as failed:
            counted[failed.code().name] += 1
    return counted


async def violations(call) -> list[str]:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    error = rpc.error_from_call(failed.value)
    assert isinstance(error, rpc.InvalidArgument)
    return [field for field, _ in error.violations]


async def test_a_split_is_kept_within_bounds_and_costs_no_call_when_the_canary_leaves(
    mesh, operator, join, replica, dial
):
    old, new = await replica("old"), await replica("new")
    await join(mesh, old.instance())
    canary = await join(mesh, new.instance(labels={"track": "canary"}))
    control = await set_traffic(operator, subsets=SPLIT)
    assert control.traffic.subsets[0].percent == 10
    async with dial(mesh.address) as channel:
        await wait_until(lambda: asked_both(channel))
        counted = await asked(channel, 1_000)
        # Binomial: 100 +- 9.5; five deviations.
        assert 52 <= counted["new"] <= 148, counted
        assert counted["old"] == 1_000 - counted["new"]
        leaving = asyncio.create_task(canary.leave())
        counted = await asked(channel, 300)
        await leaving
        assert counted.keys() <= {"old", "new"}, counted
        assert await asked(channel, 50) == {"old": 50}
        # It comes back, and has its share again.
        await join(mesh, new.instance(labels={"track": "canary"}))
        await wait_until(lambda: asked_both(channel))


async def asked_both(channel) -> bool:
    return (await asked(channel, 60)).keys() == {"old", "new"}


async def test_subsets_by_version_and_what_is_left_of_100_percent(
    mesh, operator, join, replica, dial
):
    one, two = await replica("one"), await replica("two")
    await join(mesh, one.instance(version="1.4.0"))
    await join(mesh, two.instance(version="2.0.0-rc.1"))
    await set_traffic(operator, subsets=[Subset(name="next", versions=">=2.0.0-0", percent=100)])
    async with dial(mesh.address) as channel:
        await wait_until(lambda: only(channel, "two"))
        await set_traffic(operator, subsets=[Subset(name="next", versions=">=2.0.0-0", percent=0)])
        await wait_until(lambda: only(channel, "one"))
        await set_traffic(operator, "subsets")  # back to none
        await wait_until(lambda: both(channel))


async def only(channel, name: str) -> bool:
    return (await asked(channel, 20)).keys() == {name}


async def both(channel) -> bool:
    return (await asked(channel, 20)).keys() == {"one", "two"}


async def test_calls_prefer_the_zone_of_their_caller_and_go_elsewhere_when_it_is_empty(
    mesh, operator, join, replica, zoned
):
    near, far = await replica("near"), await replica("far")
    here = await join(mesh, near.instance(zone="a"))
    await join(mesh, far.instance(zone="b"))
    await set_traffic(operator, zones=ZONE_POLICY_PREFER)
    async with zoned("a") as in_a, zoned("b") as in_b, zoned("c") as in_c:
        assert await asked(in_a, 40) == {"near": 40}
        assert await asked(in_b, 40) == {"far": 40}
        assert (await asked(in_c, 40)).keys() == {"near", "far"}
        # The process is gone and the registry does not know yet: retried, elsewhere.
        await near.server.stop(timedelta(0))
        assert await asked(in_a, 40) == {"far": 40}
        await here.leave()
        assert await asked(in_a, 40) == {"far": 40}


@pytest.fixture
def zoned(mesh):
    def dial(zone: str) -> rpc.Channel:
        argument = "grpc.TEST_ONLY_DO_NOT_USE_IN_PROD.xds_bootstrap_config"
        options = ((argument, rpc.xds_bootstrap(mesh.address, zone=zone)),)
        return rpc.Channel(f"xds:///{AGENT}", options=options)

    return dial


async def test_callers_with_the_same_header_stay_at_one_instance(
    mesh, operator, join, replica, dial
):
    for name in "abc":
        await join(mesh, (await replica(name)).instance())
    assert await violations(set_traffic(operator, balancing=BALANCING_RING_HASH)) == [
        "traffic.hash_header"
    ]
    await set_traffic(operator, balancing=BALANCING_RING_HASH, hash_header="x-session")
    async with dial(mesh.address) as channel:
        homes = set[str]()
        for number in range(20):
            (home,) = await asked(channel, 5, (("x-session", f"session {number}"),))
            homes.add(home)
        assert homes == {"a", "b", "c"}


async def test_an_instance_that_answers_errors_is_left_alone(mesh, operator, join, replica, dial):
    well, ill = await replica("well"), await replica("ill")
    await join(mesh, well.instance())
    await join(mesh, ill.instance())
    ill.triage.failing = 1_000_000
    await set_traffic(operator, retries=0, outliers=Outliers(ejection=Duration(seconds=60)))
    async with dial(mesh.address) as channel:
        seen = await asked(channel, 40)
        assert seen["UNAVAILABLE"], seen  # no second attempts: errors are seen

        async def left_alone() -> bool:
            return await asked(channel, 20) == {"well": 20}

        await wait_until(left_alone)
        tried = ill.triage.calls
        await asked(channel, 50)
        assert ill.triage.calls == tried
        await set_traffic(operator, outliers=Outliers(off=True))

        async def asked_again() -> bool:
            return bool((await asked(channel, 10))["UNAVAILABLE"])

        await wait_until(asked_again)


async def test_clients_that_know_it_go_by_what_instances_report(
    mesh, operator, join, replica, dial
):
    for name, used in (("idle", 0.2), ("busy", 0.8)):
        serving = await replica(name)
        report = OrcaLoadReport(rps_fractional=100, application_utilization=used)
        serving.triage.trailing = ((UTILIZATION_KEY, report.SerializeToString()),)
        await join(mesh, serving.instance())
    async with dial(mesh.address) as channel:
        counted = await asked(channel, 200)
        assert counted["idle"] == pytest.approx(100, abs=2), counted
        await set_traffic(operator, balancing=BALANCING_WEIGHTED_ROUND_ROBIN)

        async def four_to_one() -> bool:
            counted = await asked(channel, 200)
            return 3.5 < counted["idle"] / max(1, counted["busy"]) < 4.5

        await wait_until(four_to_one)


@pytest.mark.parametrize("value", ["", "yes"])
async def test_a_drill_fails_calls_until_it_ends_by_itself(
    value, mesh, operator, join, replica, dial
):
    a = await replica("a")
    await join(mesh, a.instance())
    async with dial(mesh.address) as channel:
        assert await asked(channel, 5) == {"a": 5}
        ends = ahead(4)
        fault = Fault(
            abort_percent=100, abort_code=8, header="x-drill", header_value=value, expire_time=ends
        )
        await set_traffic(operator, fault=fault)
        drilled = (("x-drill", "yes"),)

        async def fails() -> bool:
            return await asked(channel, 1, drilled) == {"RESOURCE_EXHAUSTED": 1}

        await wait_until(fails)
        assert await asked(channel, 20) == {"a": 20}
        if value:
            assert await asked(channel, 20, (("x-drill", "no"),)) == {"a": 20}

        async def over() -> bool:
            return await asked(channel, 5, drilled) == {"a": 5}

        await wait_until(over, timedelta(seconds=12))
        assert time.time() >= ends.ToNanoseconds() / 1e9


async def test_a_drill_holds_calls_up(mesh, operator, join, replica, dial):
    a = await replica("a")
    await join(mesh, a.instance())
    delay = Duration(nanos=300_000_000)
    await set_traffic(operator, fault=Fault(delay_percent=100, delay=delay, expire_time=ahead(60)))
    async with dial(mesh.address) as channel:
        await asked(channel, 1)
        started = time.perf_counter()
        assert await asked(channel, 1) == {"a": 1}
        assert time.perf_counter() - started >= 0.3
        await set_traffic(operator, "fault")

        async def at_once() -> bool:
            begun = time.perf_counter()
            await asked(channel, 1)
            return time.perf_counter() - begun < 0.3

        await wait_until(at_once)


async def test_what_may_be_said_and_what_not(mesh, operator, join, world):
    await join(mesh, world.instance("a"))
    bad = Traffic(
        subsets=[
            Subset(name="Upper", selector="a in", percent=60),
            Subset(name="x", versions="nonsense", percent=60),
            Subset(name="x"),
        ],
        hash_header="Grpc-Header",
        retries=9,
        max_requests=1,
        outliers=Outliers(failure_percent=101, ejection=Duration(seconds=3_000)),
        fault=Fault(abort_percent=101, abort_code=99, delay_percent=5, header_value="x"),
    )
    request = lifecycle_pb2.SetTrafficRequest(agent=AGENT, traffic=bad, update_paths=["nothing"])
    assert set(await violations(operator.SetTraffic(request))) == {
        "traffic.subsets",
        "traffic.subsets[0].name",
        "traffic.subsets[0].selector",
        "traffic.subsets[1].versions",
        "traffic.subsets[2].name",
        "traffic.subsets[2]",
        "traffic.hash_header",
        "traffic.retries",
        "traffic.outliers.failure_percent",
        "traffic.outliers.ejection",
        "traffic.fault.abort_percent",
        "traffic.fault.abort_code",
        "traffic.fault.delay",
        "traffic.fault.header",
        "traffic.fault.expire_time",
    }
    assert await violations(set_traffic(operator, "nothing")) == ["update_paths[0]"]
    assert await violations(set_traffic(operator, *["zones"] * 201)) == ["update_paths"]
    assert await violations(set_traffic(operator)) == ["traffic"]
    late = Fault(abort_percent=1, expire_time=ahead(3 * 86_400))
    assert await violations(set_traffic(operator, fault=late)) == ["traffic.fault.expire_time"]


async def test_traffic_is_recorded_seen_by_watchers_and_outlives_the_registry(
    run_registry, join, world
):
    async with run_registry() as first, rpc.Channel(first.address) as channel:
        operator = lifecycle_pb2_grpc.LifecycleServiceStub(channel)
        await join(first, world.instance("a", labels={"track": "canary"}), world.instance("b"))
        await set_traffic(operator, subsets=SPLIT)
        listed = await operator.ListControlEvents(lifecycle_pb2.ListControlEventsRequest())
        (event,) = listed.events
        assert (event.action, event.agent, event.reason) == ("traffic", AGENT, "a test")
        assert list(event.traffic.subsets) == SPLIT
        again = await set_traffic(operator, subsets=SPLIT)
        assert again.version == 1  # the same is no change
    async with run_registry() as second, rpc.Channel(second.address) as channel:
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        watch = stub.Watch(registry_pb2.WatchRequest())
        (agent,) = (await watch.read()).agents
        watch.cancel()
        assert list(agent.traffic.subsets) == SPLIT
        assert {i.instance_id: i.subset for i in agent.instances} == {"a": "canary", "b": ""}


async def test_an_agent_is_told_to_report_its_load_where_the_policy_asks_for_it(
    mesh, operator, join, world
):
    member = await join(mesh, world.instance("a"))
    member.freeze()
    await set_traffic(operator, balancing=BALANCING_WEIGHTED_ROUND_ROBIN)
    while True:
        answer = await member.stream.read()
        if answer.directive.version:
            break
    assert answer.directive.report_utilization


def test_shares_of_those_that_are_there():
    policy = Policy(
        Traffic(
            subsets=[
                Subset(name="a", selector="k=a", percent=20),
                Subset(name="b", selector="k=b", percent=30),
            ]
        )
    )
    assert policy.shares({"", "a", "b"}) == {"": 50, "a": 20, "b": 30}
    assert policy.shares({"a", "b"}) == {"a": 20, "b": 30}
    assert policy.shares({"b"}) == {"b": 30}
    assert policy.shares(set()) == {"": 1}


def test_fields_are_set_one_by_one():
    control = lifecycle_pb2.Control()
    assert rules.put(control, Traffic(retries=0, max_requests=5), [])
    assert control.traffic.HasField("retries")
    assert not rules.put(control, Traffic(max_requests=5), [])
    assert rules.put(control, Traffic(), ["max_requests"])
    assert not control.traffic.max_requests
    assert control.traffic.HasField("retries")
    assert rules.put(control, Traffic(), ["retries"])
    assert not control.HasField("traffic")
