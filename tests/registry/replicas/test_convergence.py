"""Whatever is done at whichever replica, all say the same, with the same revision."""

from __future__ import annotations

import asyncio
import contextlib
import random
from datetime import timedelta
from functools import partial

import grpc
import pytest
from tests.registry.test_ads import Ads

from weft.registry.xds import resources
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2, registry_pb2

STATES = (
    agent_pb2.INSTANCE_STATE_STARTING,
    agent_pb2.INSTANCE_STATE_SERVING,
    agent_pb2.INSTANCE_STATE_DEGRADED,
)


@pytest.mark.parametrize("seed", range(4))
async def test_random_changes_at_random_replicas_end_in_one_state(
    replicas, read, follow, agree, member, world, seed
):
    chance = random.Random(seed)
    readers = [read(replica) for replica in replicas]
    watchers = [follow(reader) for reader in readers]
    held = {}

    async def register(name: str) -> None:
        place = chance.choice(replicas)
        instance = world.instance(
            name,
            agent=chance.choice(["a", "b", "c"]),
            capabilities=chance.sample(["x", "y", "z"], 2),
            address=f"127.0.0.{chance.randrange(1, 200)}:{world.port}",
        )
        former, made = held.get(name), member(place.address, [instance])
        await made.register()
        made.beat()
        held[name] = made
        if former is not None:
            await former.vanish()

    async def change(name: str) -> None:
        await held[name].state(chance.choice(STATES), chance.choice(["", "why"]))

    async def leave(name: str) -> None:
        await held.pop(name).leave()

    async def live(name: str) -> None:
        for _ in range(8):
            act = chance.choice([register, change, leave]) if name in held else register
            await act(name)

    await asyncio.gather(*(live(f"i{number}") for number in range(8)))
    found = await agree(readers)
    there = {i.instance_id for agent in found.agents for i in agent.instances}
    assert there == held.keys()

    for watcher in watchers:
        await wait_until(lambda watcher=watcher: watcher.revision == found.revision)
        assert {name: len(a.instances) for name, a in watcher.heard.items()} == {
            a.name: len(a.instances) for a in found.agents
        }
        assert watcher.snapshots == 1
        await watcher.end()
    for each in held.values():
        await each.vanish()


def has(watcher, revision: int) -> bool:
    return watcher.revision == revision


@pytest.mark.parametrize("seed", range(3))
async def test_a_watcher_that_goes_from_replica_to_replica_misses_nothing(
    replicas, read, follow, agree, join, world, seed
):
    chance = random.Random(seed)
    readers = [read(replica) for replica in replicas]
    members = [
        await join(chance.choice(replicas), world.instance(f"m{n}", agent=f"a{n % 3}"))
        for n in range(6)
    ]
    quiet = asyncio.Event()

    async def change(each) -> None:
        for number in range(15):
            await each.state(chance.choice(STATES), f"{number}")
        await each.leave()

    async def wander() -> tuple[dict[str, agent_pb2.Agent], int, int]:
        heard: dict[str, agent_pb2.Agent] = {}
        revision = snapshots = hops = alone = 0
        while True:
            last = quiet.is_set()
            watcher = follow(chance.choice(readers), after=revision)
            hops += 1
            # Numbered by a replica alone, while this machine was too busy to store a change in time.
            alone += revision % 1_000_000 != 0
            if last:
                final = (await agree(readers)).revision
                await wait_until(partial(has, watcher, final))
            else:
                await asyncio.sleep(chance.random() / 50)
            revision = await watcher.end()
            heard |= watcher.heard
            snapshots += watcher.snapshots
            if last:
                return heard, snapshots - alone, hops

    wandering = asyncio.create_task(wander())
    late = await join(chance.choice(replicas), world.instance("late", agent="late"))
    await asyncio.gather(*(change(each) for each in members))
    await late.state(agent_pb2.INSTANCE_STATE_DEGRADED, "the last change")
    quiet.set()
    heard, snapshots, hops = await wandering
    assert hops > 3
    truth = {agent.name: agent for agent in (await agree(readers)).agents}
    for agent in heard.values():
        for instance in agent.instances:
            instance.ClearField("load")
    assert heard == truth
    assert snapshots == 1, "one to begin with"


