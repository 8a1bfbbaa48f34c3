"""One suite for every ledger."""

from __future__ import annotations

import asyncio
import random
import sys
from datetime import timedelta

import asyncpg
import pytest

from weft import rpc
from weft.agents.llm.money import ledger as ledgers
from weft.agents.llm.money.ledger import Account, Entry, MemoryLedger, Refused
from weft.agents.llm.money.postgres import SCHEMA, SQL, PostgresLedger
from weft.agents.llm.usage import Usage
from weft.postgres import Database
from weft.rpc.testing import wait_until


@pytest.fixture(params=["memory", "postgres"])
async def ledger(request, database_url):
    if request.param == "memory":
        yield MemoryLedger()
        return
    async with await Database.connect(database_url, SCHEMA) as database:
        await database.migrate(SQL)
        yield PostgresLedger(database)


def entry(number, *accounts, prompt=10, output=100, agent="a", model="m", price=0) -> Entry:
    return Entry(
        id=f"r{number}",
        accounts=accounts,
        prompt=prompt,
        prompt_cost=prompt * price,
        output=output,
        output_price=price,
        agent=agent,
        endpoint="e",
        model=model,
    )


def run(tokens=None, cost=None, name="r") -> Account:
    return Account(scope="run", name=name, tokens=tokens, cost=cost)


async def test_what_is_settled_is_what_was_used(ledger) -> None:
    account = run()
    granted = await ledger.set_aside(entry(1, account, price=2))
    assert granted == 100
    assert (await ledger.spent(account)).tokens == 110
    assert (await ledger.spent(account)).cost == 220
    usage = Usage(input=5, cache_read=2, cache_write_5m=1, output=4)
    await ledger.settle(entry(1, account, price=2), usage, 20)
    spent = await ledger.spent(account)
    assert (spent.tokens, spent.cost, list(spent.where)) == (12, 20, [("a", "m", 12, 20)])


async def test_to_settle_twice_changes_nothing(ledger) -> None:
    account = run()
    await ledger.set_aside(entry(1, account))
    for _ in range(2):
        await ledger.settle(entry(1, account), Usage(output=4), 20)
    assert (await ledger.spent(account)).tokens == 4


async def test_to_set_aside_twice_changes_nothing(ledger) -> None:
    account = run(tokens=115)  # which is too few for two
    for _ in range(2):
        assert await ledger.set_aside(entry(1, account)) == 100
        assert (await ledger.spent(account)).tokens == 110
    assert isinstance(await ledger.set_aside(entry(2, account)), Refused)


async def test_an_answer_may_have_what_is_left(ledger) -> None:
    account = run(tokens=150)
    assert await ledger.set_aside(entry(1, account)) == 100
    assert await ledger.set_aside(entry(2, account)) == 30
    refused = await ledger.set_aside(entry(3, account))
    assert isinstance(refused, Refused)
    assert refused.account == account
    assert refused.spent.tokens == 150


async def test_money_is_a_limit_as_well(ledger) -> None:
    account = run(cost=1_000)
    assert await ledger.set_aside(entry(1, account, price=5)) == 100
    assert await ledger.set_aside(entry(2, account, price=5)) == 80
    assert isinstance(await ledger.set_aside(entry(3, account, price=5)), Refused)
    assert await ledger.set_aside(entry(4, account)) == 100  # what is free is free


async def test_one_account_that_refuses_leaves_the_others_alone(ledger) -> None:
    tenant = Account(scope="tenant", name="t")
    assert isinstance(await ledger.set_aside(entry(1, run(tokens=0), tenant)), Refused)
    assert (await ledger.spent(tenant)).tokens == 0


async def test_where_it_was_spent_is_told(ledger) -> None:
    account = run()
    for number, agent in enumerate(["solution", "triage", "solution"]):
        asked = entry(number, account, agent=agent)
        await ledger.set_aside(asked)
        await ledger.settle(asked, Usage(output=10), 1)
    where = (await ledger.spent(account)).where
    assert list(where) == [("solution", "m", 20, 2), ("triage", "m", 10, 1)]


async def test_many_at_once_do_not_spend_what_is_there_only_once(ledger) -> None:
    tenant = Account(scope="tenant", name="t", tokens=3_000)
    accounts = [(run(tokens=1_000, name=f"r{number % 5}"), tenant) for number in range(80)]
    rng = random.Random(7)
    used: list[int] = []

    async def one(number) -> None:
        asked = entry(number, *accounts[number])
        granted = await ledger.set_aside(asked)
        if isinstance(granted, Refused):
            return
        for account in accounts[number]:
            assert (await ledger.spent(account)).tokens <= account.tokens
        await asyncio.sleep(0)
        output = rng.randint(0, granted)
        used.append(10 + output)
        await ledger.settle(asked, Usage(input=10, output=output), 1)

    await asyncio.gather(*map(one, range(80)))
    spent = await ledger.spent(tenant)
    assert spent.tokens == sum(used) <= 3_000
    assert spent.cost == len(used)


