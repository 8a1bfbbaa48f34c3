"""Schemas that somebody else brings up to date: `weft migrate` before the parts, with rights that these lack."""

from __future__ import annotations

from urllib.parse import urlsplit

import asyncpg
import pytest

from weft.config import Settings
from weft.postgres import Database, MigrationFailed, SchemaBehind

ONE = {"0001_one.sql": "create table one (id int);"}
TWO = {**ONE, "0002_two.sql": "alter table one add column name text;"}


@pytest.fixture
async def admin(database_url):
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_what_is_to_do_is_told_and_nothing_done(database_url, package, admin):
    async with await Database.connect(database_url, schema="desk") as database:
        assert await database.pending(package(ONE)) == ["0001_one.sql"]
        assert await admin.fetchval("select to_regnamespace('desk')") is None
        await database.migrate(package(ONE))
        assert await database.pending(package(TWO)) == ["0002_two.sql"]
        assert await database.pending(package(ONE)) == []


async def test_a_process_that_may_not_migrate_says_what_its_schema_lacks(database_url, package):
    off = Settings(database_url=database_url, migrate="off").database_url
    assert Settings(database_url=off, migrate="off").database_url == off
    async with (
        await Database.connect(off, schema="desk") as part,
        await Database.connect(database_url, schema="desk") as job,
    ):
        with pytest.raises(SchemaBehind, match=r"desk lacks 0001_one\.sql.*`weft migrate`"):
            await part.migrate(package(ONE))
        await job.migrate(package(ONE))
        assert await part.migrate(package(ONE)) == []
        with pytest.raises(SchemaBehind, match=r"lacks 0002_two\.sql"):
            await part.migrate(package(TWO))
        assert await part.migrate(package(TWO), anyway=True) == ["0002_two.sql"]
        # A schema that is ahead is no reason not to start: that is what a rolling update looks like.
        assert await part.migrate(package(ONE)) == []


async def test_a_role_that_makes_nothing_can_use_what_is_up_to_date(database_url, package, admin):
    role = f"clerk_{urlsplit(database_url).path[1:]}"
    async with await Database.connect(database_url, schema="desk") as job:
        await job.migrate(package(ONE))
    await admin.execute(
        f"create role {role} login; grant usage on schema desk to {role};"
        f"grant select, insert on all tables in schema desk to {role}"
    )
    try:
        as_clerk = database_url.replace("postgres@", f"{role}@", 1)
        assert as_clerk != database_url
        async with await Database.connect(as_clerk, schema="desk") as part:
            assert await part.migrate(package(ONE)) == []
    finally:
        await admin.execute(f"drop owned by {role}; drop role {role}")


async def test_a_migration_does_not_stand_in_everybody_s_way(database_url, package, admin):
    async with await Database.connect(database_url, schema="desk") as database:
        await database.migrate(package(ONE))
        async with admin.transaction():
            await admin.execute("lock table desk.one in access share mode")
            with pytest.raises(MigrationFailed, match="lock timeout"):
                await database.migrate(package(TWO))
        assert await database.migrate(package(TWO)) == ["0002_two.sql"]
