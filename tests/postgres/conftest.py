"""Packages of SQL made on the spot, and databases that look into them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from weft.postgres import Database

_NUMBERS = itertools.count()

TICKETS = {
    "0001_tickets.sql": "create table tickets (id int primary key, text varchar(10) not null);",
    "0002_notes.sql": "create table notes (ticket int references tickets);\n"
    "create index on notes (ticket);",
    "queries.sql": """
-- name: put_ticket
-- Stores a ticket.
insert into tickets values ($1, $2);

-- name: put_note
-- Notes something about a ticket.
insert into notes values ($1);

-- name: all_tickets
-- Every ticket.
select id, text from tickets order by id;

-- name: delete_tickets
-- Forgets the tickets up to a number.
delete from tickets where id <= $1;

-- name: take_number
-- Inserts within a SELECT's clothes.
with fresh as (insert into tickets values ($1, 'with') returning id) select id from fresh;

-- name: judge_deadlocks_soon
-- Does not wait a whole second before it looks for a deadlock.
set local deadlock_timeout = '20ms';

-- name: rest
-- Takes a while.
select pg_sleep($1);

-- name: nonsense
-- Names a table that is not there.
select * from no_such_table;
""",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], str]:
    """Makes a package of files and returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(files: dict[str, str]) -> str:
        name = f"sql_of_test_{next(_NUMBERS)}"
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
        return name

    return make


@pytest_asyncio.fixture
async def db(
    database_url: str, package: Callable[[dict[str, str]], str]
) -> AsyncIterator[Database]:
    """A database with tickets and notes."""
    async with await Database.connect(database_url, schema="desk") as database:
        await database.migrate(package(TICKETS))
        yield database


@pytest_asyncio.fixture
async def admin(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection that sees all others."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def cut(admin: asyncpg.Connection) -> Callable[[], Awaitable[None]]:
    """Cuts all other connections to the database, as a restart of the server does."""

    async def all_others() -> None:
        await admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )

    return all_others


@pytest.fixture
def busy(admin: asyncpg.Connection) -> Callable[[str], Awaitable[bool]]:
    """Whether another connection waits for something of this kind (pg_stat_activity)."""

    async def look(wait: str) -> bool:
        # Within a transaction the server shows the same picture again and again.
        await admin.execute("select pg_stat_clear_snapshot()")
        return await admin.fetchval(
            "select count(*) > 0 from pg_stat_activity where datname = current_database() "
            "and state = 'active' and $1 in (wait_event_type, wait_event)",
            wait,
        )

    return look