async def test_what_a_dead_process_set_aside_stays_so(ledger) -> None:
    account = run(tokens=120)
    await ledger.set_aside(entry(1, account))
    assert isinstance(await ledger.set_aside(entry(2, account)), Refused)


_PROCESS = """
import asyncio, sys
from weft.agents.llm.money.ledger import Account, Entry, Refused
from weft.agents.llm.money.postgres import SCHEMA, SQL, PostgresLedger
from weft.agents.llm.usage import Usage
from weft.postgres import Database

async def main(url, who):
    account = Account(scope="run", name="r", tokens=13_000)  # two of three cannot spend it all: each has 100 requests of 60
    async with await Database.connect(url, SCHEMA) as database:
        database.load(SQL)
        ledger = PostgresLedger(database)
        used = 0
        print("ready", flush=True)
        sys.stdin.readline()  # so that none has spent it all before the others are there
        for number in range(100):
            entry = Entry(id=f"{who}-{number}", accounts=[account], prompt=10, prompt_cost=0, output=50,
                          output_price=0, agent=who, endpoint="e", model="m")
            granted = await ledger.set_aside(entry)
            if isinstance(granted, Refused):
                break
            used += 10 + granted
            await ledger.settle(entry, Usage(input=10, output=granted), 0)
        print(used)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_it_holds_over_processes(database_url) -> None:
    async with await Database.connect(database_url, SCHEMA) as database:
        await database.migrate(SQL)
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _PROCESS, database_url, f"agent-{number}"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for number in range(3)
        ]
        for each in processes:
            assert each.stdout is not None
            assert await each.stdout.readline() == b"ready\n"
        told = await asyncio.gather(*(each.communicate(b"go\n") for each in processes))
        used = [int(out) for out, _ in told]
        spent = await PostgresLedger(database).spent(run())
        assert sum(used) == spent.tokens
        assert 13_000 - 26 < spent.tokens <= 13_000
        assert all(each > 0 for each in used)


async def test_single_requests_are_forgotten_and_sums_are_not(database_url) -> None:
    async with await Database.connect(database_url, SCHEMA) as database:
        await database.migrate(SQL)
        ledger = PostgresLedger(database)
        tenant = Account(scope="tenant", name="t", period="2026-11-21")
        for number, account in enumerate((run(), tenant)):
            await ledger.set_aside(entry(number, account))
            await ledger.settle(entry(number, account), Usage(output=5), 0)
        # Those of runs are kept as long as these.
        assert await ledger.forget(timedelta(0)) == 1
        assert (await ledger.spent(tenant)).tokens == 5
        assert not (await ledger.spent(tenant)).where
        assert len((await ledger.spent(run())).where) == 1
        assert await ledger.idle_runs(timedelta(hours=1)) == []
        assert await ledger.forget_runs(timedelta(hours=1), ["r"]) == 0
        assert await ledger.idle_runs(timedelta(0)) == ["r"]
        assert await ledger.idle_runs(timedelta(0), "r") == []
        assert await ledger.forget_runs(timedelta(0), ["r"]) == 1
        assert await ledger.forget(timedelta(0)) == 1


async def test_sums_in_memory_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(ledgers, "_MOST", 3)
    ledger, tenant = MemoryLedger(), Account(scope="tenant", name="t")
    for number in range(10):
        await ledger.set_aside(entry(number, run(name=f"r{number}"), tenant))
    assert len(ledger._sums) == 3
    assert (await ledger.spent(tenant)).tokens == 10 * 110
    assert (await ledger.spent(run(name="r9"))).tokens == 110


async def cut_amid(admin, step):
    """Makes a step whose connection breaks while it waits for the accounts."""
    async with admin.transaction():
        await admin.execute(f"lock table {SCHEMA}.model_accounts")
        making = asyncio.create_task(step)
        await wait_until(
            lambda: admin.fetchval("select exists (select from pg_locks where not granted)")
        )
        await admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
    return await making


async def test_a_step_whose_connection_breaks_is_made_once(database_url) -> None:
    admin = await asyncpg.connect(database_url)
    async with await Database.opened(database_url, SCHEMA, SQL) as database:
        ledger, account = PostgresLedger(database), run()
        assert await cut_amid(admin, ledger.set_aside(entry(1, account))) == 100
        assert (await ledger.spent(account)).tokens == 110
        await cut_amid(admin, ledger.settle(entry(1, account), Usage(output=5), 0))
        assert (await ledger.spent(account)).tokens == 5
    await admin.close()


async def test_a_ledger_that_is_away_is_unavailable() -> None:
    with pytest.raises(rpc.Unavailable):
        await Database.connect("postgresql://127.0.0.1:9/none", SCHEMA)
