"""The memory of calls with an idempotency key, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio

from weft import rpc
from weft.gateway.failures import AgentUnavailable
from weft.gateway.guards.circuit import CircuitOpen
from weft.gateway.guards.idempotency import (
    Answered,
    IdempotentCalls,
    InProgress,
    OutcomeUnknown,
    parse_key,
)
from weft.postgres import Database
from weft.rpc.testing import wait_until


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with await Database.connect(database_url, schema="gateway") as found:
        await found.migrate("weft.gateway.sql")
        yield found


class Agent:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails: list[rpc.Error] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self) -> bytes:
        self.calls += 1
        await self.go_on.wait()
        if self.fails:
            raise self.fails.pop()
        return b"answer %d" % self.calls


@pytest.fixture
def agent() -> Agent:
    return Agent()


async def ask(calls: IdempotentCalls, agent: Agent, caller: str = "me") -> Answered:
    deadline = rpc.Deadline.after(timedelta(seconds=5))
    return await calls.once(caller, "k", method="/a/B", request=b"r", deadline=deadline, make=agent)


async def test_each_caller_has_keys_of_its_own(database: Database, agent: Agent) -> None:
    calls = IdempotentCalls(database)
    assert await ask(calls, agent, "me") == Answered(b"answer 1")
    assert await ask(calls, agent, "you") == Answered(b"answer 2")
    assert await ask(calls, agent, "me") == Answered(b"answer 1", replayed=True)


async def test_of_many_at_once_one_is_made(database: Database, agent: Agent) -> None:
    calls = IdempotentCalls(database)
    agent.go_on.clear()
    asking = [asyncio.create_task(ask(calls, agent)) for _ in range(20)]
    done, waiting = await asyncio.wait(asking, timeout=1)
    assert {type(one.exception()) for one in done} == {InProgress}
    agent.go_on.set()
    assert [await one for one in waiting] == [Answered(b"answer 1")]


def unsent() -> AgentUnavailable:
    error = AgentUnavailable()
    error.unsent = True
    return error


@pytest.mark.parametrize("kind", ["circuit open", "no connection"])
async def test_a_call_that_never_was_made_gives_its_key_back(
    database: Database, agent: Agent, kind: str
) -> None:
    calls = IdempotentCalls(database)
    refusal = CircuitOpen("closed") if kind == "circuit open" else unsent()
    agent.fails = [refusal]
    with pytest.raises(type(refusal)):
        await ask(calls, agent)
    assert await ask(calls, agent) == Answered(b"answer 2")


async def test_a_connection_that_breaks_is_no_reason_to_try_again(
    database: Database, agent: Agent
) -> None:
    calls = IdempotentCalls(database)
    agent.fails = [AgentUnavailable()]
    for _ in range(2):
        with pytest.raises(rpc.Unavailable):
            await ask(calls, agent)
    assert agent.calls == 1


async def test_what_a_gateway_that_died_was_doing_stays_unknown(
    database: Database, database_url: str, agent: Agent
) -> None:
    agent.go_on.clear()
    dying = IdempotentCalls(database)
    asking = asyncio.create_task(ask(dying, agent))
    await wait_until(lambda: agent.calls)
    for task in dying._making:
        task.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    calls = IdempotentCalls(database)
    with pytest.raises(InProgress):
        await ask(calls, agent)
    connection = await asyncpg.connect(database_url)
    await connection.execute("update gateway.idempotent_calls set lock_until = now()")
    await connection.close()
    for _ in range(2):
        with pytest.raises(rpc.Aborted) as unknown:
            await ask(calls, agent)
        assert unknown.value.reason == OutcomeUnknown.reason
    assert agent.calls == 1


async def test_a_key_is_forgotten_when_its_time_is_over(database: Database, agent: Agent) -> None:
    calls = IdempotentCalls(database, life=timedelta(0))
    assert await ask(calls, agent) == Answered(b"answer 1")
    assert await ask(calls, agent) == Answered(b"answer 2")
    assert await database.execute("forget_idempotent_calls", 10) == 1


@pytest.mark.parametrize(("given", "key"), [("k-1", "k-1"), ('"k-1"', "k-1"), ("a=b;c", "a=b;c")])
def test_a_key_may_have_quotes(given: str, key: str) -> None:
    assert parse_key(given) == key
