import asyncio
from datetime import timedelta

import asyncpg
import pytest

from weft import rpc
from weft.postgres import Database, UnknownQuery


async def test_queries_are_called_by_name(db):
    assert await db.execute("put_ticket", 1, "hello") == 1
    assert await db.execute("put_ticket", 2, "again") == 1
    assert [tuple(row) for row in await db.fetch("all_tickets")] == [(1, "hello"), (2, "again")]
    assert (await db.fetchrow("all_tickets"))["text"] == "hello"
    assert await db.fetchval("all_tickets") == 1
    assert await db.execute("delete_tickets", 9) == 2
    assert await db.fetchrow("all_tickets") is None
    assert "select id, text" in db.query("all_tickets")


async def test_a_copy_adds_all_rows_or_none(db):
    await db.copy("tickets", ["id", "text"], [(1, "one"), (2, "two")])
    with pytest.raises(rpc.AlreadyExists):
        await db.copy("tickets", ["id", "text"], [(3, "three"), (2, "again")])
    assert [row["text"] for row in await db.fetch("all_tickets")] == ["one", "two"]


async def test_an_unknown_name_tells_the_known_ones(db):
    with pytest.raises(UnknownQuery, match=r"'no_such'.*all_tickets"):
        await db.fetch("no_such")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("select 1;", "before the first"),
        ("-- name: bare\nselect 1;", "should say what it is for"),
        ("-- name: a\n-- One.\nselect 1;\n-- name: a\n-- Two.\nselect 2;", "have the name a"),
    ],
)
async def test_files_that_break_the_form_are_refused(database_url, package, text, complaint):
    async with await Database.connect(database_url, schema="desk") as database:
        with pytest.raises(ValueError, match=complaint):
            database.load(package({"queries.sql": text}))


async def test_a_name_for_a_schema_is_plain(database_url):
    with pytest.raises(ValueError, match="plain name"):
        await Database.connect(database_url, schema='x"; drop schema public; --')


async def test_schemas_do_not_see_each_other(database_url, package):
    table = {"0001_one.sql": "create table only_here (id int);"}
    look = "-- name: look\n-- Finds the table or not.\nselect to_regclass('only_here') is null;"
    async with (
        await Database.connect(database_url, schema="one") as one,
        await Database.connect(database_url, schema="other") as other,
    ):
        await one.migrate(package({**table, "q.sql": look}))
        await other.migrate(package({"q.sql": look}))
        assert await one.fetchval("look") is False
        assert await other.fetchval("look") is True


async def test_a_transaction_commits_whole(db):
    async with db.transaction() as work:
        assert await work.execute("put_ticket", 1, "one") == 1
        assert await work.fetchval("all_tickets") == 1
        assert (await work.fetchrow("all_tickets"))["text"] == "one"
        assert await db.fetch("all_tickets") == []
        assert len(await work.fetch("all_tickets")) == 1
    assert len(await db.fetch("all_tickets")) == 1


async def test_a_transaction_that_raises_leaves_nothing(db):
    async def begin_and_give_up() -> None:
        async with db.transaction() as work:
            await work.execute("put_ticket", 1, "one")
            raise RuntimeError("changed my mind")

    with pytest.raises(RuntimeError, match="changed my mind"):
        await begin_and_give_up()
    assert await db.fetch("all_tickets") == []


async def test_more_work_than_connections_waits_its_turn(database_url, package, db):
    async with await Database.connect(database_url, schema="desk", pool_size=1) as small:
        small.load(package({"q.sql": "-- name: one\n-- One.\nselect 1;"}))
        for _ in range(5):
            async with small.transaction() as work:
                assert await work.fetchval("one") == 1


@pytest.mark.parametrize(
    ("query", "args", "error"),
    [
        ("put_ticket", (1, "again"), rpc.AlreadyExists),
        ("put_ticket", (2, None), rpc.InvalidArgument),
        ("put_ticket", (2, "much too long a text"), rpc.InvalidArgument),
        ("put_ticket", (2, "nul \x00"), rpc.InvalidArgument),
        ("put_ticket", (2**40, "big"), rpc.InvalidArgument),
        ("put_note", (7,), rpc.FailedPrecondition),
    ],
)
async def test_what_the_server_refuses_is_an_error_of_one_tree(db, query, args, error):
    await db.execute("put_ticket", 1, "first")
    with pytest.raises(error) as alone:
        await db.execute(query, *args)
    with pytest.raises(error):
        async with db.transaction() as work:
            await work.execute(query, *args)
    assert "text" not in alone.value.message  # no value of the statement is told


async def test_the_constraint_is_named(db):
    await db.execute("put_ticket", 1, "first")
    with pytest.raises(rpc.AlreadyExists) as refused:
        await db.execute("put_ticket", 1, "second")
    assert refused.value.metadata == {"constraint": "tickets_pkey"}


async def test_a_deadlock_aborts_one_of_the_two(db):
    first_has_one = asyncio.Event()
    second_has_two = asyncio.Event()

    async def work(own: int, other: int, mine: asyncio.Event, theirs: asyncio.Event) -> None:
        async with db.transaction() as work:
            await work.execute("judge_deadlocks_soon")
            await work.execute("put_ticket", own, "own")
            mine.set()
            await theirs.wait()
            await work.execute("put_ticket", other, "other")

    ends = await asyncio.gather(
        work(1, 2, first_has_one, second_has_two),
        work(2, 1, second_has_two, first_has_one),
        return_exceptions=True,
    )
    assert sorted(type(end) for end in ends if end is not None) == [rpc.Aborted]
    assert len(await db.fetch("all_tickets")) == 2


async def test_waiting_for_a_lock_ends_with_the_current_deadline(db):
    await db.execute("put_ticket", 1, "one")
    async with db.transaction() as first:
        await first.execute("delete_tickets", 1)
        with (
            rpc.Deadline.after(timedelta(seconds=0.1)).applied(),
            pytest.raises(rpc.DeadlineExceeded),
        ):
            await db.execute("delete_tickets", 1)
    assert await db.fetch("all_tickets") == []


async def test_a_statement_ends_with_the_current_deadline(db):
    with rpc.Deadline.after(timedelta(seconds=0.1)).applied():
        with pytest.raises(rpc.DeadlineExceeded):
            await db.fetch("rest", 20)
        with pytest.raises(rpc.DeadlineExceeded):
            await db.fetch("all_tickets")
    assert await db.fetch("all_tickets") == []


async def test_a_bug_passes_unchanged(db):
    with pytest.raises(asyncpg.UndefinedTableError):
        await db.fetch("nonsense")
