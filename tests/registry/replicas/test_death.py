"""A replica that is killed, or stands still: its leases move, nobody is missed, watchers go on elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from weft.agents.registration import Registration
from weft.rpc.testing import wait_until
from weft.v1 import registry_pb2

pytestmark = [pytest.mark.failure, pytest.mark.timeout(120)]

PATIENCE = timedelta(seconds=20)
PROCESSES = 6


class Mesh:
    """Three replicas as processes, and processes of agents that hold leases at them."""

    def __init__(self, children, readers) -> None:
        self.children, self.readers = children, readers
        self.registries = ",".join(child.address for child in children)
        self.names = [f"p{number}" for number in range(PROCESSES)]
        self._fewest = PROCESSES

    def others(self, victim: int):
        return [reader for number, reader in enumerate(self.readers) if number != victim]

    async def holders(self, reader) -> dict[str, int]:
        """Leases by the address of the replica that holds them."""
        found = await reader.stub.ListReplicas(registry_pb2.ListReplicasRequest())
        return {replica.address: replica.leases for replica in found.replicas}

    async def victim(self) -> int:
        """The replica that holds most leases."""

        async def settled() -> bool:
            return sum((await self.holders(self.readers[0])).values()) == PROCESSES

        await wait_until(settled, PATIENCE)
        held = await self.holders(self.readers[0])
        addresses = [child.address for child in self.children]
        return addresses.index(max(held, key=lambda address: held[address]))

    async def moved(self, victim: int) -> None:
        """Returns when the other replicas hold all leases, and the ttl of any that nobody took over has passed."""
        gone = self.children[victim].address

        async def elsewhere() -> bool:
            held = await self.holders(self.others(victim)[0])
            return gone not in held and sum(held.values()) >= PROCESSES

        await wait_until(elsewhere, PATIENCE)

    @contextlib.asynccontextmanager
    async def never_fewer(self, reader) -> AsyncIterator[None]:
        """That all are in service at any time in the block, as a replica sees it, and for a ttl after it."""
        watching = asyncio.create_task(self._look(reader))
        yield
        await asyncio.sleep(2)  # the ttl: a lease that was lost runs out in it
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert self._fewest == PROCESSES

    async def _look(self, reader) -> None:
        while True:
            self._fewest = min(self._fewest, len(await reader.serving()))
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def mesh(database_url, spawn, read, world) -> AsyncIterator[Mesh]:
    children = [await spawn("registry", database_url, "127.0.0.1:0") for _ in range(3)]
    made = Mesh(children, [read(child.address) for child in children])
    registrations = [
        Registration(
            made.registries,
            instances=[world.instance(name)],
            descriptors={world.digest: world.descriptor_set},
            load=dict,
        )
        for name in made.names
    ]
    tasks = [asyncio.create_task(registration.run()) for registration in registrations]
    async with asyncio.timeout(20):
        await asyncio.gather(*(each.registered.wait() for each in registrations))
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def all_serving(mesh: Mesh, reader) -> bool:
    return await reader.serving() == mesh.names


async def test_leases_of_a_killed_replica_move_and_watchers_go_on_without_a_gap(
    mesh, follow, join, world
):
    victim = await mesh.victim()
    one, two = mesh.others(victim)
    for reader in (*mesh.readers,):
        await wait_until(lambda reader=reader: all_serving(mesh, reader))
    watcher = follow(mesh.readers[victim])
    await wait_until(lambda: watcher.serving() == mesh.names)
    async with mesh.never_fewer(one):
        await mesh.children[victim].kill()
        # What happens before the watcher is back is not lost to it.
        late = await join(one.address, world.instance("late", agent="late"))
        resumed = follow(two, after=await watcher.end())
        await wait_until(lambda: resumed.serving("late") == ["late"], PATIENCE)
        await mesh.moved(victim)
    assert resumed.snapshots == 0
    assert resumed.revision >= late.revision
    assert "support-triage" not in resumed.heard, "a lease that moves is no change"
    assert (await one.agents()) == (await two.agents())
    await resumed.end()


async def test_a_process_that_dies_with_its_replica_is_dropped_by_exactly_one(
    mesh, join, world, sql
):
    victim = await mesh.victim()
    one, two = mesh.others(victim)
    lost = await join(mesh.children[victim].address, world.instance("lost", agent="lost"))
    await mesh.children[victim].kill()
    await lost.vanish()
    holders: set[str] = set()

    async def gone() -> bool:
        row = await sql.fetchval("select replica from instances where instance_id = 'lost'")
        if row:
            holders.add(row)
        found = [await reader.instances() for reader in (one, two)]
        return not any("lost" in each for each in found)

    await wait_until(gone, PATIENCE)
    assert len(holders) == 2, "the dead one, and the one that took over"
    await wait_until(lambda: all_serving(mesh, one), PATIENCE)


async def test_a_replica_that_stood_still_does_not_touch_what_others_took_over(mesh):
    victim = await mesh.victim()
    one, two = mesh.others(victim)
    async with mesh.never_fewer(one):
        mesh.children[victim].signal(signal.SIGSTOP)
        await mesh.moved(victim)
        mesh.children[victim].signal(signal.SIGCONT)
        back = mesh.readers[victim]

        async def is_back() -> bool:
            return mesh.children[victim].address in await mesh.holders(two)

        await wait_until(is_back, PATIENCE)
        await wait_until(lambda: all_serving(mesh, back), PATIENCE)
    assert sum((await mesh.holders(one)).values()) == PROCESSES
    assert (await back.agents()) == (await one.agents())


async def test_a_replica_that_stops_leaves_the_list_and_its_leases_to_others(
    run_registry, replicas, read, join, world, sql
):
    async with run_registry() as short:
        held = await join(short, world.instance("kept"))
        await held.vanish()
    reader = read(replicas[0])

    async def left() -> bool:
        return short.address not in await reader.peers()

    await wait_until(left, PATIENCE)

    async def gone() -> bool:
        return await reader.serving() == []

    await wait_until(gone, PATIENCE)

    async def forgotten() -> bool:  # a busy database is not waited for before it takes effect
        return await sql.fetchval("select count(*) from instances") == 0

    await wait_until(forgotten, PATIENCE)
