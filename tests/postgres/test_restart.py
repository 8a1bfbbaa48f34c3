"""What callers see of a server that goes away and comes back."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from weft import embedded, rpc
from weft.postgres import Database
from weft.rpc.testing import wait_until

PATIENCE = timedelta(seconds=20)


async def fill_pool(db):
    """Opens several connections, so that more than one is stale afterwards."""
    await asyncio.gather(*(db.fetch("rest", 0.05) for _ in range(5)))


async def test_reads_do_not_notice_stale_connections(db, cut):
    await db.execute("put_ticket", 1, "one")
    for _ in range(2):
        await fill_pool(db)
        await cut()
        for _ in range(6):
            assert await db.fetchval("all_tickets") == 1


async def test_many_reads_at_once_do_not_notice_either(db, cut):
    await db.execute("put_ticket", 1, "one")
    await fill_pool(db)
    await cut()
    assert await asyncio.gather(*(db.fetchval("all_tickets") for _ in range(20))) == [1] * 20


async def test_transactions_begin_on_a_live_connection(db, cut):
    for number in range(2):
        await fill_pool(db)
        await cut()
        async with db.transaction() as work:
            await work.execute("put_ticket", number, "in")
    assert len(await db.fetch("all_tickets")) == 2


async def test_a_read_cut_while_it_runs_is_run_again(db, cut, busy):
    reading = asyncio.create_task(db.fetch("rest", 0.3))
    await wait_until(lambda: busy("PgSleep"))
    await cut()
    assert len(await reading) == 1


@pytest.mark.parametrize("call", ["execute", "fetchval"])
async def test_a_write_cut_while_it_runs_is_unavailable_and_not_run_again(
    db, admin, cut, busy, call
):
    async with admin.transaction():
        await admin.execute("insert into desk.tickets values (1, 'admin')")
        query = {"execute": ("put_ticket", 1, "late"), "fetchval": ("take_number", 1)}[call]
        writing = asyncio.create_task(getattr(db, call)(*query))
        await wait_until(lambda: busy("Lock"))
        await cut()
        with pytest.raises(rpc.Unavailable) as refused:
            await writing
    assert refused.value.retry_after > timedelta(0)
    assert refused.value.reason == "DATABASE_UNAVAILABLE"
    assert [row["text"] for row in await db.fetch("all_tickets")] == ["admin"]


async def test_a_transaction_cut_in_the_middle_is_unavailable(db, cut):
    async def lose() -> None:
        async with db.transaction() as work:
            await work.execute("put_ticket", 1, "lost")
            await cut()

    with pytest.raises(rpc.Unavailable):
        await lose()
    assert await db.fetch("all_tickets") == []


async def test_a_failure_in_a_lost_transaction_is_the_one_that_is_told(db, cut):
    async def lose() -> None:
        async with db.transaction():
            await cut()
            raise RuntimeError("my own")

    with pytest.raises(RuntimeError, match="my own"):
        await lose()
    assert await db.fetch("all_tickets") == []


async def test_nobody_there_is_unavailable(tmp_path):
    with pytest.raises(rpc.Unavailable):
        await Database.connect(f"postgresql://postgres@/postgres?host={tmp_path}", schema="desk")


async def test_a_database_that_does_not_exist_is_no_reason_to_try_again(database_url):
    url = urlsplit(database_url)._replace(path="/missing").geturl()
    with pytest.raises(rpc.FailedPrecondition, match="missing"):
        await Database.connect(url, schema="desk")


@pytest.fixture
def data() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="weft-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.mark.failure
async def test_a_killed_server_is_away_for_a_moment_and_then_all_is_well(data, package):
    name = package(
        {
            "0001_rows.sql": "create table rows (id bigserial);",
            "queries.sql": """
-- name: add_row
-- Adds a row.
insert into rows default values returning id;

-- name: count_rows
-- Counts them.
select count(*) from rows;
""",
        }
    )
    stored = 0
    refused: list[rpc.Error] = []
    async with (
        embedded.launch(data, redis_url="redis://elsewhere") as servers,
        await Database.connect(servers.database_url, schema="desk") as db,
    ):
        await db.migrate(name)

        async def add() -> bool:
            nonlocal stored
            try:
                await db.fetchval("add_row")
            except rpc.Unavailable as failed:
                refused.append(failed)
                return False
            stored += 1
            return True

        for _ in range(2):
            await asyncio.gather(*(add() for _ in range(20)))
            postmaster = next(data.glob("pg/*/postmaster.pid")).read_text().split()[0]
            os.kill(int(postmaster), signal.SIGKILL)
            await wait_until(lambda postmaster=postmaster: restarted(data, postmaster), PATIENCE)
            await wait_until(add, PATIENCE)
        # A row whose answer was lost may be there as well.
        assert stored <= await db.fetchval("count_rows") <= stored + len(refused)


def restarted(data: Path, old: str) -> bool:
    found = [file.read_text().split() for file in data.glob("pg/*/postmaster.pid")]
    return any(words and words[0] != old and words[-1] == "ready" for words in found)


@pytest.mark.parametrize(
    "close",
    [
        "alter database {0} allow_connections false",
        "alter database {0} set default_transaction_read_only = on",
    ],
)
async def test_a_database_out_of_service_is_unavailable(database_url, package, close):
    name = urlsplit(database_url).path.lstrip("/")
    url = urlsplit(database_url)._replace(path="/postgres").geturl()
    admin = await asyncpg.connect(url)
    await admin.execute(f"create database {name}_out template template0")
    away = urlsplit(database_url)._replace(path=f"/{name}_out").geturl()
    try:
        await admin.execute(close.format(f"{name}_out"))
        name_of_package = package({"0001_rows.sql": "create table rows (id bigserial);"})
        with pytest.raises(rpc.Unavailable):
            async with await Database.connect(away, schema="desk") as db:
                await db.migrate(name_of_package)
    finally:
        await admin.execute(f"drop database {name}_out with (force)")
        await admin.close()
