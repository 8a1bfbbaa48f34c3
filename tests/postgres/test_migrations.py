import asyncio
import sys

import asyncpg
import pytest

from weft import rpc
from weft.postgres import Database, MigrationChanged, MigrationFailed

ONE = {"0001_one.sql": "create table one (id int);"}
SLOW = {"0001_slow.sql": "select pg_sleep(0.2); create table slow (id int);"}

_MIGRATE = """
import asyncio, sys
from weft.postgres import Database

async def main():
    async with await Database.connect(sys.argv[1], schema="desk") as database:
        print("ready", flush=True)
        sys.stdin.readline()
        print(await database.migrate(sys.argv[2]))

asyncio.run(main())
"""


async def tables(url):
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("select tablename from pg_tables where schemaname = 'desk'")
    await connection.close()
    return {row[0] for row in rows}


async def test_migrations_run_once_and_in_order(database_url, package):
    two = {
        "0002_two.sql": "alter table one add column name text;\ncreate index on one (name);",
        **ONE,
    }
    name = package(two)
    async with await Database.connect(database_url, schema="desk") as database:
        assert await database.migrate(name) == ["0001_one.sql", "0002_two.sql"]
        assert await database.migrate(package=name) == []
        later = package({**two, "0003_three.sql": "drop table one;"})
        assert await database.migrate(later) == ["0003_three.sql"]
    assert await tables(database_url) == {"weft_migrations"}


async def test_two_processes_that_migrate_at_once_run_it_once(database_url, package, tmp_path):
    name = package(SLOW)
    both = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _MIGRATE, database_url, name),
            cwd=tmp_path,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in both:
        assert await process.stdout.readline() == b"ready\n"
    said = [out for out, _ in await asyncio.gather(*(one.communicate(b"go\n") for one in both))]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(said) == [b"['0001_slow.sql']\n", b"[]\n"]


async def test_a_migration_that_fails_leaves_nothing(database_url, package):
    broken = package({**ONE, "0002_broken.sql": "create table two (id int); select 1/0;"})
    async with await Database.connect(database_url, schema="desk") as database:
        with pytest.raises(MigrationFailed, match=r"0002_broken.sql.*division by zero"):
            await database.migrate(broken)
        assert await tables(database_url) == set()
        assert await database.migrate(package(ONE)) == ["0001_one.sql"]


async def test_a_migration_that_was_run_must_not_change(database_url, package):
    async with await Database.connect(database_url, schema="desk") as database:
        await database.migrate(package(ONE))
        with pytest.raises(MigrationChanged, match=r"0001_one\.sql.*desk") as refused:
            await database.migrate(package({"0001_one.sql": "create table other (id int);"}))
        assert isinstance(refused.value, rpc.FailedPrecondition)
    assert "other" not in await tables(database_url)
