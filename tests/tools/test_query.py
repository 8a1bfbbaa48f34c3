"""What a database may be asked: nothing is written, nothing is read that is not allowed, nothing takes for ever."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.tools.callers import serving, signed

from weft import rpc
from weft.agents.tools import MemoryAudit, Toolbox
from weft.agents.tools.query import Query, QueryFailed, QueryRefused, QuerySettings, RoleRefused

SHOP = """
create schema shop; create schema secret;
create table shop.orders (id int primary key, customer text, total numeric(30, 10), placed timestamptz, more jsonb);
insert into shop.orders select n, 'c' || n % 10, n * 1.1, timestamptz '2026-01-01' + n * interval '1 hour', '{"a": [1]}'
  from generate_series(1, 1000) n;
create view shop.large as select * from shop.orders where total > 1000;
create table shop.hidden (id int);
create table secret.salaries (name text, amount int);
insert into secret.salaries values ('ann', 1);
create table secret.trace (what text);
create sequence shop.numbers;
create function shop.double(int) returns int language sql immutable as 'select $1 * 2';
create function shop.writes(text) returns int language plpgsql as
  $$ begin insert into secret.trace values ($1); return 1; end $$;
create function shop.stable_writes(text) returns int language plpgsql stable security definer as
  $$ begin perform set_config('transaction_read_only', 'off', false); return 1; end $$;
create function shop.reads_secrets() returns int language sql stable security definer as
  'select max(amount) from secret.salaries';
