"""What is known comes in time, from whoever answers; who does not is named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from weft import embedded, rpc
from weft.agents.context import (
    BreakerSettings,
    Enrichment,
    Entry,
    Fact,
    How,
    Need,
    RedisCache,
    Source,
    by_skill,
)
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import channel_for, wait_until

ANN = Need(tenant="acme", customer="ann", question="Where is my order?")
SOON = timedelta(milliseconds=300)


class Told:
    """A provider that says what it is told to, and counts who asks."""

    def __init__(self, *texts: str, fails: Exception | None = None, takes: float = 0.0) -> None:
        self.texts = texts
        self.fails = fails
        self.takes = takes
        self.asked: list[Need] = []
        self.cancelled = 0

    async def __call__(self, need: Need) -> Sequence[Fact]:
        self.asked.append(need)
        try:
            await asyncio.sleep(self.takes)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails is not None:
            raise self.fails
        return [Fact(text=text, source="crm") for text in self.texts]


class Stubborn(Told):
    """It hangs, and does not end when it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.may_end = asyncio.Event()

    async def __call__(self, need: Need) -> Sequence[Fact]:
        while not self.may_end.is_set():
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                continue
        return ()


@asynccontextmanager
async def enrichment(*sources: Source, **more) -> AsyncIterator[Enrichment]:
    made = Enrichment(sources, **{"within": SOON, **more})
    try:
        yield made
    finally:
        for source in sources:
            if isinstance(source.provider, Stubborn):
                source.provider.may_end.set()
        await made.close()


async def kept(cache: RedisCache, count: int) -> None:
    async def are_there() -> bool:
        return len(await cache.get("acme", "ann")) == count

    await wait_until(are_there)


async def test_eight_sources_one_hangs_one_fails_one_is_slow(cache: RedisCache):
    good = {
        name: Told(f"{name} of ann")
        for name in ("profile", "subscription", "tickets", "orders", "knowledge")
    }
    fails, slow = Told(fails=rpc.Unavailable()), Told("usage", takes=3600)
    sources = [
        *(Source(name, provider) for name, provider in good.items()),
        Source("history", Stubborn()),
        Source("health", fails),
        Source("usage", slow),
    ]
    async with enrichment(*sources, cache=cache) as gathering:
        context = await gathering.gather(ANN)
        assert timedelta(milliseconds=200) < context.took < timedelta(milliseconds=600)
        assert {piece.provider for piece in context.pieces} == set(good)
        assert {piece.how for piece in context.pieces} == {How.ASKED}
        assert {one.provider: one.why for one in context.missing} == {
            "history": "it did not answer in time",
            "health": "it failed: UNAVAILABLE",
            "usage": "it did not answer in time",
        }
        assert "[1] profile of ann (profile; crm)" in context.text()
        assert "Not known now: history (it did not answer in time), health" in context.text()
        await kept(cache, 5)
        again = await gathering.gather(ANN)
        assert {piece.how for piece in again.pieces} == {How.CACHED}
        assert {piece.provider for piece in again.pieces} == set(good)
        assert [len(provider.asked) for provider in good.values()] == [1] * 5
        assert "(profile; crm; as of " in again.text()


async def test_an_answer_of_before_stands_in_and_then_a_fallback(cache: RedisCache):
    orders = Told("two orders")
    source = Source("orders", orders, ttl=timedelta(microseconds=1))
    async with enrichment(source, cache=cache) as gathering:
        await gathering.gather(ANN)
        await kept(cache, 1)
        orders.fails = RuntimeError("bug")
        context = await gathering.gather(ANN)
        assert [(p.fact.text, p.how) for p in context.pieces] == [("two orders", How.STALE)]
        assert not context.missing
    stands_in = Source(
        "orders",
        orders,
        fallback=lambda need: [Fact(text=f"ask {need.customer}")],
        stale=timedelta(0),
        ttl=timedelta(microseconds=1),
    )
    async with enrichment(stands_in, cache=cache) as gathering:
        context = await gathering.gather(ANN)
        assert [(p.fact.text, p.how) for p in context.pieces] == [("ask ann", How.FALLBACK)]
        assert "a stand-in" in context.text()


async def test_an_answer_of_before_stands_in_for_one_that_hangs(cache: RedisCache):
    orders = Told("two orders")
    source = Source(
        "orders", orders, ttl=timedelta(microseconds=1), timeout=timedelta(milliseconds=30)
    )
    async with enrichment(source, cache=cache) as gathering:
        await gathering.gather(ANN)
        await kept(cache, 1)
        orders.takes = 3600
        context = await gathering.gather(ANN)
        assert [p.how for p in context.pieces] == [How.STALE]
        assert context.took < SOON


async def test_one_that_fails_again_and_again_is_left_alone_for_a_while():
    health = Told(fails=rpc.Unavailable())
    settings = BreakerSettings(failures=2, open=timedelta(milliseconds=50))
    async with enrichment(Source("health", health, breaker=settings)) as gathering:
        for _ in range(5):
            context = await gathering.gather(ANN)
        assert len(health.asked) == 2
        assert context.missing[0].why == "it failed again and again, and is left alone for a while"
        health.fails = None

        async def asked_again() -> bool:
            return not (await gathering.gather(ANN)).missing

        await wait_until(asked_again)
        assert len(health.asked) == 3
        await gathering.gather(ANN)
        assert len(health.asked) == 4