async def test_a_replica_that_comes_later_knows_all_at_once(
    replicas, run_registry, read, agree, join, world
):
    for number, place in enumerate(replicas):
        await join(place, world.instance(f"early-{number}", capabilities=["x"]))
    first = await join(replicas[0], world.instance("gone", agent="left"))
    await first.leave()
    async with run_registry(cold_start=timedelta(seconds=60)) as late:
        found = await agree([read(late), *map(read, replicas)])
        assert [agent.name for agent in found.agents] == ["left", "support-triage"]
        assert await read(late).serving() == ["early-0", "early-1", "early-2"]
        digests = registry_pb2.GetDescriptorsRequest(digests=[world.digest])
        sets = (await read(late).stub.GetDescriptors(digests)).descriptors.sets
        assert sets[world.digest] == world.descriptor_set
        # Silence about unknown names is for a registry that is alone, and may know too little yet.
        ads = Ads(read(late).channel)
        await ads.ask(resources.ENDPOINTS, "never-there")
        sink = int(late.address.rpartition(":")[2])
        assert await ads.endpoints() == {"never-there": [sink]}
        ads.stream.cancel()


async def test_a_change_whose_notification_is_lost_is_seen_all_the_same(
    replicas, read, join, world, sql
):
    readers = [read(replica) for replica in replicas]
    listening = "select count(*) from pg_stat_activity where application_name = 'weft-listener'"
    kill = (
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
        "where application_name = 'weft-listener' and datname = current_database()"
    )

    async def all_listen() -> bool:
        return await sql.fetchval(listening) >= 3

    await wait_until(all_listen)
    await sql.fetch(kill)
    await join(replicas[0], world.instance("quiet"))

    async def seen() -> bool:
        return all([await reader.serving() == ["quiet"] for reader in readers])

    await wait_until(seen)


async def test_loads_are_seen_at_the_other_replicas_with_no_revision(replicas, read, join, world):
    held = await join(replicas[0], world.instance("busy"))
    far = read(replicas[1])

    async def known() -> bool:
        return await far.serving() == ["busy"]

    await wait_until(known)
    before = (await far.agents()).revision
    report = registry_pb2.LoadReport(loads={"busy": agent_pb2.Load(in_flight=7)})
    await held.say(report=report)

    async def seen() -> bool:
        found = await far.stub.ListAgents(registry_pb2.ListAgentsRequest())
        return found.agents[0].instances[0].load.in_flight == 7

    await wait_until(seen)
    assert (await far.agents()).revision == before


async def test_a_process_that_registers_elsewhere_is_no_change_and_its_old_stream_ends(
    replicas, read, follow, join, world
):
    instance = world.instance("same")
    first = await join(replicas[0], instance)
    reader, nearby = read(replicas[2]), read(replicas[1])

    async def there() -> bool:
        # Where it registers next as well: what that one does not know is new to it.
        return [await one.serving() for one in (reader, nearby)] == [["same"]] * 2

    await wait_until(there)
    watcher = follow(reader)
    before = (await reader.agents()).revision
    first.freeze()
    again = await join(replicas[1], instance)
    assert (await first.ended()).reason == "LEASE_TAKEN"
    assert again.revision == first.revision
    other = await join(replicas[1], world.instance("other"))
    await wait_until(lambda: watcher.serving() == ["other", "same"])
    assert watcher.revision == other.revision > before
    await watcher.end()


async def test_only_the_holder_probes_and_all_know_what_it_finds(
    replicas, read, join, replica, world
):
    a = await replica("a")
    await join(replicas[1], a.instance())
    readers = [read(place) for place in replicas]

    def state(wanted):
        async def seen() -> bool:
            found = [await reader.instances() for reader in readers]
            return all(each.get("a", agent_pb2.Instance()).state == wanted for each in found)

        return seen

    await wait_until(state(agent_pb2.INSTANCE_STATE_SERVING))
    a.server.set_health(world.service, serving=False)
    await wait_until(state(agent_pb2.INSTANCE_STATE_UNREACHABLE))
    a.server.set_health(world.service, serving=True)
    await wait_until(state(agent_pb2.INSTANCE_STATE_SERVING))
    with contextlib.suppress(grpc.aio.AioRpcError):
        await a.server.stop()
    await wait_until(state(agent_pb2.INSTANCE_STATE_UNREACHABLE))


async def test_a_watcher_waits_where_a_replica_is_behind_and_never_goes_back(
    replicas, read, follow, join, world
):
    await join(replicas[0], world.instance("one"))
    known = (await read(replicas[0]).agents()).revision
    watcher = follow(read(replicas[1]), after=known)
    second = await join(replicas[2], world.instance("two"))
    await wait_until(lambda: watcher.serving() == ["one", "two"])
    assert watcher.snapshots == 0
    assert await watcher.end() == second.revision


async def test_a_watcher_from_nowhere_makes_no_replica_seem_behind(replicas, read, follow):
    reader = read(replicas[0])
    watcher = follow(reader, after=9_000_000_000_000_000_000)
    await wait_until(lambda: watcher.snapshots == 1)
    await watcher.end()
    assert (await reader.me()).lag.ToTimedelta() == timedelta(0)