create operator shop.@!@ (function = shop.writes, rightarg = text);
create view shop.of_functions as select shop.reads_secrets() as amount;
"""
SETTINGS = QuerySettings(
    tables=("shop.orders", "shop.large", "shop.of_functions"), time=timedelta(seconds=3)
)


@dataclass(frozen=True, slots=True)
class Shop:
    """A database with a role that may write: what keeps it from that is the tool."""

    admin: asyncpg.Connection[Any]
    url: str

    @contextlib.asynccontextmanager
    async def asking(
        self, settings: QuerySettings = SETTINGS, url: str = ""
    ) -> AsyncIterator[Query]:
        async with Query.connected(url or self.url, settings) as made:
            yield made

    async def state(self) -> Any:
        """All that a question could have changed."""
        return await self.admin.fetchrow(
            "select (select count(*) from shop.orders), (select sum(total) from shop.orders), "
            "(select count(*) from secret.trace), (select last_value from shop.numbers), "
            "(select count(*) from pg_class where relkind in ('r', 'v', 'S', 'i') and oid >= 16384), "
            "(select count(*) from pg_largeobject_metadata), "
            "(select count(*) from pg_locks where locktype = 'advisory')"
        )


def of_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{role}:x@{host}").geturl()


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    admin = await asyncpg.connect(database_url)
    await admin.execute(SHOP)
    for role in ("clerk", "root2", "reader2"):
        await admin.execute(
            f"do $$ begin create role {role} login password 'x'; exception when duplicate_object then null; end $$"
        )
    await admin.execute(
        "alter role root2 superuser; grant usage, create on schema shop, secret to clerk;"
        "grant all on all tables in schema shop, secret to clerk; grant all on all sequences in schema shop to clerk;"
        "grant pg_read_server_files to reader2; grant usage on schema shop to reader2"
    )
    yield Shop(admin, of_role(database_url, "clerk"))
    await admin.execute(
        "drop owned by clerk; revoke pg_read_server_files from reader2; drop owned by reader2"
    )
    await admin.close()


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        (
            "select id, customer from orders where id < 3 order by id desc",
            [{"id": 2, "customer": "c2"}, {"id": 1, "customer": "c1"}],
        ),
        ("select count(*) from shop.orders", [{"count": 1000}]),
        ("select count(*) as n from large", [{"n": 91}]),
        ("with a as (select * from orders) select max(id) as id from a", [{"id": 1000}]),
        ("select sum(total) over (order by id) as s from orders limit 2", [{"s": 1.1}, {"s": 3.3}]),
        (
            "select customer, count(*) n from orders group by 1 order by 1 limit 1",
            [{"customer": "c0", "n": 100}],
        ),
        (
            "select o.id from orders o join orders p using (id) where o.id = any (array[1])",
            [{"id": 1}],
        ),
        (
            "select placed > now() - interval '100 years' as late from orders limit 1",
            [{"late": True}],
        ),
        (
            "select to_char(placed at time zone 'utc', 'YYYY-MM-DD') as day from orders where id = 24",
            [{"day": "2026-01-02"}],
        ),
        ("select date_trunc('day', placed) is not null as x from orders limit 1", [{"x": True}]),
        (
            "select more -> 'a' -> 0 as one, more from orders limit 1",
            [{"one": 1, "more": {"a": [1]}}],
        ),
        (
            "select string_agg(customer, ',' order by id) as s from orders where id < 4",
            [{"s": "c1,c2,c3"}],
        ),
        ("select x from generate_series(1, 2) x", [{"x": 1}, {"x": 2}]),
        ("values (1, 'a')", [{"column1": 1, "column2": "a"}]),
        ("table large limit 0", []),
        ("(select 1 as a) union (select 2) order by 1", [{"a": 1}, {"a": 2}]),
        (
            "with recursive r(n) as (select 1 union all select n + 1 from r where n < 3) select n from r",
            [{"n": 1}, {"n": 2}, {"n": 3}],
        ),
        ("select 1 as a -- that is all", [{"a": 1}]),
        ("/* first */ select 1 as a", [{"a": 1}]),
        ("select null as a, 'é' as b", [{"a": None, "b": "é"}]),
        (
            "select 12345678901234567890.5::numeric as big, 0.1::numeric as small",
            [{"big": "12345678901234567890.5", "small": 0.1}],
        ),
        (
            "select 9007199254740993 as odd, 9007199254740992 as even",
            [{"odd": "9007199254740993", "even": 9007199254740992.0}],
        ),
        ("select 'NaN'::float8 as x", [{"x": "NaN"}]),
        ("select amount from of_functions", [{"amount": 1}]),
        (
            "select ') as asked; drop table shop.orders; --' as x",
            [{"x": ") as asked; drop table shop.orders; --"}],
        ),
        ('select 1 as " :funcid 2073 "', [{" :funcid 2073 ": 1}]),
    ],
)
async def test_what_may_be_asked_is_answered(question, rows, shop: Shop) -> None:
    async with shop.asking() as query:
        found = await query.ask(question)
    assert (found.rows, found.truncated) == (rows, False)


REFUSED = [
    # Tables
    "select * from secret.salaries",
    "select * from shop.hidden",
    "select * from orders where id in (select amount from secret.salaries)",
    "select (select max(amount) from secret.salaries)",
    "with s as (select * from secret.salaries) select 1",
    "select 1 from orders left join secret.salaries on false",
    "select 1 where exists (select from secret.salaries)",
    "select * from orders, lateral (select * from secret.salaries where amount = id) s",
    "select * from (values (1)) v(x) where x = (select amount from secret.salaries)",
    "select id from orders union select amount from secret.salaries",
    "select id from orders order by (select max(amount) from secret.salaries)",
    "select secret.salaries from secret.salaries",
    "select * from pg_catalog.pg_authid",
    "select * from pg_shadow",
    "select * from pg_stat_activity",
    "select * from pg_settings",
    "select * from information_schema.tables",
    "select * from shop.numbers",
    # What changes something
    "insert into orders values (0) returning *",
    "update orders set total = 0 returning *",
    "delete from orders returning *",
    "merge into orders o using orders p on o.id = p.id when matched then delete returning *",
    "with d as (delete from orders returning *) select * from d",
    "with d as (insert into secret.trace values ('x') returning *) select * from d",
    "select * into shop.copy from orders",
    "select * from orders for update",
    "select * from orders for share",
    "create table shop.x (id int)",
    "drop table shop.orders",
    "truncate shop.orders",
    "alter table shop.orders add x int",
    "grant all on shop.orders to public",
    "lock table shop.orders",
    "vacuum shop.orders",
    "do $$ begin delete from shop.orders; end $$",
    "call shop.writes('x')",
    "set role root2",
    "reset all",
    "set default_transaction_read_only = off",
    "set transaction read write",
    "begin",
    "commit",
    "rollback",
    "explain analyze delete from orders",
    "explain select 1",
    "show all",
    "copy shop.orders to program 'touch /tmp/weft-was-here'",
    "copy shop.orders to stdout",
    "copy (select 1) to '/tmp/weft-was-here'",
    "listen x",
    "notify x",
    "load 'x'",
    "prepare x as select 1",
    "declare c cursor for select 1",
    "discard all",
    # More than one
    "select 1; select 2",
    "select 1; drop table shop.orders",
    "select 1) as asked; drop table shop.orders; select (1",
    "select 1) as asked; commit; drop table shop.orders; --",
    "select 1) as asked where false; commit; select * from (select 1",
    "select 1;",
    ";",
    "",
    "-- nothing",
    "select 1 /*",
    "select 'x",
    "select $$x",
    "select $1",
    # Functions
    "select shop.writes('x')",
    "select shop.stable_writes('x')",
    "select shop.double(1)",
    "select shop.reads_secrets()",
    "select shop.@!@ 'x'",
    "select operator(shop.@!@) 'x'",
    "select id from orders where shop.writes(customer) = 1",
    "select id from orders order by shop.writes(customer)",
    "select count(*) filter (where shop.writes('x') = 1) from orders",
    "select coalesce(1, shop.writes('x'))",
    "select case when false then shop.writes('x') end",
    "select * from shop.writes('x')",
    "select * from rows from (shop.writes('x'), generate_series(1, 2)) z",
    "select 1 from orders limit shop.writes('x')",
    "select 1) as asked, (select shop.writes('x')",
    "select 1) as asked where shop.writes('x') = 1 or exists (select 1",
    "select set_config('transaction_read_only', 'off', false)",
    "select set_config('default_transaction_read_only', 'off', false)",
    "select set_config('statement_timeout', '0', false)",
    "select set_config('role', 'root2', false)",
    "select current_setting('data_directory')",
    "select pg_read_file('/etc/passwd')",
    "select pg_read_binary_file('/etc/passwd')",
    "select * from pg_ls_dir('/')",
    "select pg_stat_file('/etc/passwd')",
    "select lo_import('/etc/passwd')",
    "select lo_export(1, '/tmp/x')",
    "select lo_create(0)",
    "select lo_from_bytea(0, 'x')",
    "select dblink('host=127.0.0.1', 'delete from shop.orders')",
    "select pg_advisory_lock(1)",
    "select pg_try_advisory_lock(1)",
    "select pg_advisory_xact_lock(1)",
    "select pg_advisory_unlock_all()",
    "select pg_sleep(10)",
    "select pg_sleep_for('10 s')",
    "select pg_sleep_until('tomorrow')",
    "select pg_terminate_backend(1)",
    "select pg_cancel_backend(1)",
    "select pg_reload_conf()",
    "select pg_notify('x', 'y')",
    "select pg_logical_emit_message(false, 'x', 'y')",
    "select nextval('shop.numbers')",
    "select setval('shop.numbers', 9)",
    "select txid_current()",
    "select pg_current_xact_id()",
    "select pg_export_snapshot()",
    "select query_to_xml('select * from secret.salaries', true, true, '')",
    "select table_to_xml('secret.salaries', true, true, '')",
    "select schema_to_xml('secret', true, true, '')",
    "select database_to_xml(true, true, '')",
    "select cursor_to_xml('c', 1, true, true, '')",
    "select ts_stat('select to_tsvector(name) from secret.salaries')",
    "select ts_rewrite('a'::tsquery, 'select ''a''::tsquery, ''b''::tsquery')",
    "select pg_get_viewdef('shop.large'::regclass)",
    "select pg_relation_size('secret.salaries')",
    "select has_table_privilege('secret.salaries', 'select')",
    "select pg_stat_get_activity(null)",
    "select version()",
    "select inet_server_addr()",
    "select pg_backend_pid()",
    "select to_regclass('secret.salaries')",
    "select obj_description(1)",
    "select pg_input_is_valid('1', 'int')",
    "select loread(1, 1)",
    "select currval('shop.numbers')",
    "select setseed(0.5)",
]


async def test_what_may_not_be_asked_is_refused_and_changes_nothing(shop: Shop) -> None:
    before = await shop.state()
    async with shop.asking() as query:
        for question in REFUSED:
            began = time.monotonic()
            with pytest.raises(rpc.InvalidArgument) as refused:
                await query.ask(question)
            assert isinstance(refused.value, QueryRefused | QueryFailed), question
            assert "secret" not in refused.value.message or "secret" in question, question
            assert time.monotonic() - began < 2, question
        assert (await query.ask("select count(*) as n from orders")).rows == [{"n": 1000}]
    assert await shop.state() == before
    assert len(REFUSED) > 100


async def test_it_says_what_is_refused_and_what_is_not(shop: Shop) -> None:
    async with shop.asking() as query:
        with pytest.raises(QueryRefused) as tables:
            await query.ask("select * from secret.salaries, shop.hidden")
        with pytest.raises(QueryRefused) as functions:
            await query.ask("select pg_sleep(1), shop.double(1)")
        with pytest.raises(QueryFailed) as wrong:
            await query.ask("select nonsense from orders")
        with pytest.raises(QueryFailed):
            await query.ask("select 1 / 0")
    assert tables.value.message == (
        "The tables secret.salaries, shop.hidden may not be read; "
        "those that may are shop.large, shop.of_functions, shop.orders."
    )
    assert functions.value.message == (
        "The functions pg_sleep, shop.double may not be called: only those that calculate."
    )
    assert (
        wrong.value.message == 'The database cannot answer this: column "nonsense" does not exist.'
    )


async def test_functions_that_are_named_may_be_called_and_still_write_nothing(shop: Shop) -> None:
    settings = QuerySettings(
        tables=("shop.orders",),
        functions=(
            *("shop.double", "shop.writes", "shop.stable_writes", "pg_catalog.pg_sleep"),
            *("pg_catalog.set_config", "pg_catalog.nextval", "pg_catalog.pg_advisory_lock"),
            *("pg_catalog.pg_notify", "pg_catalog.lo_create", "pg_catalog.pg_read_file"),
        ),
        time=timedelta(seconds=1),
    )
    before = await shop.state()
    async with shop.asking(settings) as query:
        assert (await query.ask("select shop.double(2) as x")).rows == [{"x": 4}]
        refused = (
            "select shop.writes('x')",
            "select nextval('shop.numbers')",
            "select set_config('transaction_read_only', 'off', false), shop.writes('x')",
            "select shop.stable_writes('x'), shop.writes('x')",
            "select pg_read_file('/etc/passwd')",
            "select lo_create(0)",
        )
        for question in refused:
            with pytest.raises(rpc.Error) as failed:
                await query.ask(question)
            assert failed.value.code.name == "INVALID_ARGUMENT", question
        await query.ask("select set_config('default_transaction_read_only', 'off', false)")
        await query.ask("select set_config('statement_timeout', '0', false)")
        await query.ask("select set_config('search_path', 'secret', false)")
        began = time.monotonic()
        with pytest.raises(rpc.DeadlineExceeded):
            await query.ask("select pg_sleep(30)")
        assert time.monotonic() - began < 5
        assert (await query.ask("select count(*) as n from orders")).rows == [{"n": 1000}]
    assert await shop.state() == before


async def test_a_lock_of_a_session_does_not_outlast_the_tool(shop: Shop) -> None:
    settings = QuerySettings(tables=("shop.orders",), functions=("pg_catalog.pg_advisory_lock",))
    async with shop.asking(settings) as query:
        await query.ask("select pg_advisory_lock(7)")
        held = "select count(*) from pg_locks where locktype = 'advisory'"
        assert await shop.admin.fetchval(held) == 0


async def test_an_answer_has_its_bounds(shop: Shop) -> None:
    settings = QuerySettings(tables=("shop.orders",), rows=5, most_bytes=500)
    async with shop.asking(settings) as query:
        rows = await query.ask("select id from orders order by id")
        assert ([each["id"] for each in rows.rows], rows.truncated) == ([1, 2, 3, 4, 5], True)
        exact = await query.ask("select id from orders limit 5")
        assert (len(exact.rows), exact.truncated) == (5, False)
        wide = await query.ask("select repeat('x', 200) as x from orders")
        assert (len(wide.rows), wide.truncated) == (2, True)
        late = await query.ask(
            "select case when id > 1 then repeat('x', 9999) end as x from orders order by id"
        )
        assert (late.rows, late.truncated) == ([{"x": None}], True)
        with pytest.raises(QueryFailed, match="larger than 500 bytes"):
            await query.ask("select repeat('x', 5000000) as x")
        with pytest.raises(QueryFailed):
            await query.ask("select 1 as a" + " " * 20_000)
        with pytest.raises(QueryFailed):
            await query.ask("select '\0'")


async def test_an_answer_has_its_time(shop: Shop) -> None:
    endless = "with recursive r(n) as (select 1 union all select n + 1 from r) select max(n) from r"
    async with shop.asking(
        QuerySettings(tables=("shop.orders",), time=timedelta(seconds=0.3))
    ) as query:
        began = time.monotonic()
        with pytest.raises(rpc.DeadlineExceeded):
            await query.ask(endless)
        assert time.monotonic() - began < 3
    async with shop.asking() as query:
        began = time.monotonic()
        with pytest.raises(rpc.DeadlineExceeded), rpc.Deadline.after_seconds(0.2).applied():
            await query.ask(endless)
        assert time.monotonic() - began < 2
    running = "select count(*) from pg_stat_activity where application_name = 'weft-query' and state = 'active'"

    async def none_left() -> bool:
        return bool(await shop.admin.fetchval(running) == 0)

    from weft.rpc.testing import wait_until

    await wait_until(none_left)


async def test_a_caller_that_hangs_up_leaves_nothing_behind(shop: Shop) -> None:
    async with shop.asking(QuerySettings(tables=("shop.orders",), connections=1)) as query:
        asking = asyncio.create_task(
            query.ask(
                "with recursive r(n) as (select 1 union all select n + 1 from r) select max(n) from r"
            )
        )
        running = (
            "select count(*) from pg_stat_activity where application_name = 'weft-query' "
            "and state = 'active' and query like 'select case%'"
        )
        from weft.rpc.testing import wait_until

        async def runs() -> bool:
            return bool(await shop.admin.fetchval(running))

        await wait_until(runs)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (await query.ask("select 1 as a")).rows == [{"a": 1}]


@pytest.mark.parametrize(
    ("role", "why"), [("root2", "a superuser"), ("reader2", "a role of the server's own")]
)
async def test_a_role_that_may_do_more_is_refused(role, why, shop: Shop) -> None:
    url = shop.url.replace("clerk:", f"{role}:")
    async with shop.asking(url=url) as query:
        with pytest.raises(RoleRefused, match=why):
            await query.ask("select 1")


async def test_a_role_that_can_become_a_superuser_is_one(shop: Shop) -> None:
    await shop.admin.execute("grant root2 to clerk with inherit false")
    try:
        async with shop.asking() as query:
            with pytest.raises(RoleRefused, match="a superuser"):
                await query.ask("select 1")
    finally:
        await shop.admin.execute("revoke root2 from clerk")


async def test_a_role_without_temporary_views_is_told(shop: Shop) -> None:
    name = await shop.admin.fetchval("select current_database()")
    await shop.admin.execute(f"revoke temporary on database {name} from public")
    try:
        async with shop.asking() as query:
            with pytest.raises(RoleRefused, match="TEMPORARY"):
                await query.ask("select 1")
    finally:
        await shop.admin.execute(f"grant temporary on database {name} to public")


async def test_what_the_role_may_not_read_it_does_not_read(shop: Shop) -> None:
    await shop.admin.execute("revoke all on shop.orders from clerk")
    async with shop.asking() as query:
        with pytest.raises(QueryRefused, match="role"):
            await query.ask("select * from orders")


async def test_row_level_security_holds(shop: Shop) -> None:
    await shop.admin.execute(
        "alter table shop.orders enable row level security;"
        "create policy few on shop.orders to clerk using (id < 3)"
    )
    async with shop.asking() as query:
        assert (await query.ask("select count(*) as n from orders")).rows == [{"n": 2}]


async def test_a_role_whose_transactions_only_read_will_do(shop: Shop) -> None:
    await shop.admin.execute("alter role clerk set default_transaction_read_only = on")
    try:
        async with shop.asking() as query:
            assert (await query.ask("select 1 as a")).rows == [{"a": 1}]
    finally:
        await shop.admin.execute("alter role clerk reset default_transaction_read_only")


async def test_all_of_a_schema_may_be_allowed(shop: Shop) -> None:
    async with shop.asking(QuerySettings(tables=("secret.*",))) as query:
        assert (await query.ask("select amount from salaries")).rows == [{"amount": 1}]
        with pytest.raises(QueryRefused):
            await query.ask("select 1 from shop.orders")


async def test_a_schema_may_be_called_as_a_word_of_sql_is(shop: Shop) -> None:
    await shop.admin.execute(
        'create schema "order"; create table "order".items as select 7 as id;'
        'grant usage on schema "order" to clerk; grant select on "order".items to clerk'
    )
    async with shop.asking(QuerySettings(tables=("order.items",))) as query:
        assert (await query.ask("select id from items")).rows == [{"id": 7}]


@pytest.mark.parametrize(
    "tables", [(), ("orders",), ("shop.orders; drop",), ("Shop.orders",), ("*.*",)]
)
def test_tables_that_are_none(tables) -> None:
    with pytest.raises(ValueError, match="tables are named"):
        QuerySettings(tables=tables)


async def test_a_database_that_is_away(shop: Shop) -> None:
    async with Query.connected("postgresql://clerk:x@127.0.0.1:1/none", SETTINGS) as query:
        with pytest.raises(rpc.Unavailable) as away:
            await query.ask("select 1")
    assert "127.0.0.1" not in away.value.message


async def test_a_model_asks(shop: Shop) -> None:
    async with shop.asking() as query:
        tool = query.tool(name="shop", about="Orders of the shop.")
        async with Toolbox([tool], audit=MemoryAudit()) as toolbox:

            async def model() -> Any:
                (offer,) = toolbox
                assert "shop.orders" in offer.description
                return [
                    await offer({"sql": "select id, total from orders where id = 1"}),
                    await offer({"sql": "select * from secret.salaries"}),
                ]

            well, refused = await serving(signed("user:ann", "tools.shop"), model)
    assert well.text == '{"rows":[{"id":1.0,"total":1.1}],"truncated":false}' or well.json == {
        "rows": [{"id": 1.0, "total": 1.1}]
    }
    assert refused.is_error
    assert "those that may are" in refused.text