@pytest.mark.parametrize("limit", [None, timedelta(milliseconds=10)])
async def test_one_that_hangs_again_and_again_is_left_alone_as_well(limit):
    health = Told(takes=3600)
    source = Source("health", health, timeout=limit, breaker=BreakerSettings(failures=2))
    async with enrichment(source, within=timedelta(milliseconds=50)) as gathering:
        for _ in range(4):
            context = await gathering.gather(ANN)
    assert len(health.asked) == 2
    assert context.missing[0].why == "it failed again and again, and is left alone for a while"


async def test_what_is_wrong_with_the_caller_is_not_held_against_a_provider():
    orders = Told(fails=rpc.PermissionDenied())
    source = Source("orders", orders, breaker=BreakerSettings(failures=1))
    async with enrichment(source) as gathering:
        for _ in range(3):
            context = await gathering.gather(ANN)
        assert len(orders.asked) == 3
        assert context.missing[0].why == "it failed: PERMISSION_DENIED"
        orders.fails = rpc.NotFound()
        context = await gathering.gather(ANN)
        assert not context.missing
        assert not context.pieces


async def test_each_customer_tenant_and_question_has_answers_of_its_own(cache: RedisCache):
    orders, search = Told("orders"), Told("found")
    sources = [
        Source("orders", orders),
        Source("search", search, keyed_by=("customer", "question")),
    ]
    async with enrichment(*sources, cache=cache) as gathering:
        await gathering.gather(ANN)
        await kept(cache, 2)
        await gathering.gather(Need(tenant="acme", customer="ann", question="And when?"))
        await kept(cache, 3)
        assert (len(orders.asked), len(search.asked)) == (1, 2)
        await gathering.gather(Need(tenant="acme", customer="bob", question=ANN.question))
        await gathering.gather(Need(tenant="other", customer="ann", question=ANN.question))
        assert (len(orders.asked), len(search.asked)) == (3, 4)
        await cache.forget("acme", "ann")
        assert not await cache.get("acme", "ann")


async def test_it_works_without_redis():
    async with (
        embedded.redis_client("redis://127.0.0.1:1") as nowhere,
        enrichment(Source("orders", Told("orders")), cache=RedisCache(nowhere)) as gathering,
    ):
        assert (await gathering.gather(ANN)).pieces[0].fact.text == "orders"


async def test_a_cache_that_hangs_is_done_without(cache: RedisCache, monkeypatch):
    async def hang(tenant: str, customer: str) -> Mapping[str, Entry]:
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(cache, "get", hang)
    async with enrichment(Source("orders", Told("orders")), cache=cache) as gathering:
        context = await gathering.gather(ANN)
    assert context.pieces[0].fact.text == "orders"
    assert context.took < SOON


async def test_sources_are_asked_at_once():
    """Each waits until all have been asked."""
    gate = asyncio.Barrier(8)

    async def meets(need: Need) -> Sequence[Fact]:
        await gate.wait()
        return [Fact(text="here")]

    sources = [Source(f"source-{number}", meets) for number in range(8)]
    async with enrichment(*sources, within=timedelta(seconds=10)) as gathering:
        context = await gathering.gather(ANN)
    assert len(context.pieces) == 8
    assert context.took < timedelta(seconds=8)


async def test_what_is_worth_most_comes_into_the_budget_and_each_provider_has_a_say():
    async def many(need: Need) -> Sequence[Fact]:
        return [Fact(text="m" * 40, relevance=1 - number / 100) for number in range(50)]

    async def few(need: Need) -> Sequence[Fact]:
        return [Fact(text="few" * 10, relevance=0.1)]

    sources = [Source("many", many, weight=2), Source("few", few)]
    async with enrichment(*sources, budget=100) as gathering:
        context = await gathering.gather(ANN)
    assert [piece.provider for piece in context.pieces] == ["many", "many", "many", "few"]
    assert context.tokens == 86
    assert context.left_out == 47
    assert [piece.score for piece in context.pieces] == [2, 1.98, 1.96, 0.1]


async def test_the_callers_deadline_is_kept():
    async with enrichment(
        Source("usage", Told(takes=3600)), within=timedelta(hours=1)
    ) as gathering:
        with rpc.Deadline.after(timedelta(milliseconds=50)).applied():
            context = await gathering.gather(ANN)
        assert context.took < timedelta(seconds=1)
        assert context.missing


async def test_who_gives_up_cancels_all(cache: RedisCache):
    usage = Told(takes=3600)
    async with enrichment(Source("usage", usage), within=timedelta(hours=1)) as gathering:
        task = asyncio.create_task(gathering.gather(ANN))
        await wait_until(lambda: usage.asked)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wait_until(lambda: usage.cancelled)


async def test_a_skill_of_the_mesh_is_a_provider():
    async with channel_for(echo_pb2_grpc.add_EchoServiceServicer_to_server, Echo()) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        says = by_skill(
            stub.Say,
            request=lambda need: echo_pb2.SayRequest(text=need.customer),
            read=lambda said: [Fact(text=f"{said.text} has {said.time_left.ToMilliseconds()}")],
        )
        fails = by_skill(
            stub.Say,
            request=lambda need: echo_pb2.SayRequest(fail_with=7),
            read=lambda said: [],
        )
        async with enrichment(
            Source("says", says), Source("fails", fails), within=timedelta(seconds=5)
        ) as gathering:
            context = await gathering.gather(ANN)
    said, _, left = context.pieces[0].fact.text.rpartition(" ")
    assert said == "ann has"
    assert 4_000 < int(left) < 5_100  # gRPC rounds what is left up
    assert context.missing[0].why.startswith("it failed: ")


def test_two_sources_of_one_name_are_refused():
    with pytest.raises(ValueError, match="name"):
        Enrichment([Source("a", Told()), Source("a", Told())])
