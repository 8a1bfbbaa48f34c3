"""The database goes away: for one replica, and for all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from tests.registry.cable import Cable

from weft import embedded, rpc
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2, lifecycle_pb2, lifecycle_pb2_grpc

pytestmark = [pytest.mark.failure, pytest.mark.timeout(120)]

PATIENCE = timedelta(seconds=20)
DRAINING = agent_pb2.INSTANCE_STATE_DRAINING


async def serves(reader, *names: str) -> bool:
    return await reader.serving() == list(names)


async def serves_not(reader, name: str) -> bool:
    return name not in await reader.serving()


async def test_a_replica_cut_off_alone_keeps_its_leases_and_tells_later_what_it_decided(
    run_registry, database_url, read, follow, join, world
):
    async with (
        Cable(database_url) as cable,
        run_registry(database_url=cable.url) as cut,
        run_registry() as whole,
    ):
        stays, drains = [world.instance(name) for name in ("stays", "drains")]
        await join(cut, stays)
        leaving = await join(cut, drains)
        near, far = read(cut), read(whole)
        await wait_until(lambda: serves(far, "drains", "stays"))
        watcher = follow(near)
        await wait_until(lambda: watcher.serving() == ["drains", "stays"])
        cable.pull()
        with pytest.raises(grpc.aio.AioRpcError):
            await leaving.state(DRAINING, "stopping")
        await wait_until(lambda: watcher.serving() == ["stays"])
        alone = watcher.revision
        assert alone % 1_000_000, "numbered here, and nowhere else"
        # Longer than a silent replica is waited for, and a ttl: it answers, so nobody takes its leases.
        await asyncio.sleep(4.5)
        assert await far.serving() == ["drains", "stays"]
        assert await near.serving() == ["stays"]
        assert (await near.me()).lag.ToTimedelta() > timedelta(seconds=2)
        # What one replica numbered alone, another cannot resume behind.
        elsewhere = follow(far, after=alone)
        await wait_until(lambda: elsewhere.snapshots == 1)
        await elsewhere.end()
        cable.plug_in()
        await wait_until(lambda: serves(far, "stays"), PATIENCE)
        await join(whole, world.instance("third"))
        await wait_until(lambda: watcher.serving() == ["stays", "third"], PATIENCE)
        assert watcher.snapshots == 1
        assert (await near.agents()) == (await far.agents())
        await watcher.end()


async def test_what_a_replica_decided_alone_yields_to_who_registered_elsewhere_meanwhile(
    run_registry, database_url, read, join, world
):
    async with (
        Cable(database_url) as cable,
        run_registry(database_url=cable.url) as cut,
        run_registry() as whole,
    ):
        instance = world.instance("moves")
        first = await join(cut, instance)
        near, far = read(cut), read(whole)
        await wait_until(lambda: serves(far, "moves"))
        cable.pull()
        await first.vanish()
        await join(whole, instance)
        await wait_until(lambda: serves(near), PATIENCE)  # its lease ran out, as seen from there
        cable.plug_in()
        await wait_until(lambda: serves(near, "moves"), PATIENCE)
        assert await far.serving() == ["moves"]


async def test_with_the_database_away_for_all_every_replica_goes_on_and_then_all_agree(
    run_registry, database_url, read, agree, join, member, world
):
    async with (
        Cable(database_url) as cable,
        run_registry(database_url=cable.url) as one,
        run_registry(database_url=cable.url) as two,
    ):
        await join(one, world.instance("a"))
        b = await join(two, world.instance("b"))
        readers = [read(one), read(two)]
        for reader in readers:
            await wait_until(lambda reader=reader: serves(reader, "a", "b"))
        cable.pull()
        await b.leave()
        assert await readers[1].serving() == ["a"]
        late = member(one.address, [world.instance("late")])
        with pytest.raises(grpc.aio.AioRpcError):
            await late.register()
        await late.vanish()
        await asyncio.sleep(3)  # longer than a silent replica is waited for
        assert await readers[0].serving() == ["a", "b"]
        cable.plug_in()
        await wait_until(lambda: serves(readers[0], "a"), PATIENCE)
        await join(two, world.instance("late"))
        await agree(readers)
        assert await readers[0].serving() == ["a", "late"]


@pytest.fixture
def data() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="weft-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder / "data"
    shutil.rmtree(folder)


async def test_a_killed_database_comes_back_and_nobody_was_missed(
    data, run_registry, read, agree, join, world
):
    async with (
        embedded.launch(data, redis_url="redis://elsewhere") as servers,
        run_registry(database_url=servers.database_url) as one,
        run_registry(database_url=servers.database_url) as two,
    ):
        await join(one, world.instance("a"))
        await join(two, world.instance("b"))
        readers = [read(one), read(two)]
        await agree(readers)
        postmaster = next(data.glob("pg/*/postmaster.pid")).read_text().split()[0]
        os.kill(int(postmaster), signal.SIGKILL)

        async def registered() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await join(two, world.instance("c"))
                return True
            assert await readers[0].serving() == ["a", "b"]
            return False

        await wait_until(registered, PATIENCE)
        found = await agree(readers)
        assert [i.instance_id for i in found.agents[0].instances] == ["a", "b", "c"]


async def test_a_database_that_went_back_in_time_is_read_anew(
    run_registry, sql, read, agree, follow, join, world
):
    """As where a standby takes over that had not heard of the last changes yet."""
    async with (
        run_registry() as one,
        run_registry() as two,
        rpc.Channel(one.address) as channel,
    ):
        operator = lifecycle_pb2_grpc.LifecycleServiceStub(channel)
        readers = [read(one), read(two)]
        await join(one, world.instance("stays"))
        leaves = await join(two, world.instance("leaves"))
        then = await sql.fetchval("SELECT last FROM revision")
        row = await sql.fetchrow("SELECT * FROM instances WHERE instance_id = 'leaves'")
        await leaves.leave()
        await join(two, world.instance("lost"))
        await join(two, world.instance("lost-too"))
        await operator.DrainAgent(lifecycle_pb2.DrainAgentRequest(agent="support-triage"))
        await agree(readers)
        watcher = follow(readers[1])
        await wait_until(lambda: watcher.snapshots == 1)
        async with sql.transaction():
            await sql.execute("SET LOCAL session_replication_role = replica")  # no triggers
            await sql.execute("DELETE FROM instances WHERE instance_id LIKE 'lost%'")
            await sql.execute("DELETE FROM departures")
            await sql.execute("DELETE FROM controls")
            columns = ", ".join(f"${number}" for number in range(1, len(row) + 1))
            await sql.execute(f"INSERT INTO instances VALUES ({columns})", *row.values())
            await sql.execute("UPDATE revision SET last = $1", then)
        with contextlib.suppress(grpc.aio.AioRpcError):  # refused until it was read
            await join(two, world.instance("soon"))
        await wait_until(lambda: watcher.snapshots > 1, PATIENCE)
        # What came back is nobody's, and what was lost registers again.
        await wait_until(lambda: serves_not(readers[0], "leaves"), PATIENCE)
        await join(two, world.instance("lost"))
        await operator.PauseAgent(
            lifecycle_pb2.PauseAgentRequest(agent="support-triage", instance_ids=["stays"])
        )
        assert "stays" not in await readers[0].serving()
        assert "lost" in await readers[0].serving()
        await wait_until(lambda: "stays" not in watcher.serving(), PATIENCE)
        assert "lost" in watcher.serving()
        await agree(readers)
        await watcher.end()
