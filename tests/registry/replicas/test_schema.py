"""A registry of the version before replicas writes to the same tables: its statements, as they were, are followed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest_asyncio

from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2

PUT_AGENTS = """
INSERT INTO agents AS old (name, document)
SELECT * FROM unnest($1::text[], $2::bytea[])
ON CONFLICT (name) DO UPDATE SET document = excluded.document, update_time = now()
WHERE old.document <> excluded.document
"""
PUT_INSTANCES = """
INSERT INTO instances (instance_id, agent, lease_id, document)
SELECT instance_id, agent, $1::text, document
FROM unnest($2::text[], $3::text[], $4::bytea[]) AS given (instance_id, agent, document)
ON CONFLICT (instance_id) DO UPDATE
SET agent = excluded.agent, lease_id = excluded.lease_id, document = excluded.document, update_time = now()
"""
UPDATE_INSTANCES = """
UPDATE instances AS old
SET document = given.document, update_time = now()
FROM unnest($2::text[], $3::bytea[]) AS given (instance_id, document)
WHERE old.instance_id = given.instance_id AND old.lease_id = $1::text
"""
DELETE_INSTANCES = (
    "DELETE FROM instances WHERE lease_id = $1::text AND instance_id = ANY ($2::text[])"
)


@pytest_asyncio.fixture
async def old(database_url):
    """The connection of a registry of the version before."""
    connection = await asyncpg.connect(
        database_url,
        server_settings={"search_path": "registry", "application_name": "weft-registry"},
    )
    yield connection
    await connection.close()


async def test_what_the_version_before_writes_is_followed_and_its_leases_are_its_own(
    replicas, read, follow, world, old
):
    readers = [read(replica) for replica in replicas]
    watcher = follow(readers[0])
    instance = world.instance("old", state=agent_pb2.INSTANCE_STATE_SERVING)

    def told(state: int):
        def heard() -> bool:
            agent = watcher.heard.get("support-triage")
            return agent is not None and [i.state for i in agent.instances] == [state]

        return heard

    async with old.transaction():
        agent = agent_pb2.Agent(name="support-triage").SerializeToString()
        await old.execute(PUT_AGENTS, ["support-triage"], [agent])
        await old.execute(
            PUT_INSTANCES, "l", ["old"], ["support-triage"], [instance.SerializeToString()]
        )
    await wait_until(told(agent_pb2.INSTANCE_STATE_SERVING))
    before = watcher.revision
    instance.state = agent_pb2.INSTANCE_STATE_DRAINING
    await old.execute(UPDATE_INSTANCES, "l", ["old"], [instance.SerializeToString()])
    await wait_until(told(agent_pb2.INSTANCE_STATE_DRAINING))
    assert watcher.revision > before

    # As long as it is connected nobody takes its leases: they would run out here, where no heartbeat of theirs comes.
    again = agent_pb2.Instance()
    again.CopyFrom(instance)
    again.state = agent_pb2.INSTANCE_STATE_SERVING
    await old.execute(PUT_INSTANCES, "m", ["old"], ["support-triage"], [again.SerializeToString()])
    await asyncio.gather(*(has_looked(reader) for reader in readers))
    assert await old.fetchval("SELECT replica FROM instances") is None
    for reader in readers:
        assert await reader.serving() == ["old"]
    await old.execute(DELETE_INSTANCES, "m", ["old"])

    async def gone() -> bool:
        return all([not await reader.instances() for reader in readers])

    await wait_until(gone)
    await watcher.end()


async def has_looked(reader) -> None:
    """Returns when a replica has beaten often enough to have looked for leases that nobody holds."""
    beats = 0
    last = timedelta(0)

    async def often() -> bool:
        nonlocal beats, last
        found = await reader.me()
        # A replica's own row is as old as its last beat but one round trip.
        beats += found.silence.ToTimedelta() != last
        last = found.silence.ToTimedelta()
        return beats > 5

    await wait_until(often, timedelta(seconds=20))


async def test_when_the_version_before_is_gone_its_leases_are_taken_over_and_run_out(
    replicas, read, world, database_url
):
    connection = await asyncpg.connect(
        database_url,
        server_settings={"search_path": "registry", "application_name": "weft-registry"},
    )
    agent = agent_pb2.Agent(name="support-triage").SerializeToString()
    instance = world.instance("old", state=agent_pb2.INSTANCE_STATE_SERVING)
    await connection.execute(PUT_AGENTS, ["support-triage"], [agent])
    await connection.execute(
        PUT_INSTANCES, "l", ["old"], ["support-triage"], [instance.SerializeToString()]
    )
    reader = read(replicas[0])

    async def there() -> bool:
        return await reader.serving() == ["old"]

    await wait_until(there)
    await connection.close()

    async def gone() -> bool:
        return not await reader.instances()

    await wait_until(gone, timedelta(seconds=20))
