"""Limits of calls, by this gateway alone and by Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from weft import embedded, rpc
from weft.gateway.guards.call_limits import CallLimits, Entry, LimitReached, units_in
from weft.gateway.guards.limit_rules import Kind, Rule, parse
from weft.gateway.transcoding.catalog import Skill
from weft.limits import Buckets, SharedLimits
from weft.rpc.call import IDENTITY_KEY, Call
from weft.rpc.testing import wait_until
from weft.v1.identity_pb2 import Identity
from weft.v1.options_pb2 import LIMIT_SCOPE_IDENTITY, SkillLimit

PATH = "/shop.v1.Shop/Buy"


def method(path: str = PATH, **options: Any) -> Any:
    return SimpleNamespace(path=path, full_name=path[1:], skill=Skill(**options))


def call(subject: str = "ann", tenant: str = "", path: str = PATH) -> Call:
    entry = (IDENTITY_KEY, Identity(subject=subject, tenant=tenant).SerializeToString())
    return Call.at_door(path, (), rpc.Deadline.after(timedelta(seconds=5)), entry)


class Limited:
    """Limits of two methods, with a clock."""

    def __init__(self, rules: str, clock: Any, shared: SharedLimits | None = None, **skill: Any):
        self.refused: list[str] = []
        self.limits = CallLimits(
            parse(rules), shared, on_refused=lambda name, *_: self.refused.append(name), clock=clock
        )
        other = "/shop.v1.Shop/Look"
        self.limits.use({PATH: method(**skill), other: method(other)})
        self.headers: dict[str, str] = {}

    async def enter(self, subject: str = "ann", tenant: str = "", path: str = PATH) -> Entry:
        plan = self.limits.plan(path)
        assert plan is not None
        headers: list[tuple[bytes, bytes]] = []
        try:
            return await self.limits.enter(plan, call(subject, tenant, path), headers)
        finally:
            self.headers = {name.decode(): value.decode() for name, value in headers}

    async def admits(self, times: int, *who: str) -> int:
        count = 0
        for _ in range(times):
            try:
                (await self.enter(*who)).done()
            except LimitReached:
                continue
            count += 1
        return count


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (
            "per=identity rate=100/s burst=20",
            Rule(
                name="identity-rate",
                kind=Kind.RATE,
                per=frozenset({"identity"}),
                amount=100,
                burst=20,
            ),
        ),
        (
            "per=skill+tenant units=5000/m methods=shop.* name=tokens",
            Rule(
                name="tokens",
                kind=Kind.UNITS,
                per=frozenset({"skill", "tenant"}),
                amount=5000,
                period=60,
                methods="shop.*",
            ),
        ),
        (
            "per=all concurrent=7",
            Rule(name="all-concurrent", kind=Kind.CONCURRENT, per=frozenset(), amount=7),
        ),
    ],
)
def test_a_rule_is_a_few_words(text: str, rule: Rule) -> None:
    assert parse(f"{text};\n") == (rule,)


def test_rules_of_a_kind_are_told_apart() -> None:
    names = [rule.name for rule in parse("per=all rate=1/s; per=all rate=9/m; per=all rate=20/h")]
    assert names == ["all-rate", "all-rate-2", "all-rate-3"]


@pytest.mark.parametrize(
    "text",
    [
        "rate=1/s",
        "per=identity",
        "per=identity rate=1",
        "per=identity rate=1/w",
        "per=identity rate=0/s",
        "per=planet rate=1/s",
        "per=all rate=1/s concurrent=2",
        "per=all concurrent=0",
        "per=all concurrent=-1",
        "per=all rate=1/s burst=x",
        "per=all rate=1/s rate=2/s",
        "per=all rate=1/s colour=red",
        'per=all rate=1/s name=a"b',
        "per=all rate",
    ],
)
def test_a_rule_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must|give"):
        parse(text)


def test_of_full_buckets_the_emptiest_are_forgotten(clock: Any) -> None:
    buckets = Buckets(capacity=10)
    for number in range(1, 12):
        buckets.add(f"k{number}", clock.now, number)
    assert len(buckets) == 10
    assert buckets.level("k1", clock.now) == 0
    assert buckets.level("k11", clock.now) == 11
    clock.advance(20)
    buckets.add("new", clock.now, 1)
    assert buckets.level("k11", clock.now) == 0


@pytest.mark.parametrize(
    ("rules", "seconds", "admitted"),
    [
        ("per=identity rate=10/s burst=5", 0, 5),
        ("per=identity rate=10/s burst=5", 0.3, 5 + 3),
        ("per=identity rate=10/s", 0, 1),
        ("per=identity rate=600/m burst=3", 0.1, 3 + 1),
        ("per=identity rate=1/d burst=2", 0, 2),
        ("per=identity rate=9/s burst=9; per=all rate=4/s burst=4", 0, 4),
        ("per=identity rate=1/s methods=other.*", None, None),
    ],
)
async def test_a_rate_admits_its_burst_and_then_its_rate(
    clock: Any, rules: str, seconds: float | None, admitted: int | None
) -> None:
    limited = Limited(rules, clock)
    if seconds is None:
        assert limited.limits.plan(PATH) is None
        return
    count = await limited.admits(20)
    if seconds:
        clock.advance(seconds)
        count += await limited.admits(20)
    assert count == admitted


@pytest.mark.parametrize(
    ("per", "other", "shares"),
    [
        ("identity", ("bob", ""), False),
        ("identity", ("ann", "acme"), False),
        ("tenant", ("bob", ""), True),
        ("tenant", ("ann", "acme"), False),
        ("skill", ("bob", "acme"), True),
        ("skill", ("ann", "", "/shop.v1.Shop/Look"), False),
        ("all", ("bob", "acme", "/shop.v1.Shop/Look"), True),
        ("identity+skill", ("ann", "", "/shop.v1.Shop/Look"), False),
    ],
)
async def test_who_is_counted_together(
    clock: Any, per: str, other: tuple[str, ...], *, shares: bool
) -> None:
    limited = Limited(f"per={per} rate=1/m", clock)
    assert await limited.admits(2) == 1
    assert await limited.admits(1, *other) == (0 if shares else 1)


async def test_a_refusal_says_when_and_why(clock: Any) -> None:
    limited = Limited("per=identity rate=30/m burst=2", clock)
    assert await limited.admits(2) == 2
    with pytest.raises(LimitReached) as refused:
        await limited.enter()
    error = refused.value
    assert error.retry_after == timedelta(seconds=2)
    assert error.metadata == {"limit": "identity-rate"}
    assert limited.refused == ["identity-rate"]
    assert limited.headers == {
        "ratelimit-policy": '"identity-rate";q=30;w=60',
        "ratelimit": '"identity-rate";r=0;t=4',
    }
    kinds = [type(detail).__name__ for detail in error.details]
    assert sorted(kinds) == ["QuotaFailure", "RetryInfo"]


async def test_calls_at_a_time(clock: Any) -> None:
    limited = Limited("per=identity concurrent=2", clock)
    first, second = await limited.enter(), await limited.enter()
    assert limited.headers["ratelimit"] == '"identity-concurrent";r=0'
    with pytest.raises(LimitReached):
        await limited.enter()
    first.done()
    first.done()
    third = await limited.enter()
    with pytest.raises(LimitReached):
        await limited.enter()
    for entry in (second, third):
        entry.done()
    assert await limited.admits(9) == 9


@pytest.mark.parametrize(
    ("declared", "told", "left"),
    [
        (0, None, 99),
        (0, 40, 60),
        (30, None, 70),
        (30, 10, 90),
        (30, 60, 40),
        (30, 0, 100),
        (0, 300, 0),
    ],
)
async def test_units_are_what_the_agent_says_else_the_option(
    clock: Any, declared: int, told: int | None, left: int
) -> None:
    limited = Limited("per=identity units=100/h burst=100", clock, units=declared)
    entry = await limited.enter()
    entry.done(told)
    if not left:
        with pytest.raises(LimitReached) as refused:
            await limited.enter()
        assert refused.value.retry_after > timedelta(hours=2)
        return
    (await limited.enter()).done()
    assert limited.headers["ratelimit"].startswith(f'"identity-units";r={left - max(1, declared)};')


@pytest.mark.parametrize(
    ("trailing", "units"),
    [
        ((), None),
        ((("weft-units", "12"),), 12),
        ((("weft-units", "-1"),), None),
        ((("weft-units", "1e9"),), None),
        ((("weft-units", "9" * 13),), None),
    ],
)
def test_units_in_metadata(trailing: Any, units: float | None) -> None:
    assert units_in(trailing) == units


async def test_a_skill_brings_limits_of_its_own(clock: Any) -> None:
    limits = (
        SkillLimit(scope=LIMIT_SCOPE_IDENTITY, rate=0.5, burst=3),
        SkillLimit(concurrent=50),
    )
    limited = Limited("", clock, limits=limits)
    assert await limited.admits(9) == 3
    assert limited.headers["ratelimit-policy"] == (
        '"skill-identity-rate";q=5;w=10, "skill-concurrent";q=50;qu="concurrent-requests"'
    )
    assert await limited.admits(9, "bob") == 3
    assert limited.limits.plan("/shop.v1.Shop/Look") is None


@pytest.fixture
async def pair(redis_url: str) -> AsyncIterator[list[SharedLimits]]:
    """Two gateways' ends of one Redis."""
    made = [SharedLimits(redis_url) for _ in range(2)]
    yield made
    for one in made:
        await one.close()


async def test_two_gateways_share_a_rate(pair: list[SharedLimits], clock: Any) -> None:
    rules = "per=identity rate=20/h burst=20; per=all rate=1000/s burst=1000"
    sides = [Limited(rules, clock, shared) for shared in pair]
    counts = await asyncio.gather(*(side.admits(30) for side in sides))
    assert sum(counts) == 20
    assert min(counts) > 0


async def test_a_gateway_learns_that_all_is_taken(pair: list[SharedLimits], clock: Any) -> None:
    sides = [Limited("per=identity rate=20/h burst=20", clock, shared) for shared in pair]
    assert await sides[0].admits(20) == 20
    assert await sides[1].admits(1) == 0
    asked: list[Any] = []
    pair[1].take = asked.append  # type: ignore[method-assign,assignment]  it must not be asked again
    assert await sides[1].admits(1) == 0
    assert not asked


class Counting(SharedLimits):
    """Notes for how many calls it is asked, by what they put into the first bucket."""

    def __init__(self, url: str, interval: float) -> None:
        super().__init__(url)
        self.interval = interval
        self.asked: list[int] = []

    async def take(self, steps: Any) -> Any:
        self.asked.append(round(steps[0][4] / self.interval))
        return await super().take(steps)


@pytest.fixture
async def counting(redis_url: str) -> AsyncIterator[Counting]:
    shared = Counting(redis_url, 1 / 10_000)
    yield shared
    await shared.close()


async def test_redis_is_asked_for_as_many_calls_as_came_before(
    counting: Counting, clock: Any
) -> None:
    side = Limited("per=identity rate=10000/s", clock, counting)
    assert await side.admits(20) == 20
    assert counting.asked == [1] * 20  # nothing is known of the caller
    counting.asked.clear()
    clock.advance(0.011)
    await asyncio.gather(*(side.admits(1) for _ in range(20)))
    assert counting.asked == [20]
    assert await side.admits(1) == 1
    assert counting.asked == [20, 20]
    clock.advance(0.011)  # what is left is lost
    assert await side.admits(1) == 1
    assert counting.asked == [20, 20, 21]
    clock.advance(5)
    assert await side.admits(1) == 1
    assert counting.asked == [20, 20, 21, 1]


@pytest.mark.parametrize(
    ("rules", "most"),
    [
        ("per=all rate=10000/s", 100),  # a hundredth of a second's worth
        ("per=all rate=10000/s burst=40", 10),  # a quarter of the burst
        ("per=all rate=199/s", 1),
        ("per=all rate=10000/s; per=identity rate=100/s", 1),
        ("per=all rate=10000/s; per=identity concurrent=100", 1),
        ("per=all units=10000/s", 20),
    ],
)
async def test_how_much_is_taken_at_once(
    rules: str, most: int, counting: Counting, clock: Any
) -> None:
    counting.interval = parse(rules)[0].interval * (5 if "units" in rules else 1)
    side = Limited(rules, clock, counting, units=5)
    await side.admits(110)
    await asyncio.sleep(0.1)  # by the clock of Redis: its buckets run empty
    clock.advance(0.011)
    counting.asked.clear()
    await side.admits(1)
    assert counting.asked == [most]


async def test_gateways_never_admit_more_than_redis_counts(pair: list[SharedLimits]) -> None:
    sides = [Limited("per=all rate=4000/s", time.monotonic, shared) for shared in pair]
    began = time.monotonic()

    async def hammer(side: Limited) -> int:
        count = 0
        while time.monotonic() < began + 0.3:
            count += sum(await asyncio.gather(*(side.admits(1) for _ in range(20))))
            await asyncio.sleep(0)
        return count

    admitted = sum(await asyncio.gather(*map(hammer, sides)))
    assert admitted <= 160 + 4000 * (time.monotonic() - began)


async def test_who_waits_for_others_to_ask_asks_where_they_fail(
    counting: Counting, clock: Any
) -> None:
    side = Limited("per=identity rate=10000/s", clock, counting)
    await side.admits(5)
    clock.advance(0.011)
    first = asyncio.create_task(side.enter())
    others = [asyncio.create_task(side.enter()) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    for entry in await asyncio.gather(*others):
        entry.done()
    assert first.cancelled() or (await first) is not None


async def test_who_waited_is_served_of_what_was_taken_however_late(
    counting: Counting, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = Limited("per=identity rate=10000/s", clock, counting)
    await side.admits(5)
    clock.advance(0.011)
    counting.asked.clear()
    take = counting.take

    async def late(steps: Any) -> Any:
        answer = await take(steps)
        clock.advance(0.02)
        return answer

    monkeypatch.setattr(counting, "take", late)
    for entry in await asyncio.gather(*(side.enter() for _ in range(4))):
        entry.done()
    assert counting.asked == [5]
    assert await side.admits(1) == 1  # the fifth is lost
    assert len(counting.asked) == 2


async def test_more_that_wait_than_came_before_are_asked_for_together(
    counting: Counting, clock: Any
) -> None:
    side = Limited("per=identity rate=10000/s", clock, counting)
    await side.admits(2)
    clock.advance(0.011)
    counting.asked.clear()
    for entry in await asyncio.gather(*(side.enter() for _ in range(10))):
        entry.done()
    assert counting.asked == [2, 8]


async def test_where_several_calls_are_refused_each_asks_for_itself(
    counting: Counting, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = Limited("per=identity rate=10000/s", clock, counting)
    await side.admits(5)
    clock.advance(0.011)
    counting.asked.clear()
    take = counting.take

    async def scarce(steps: Any) -> Any:
        answer = await take(steps)
        return answer if counting.asked[-1] == 1 else (False, answer[1])

    monkeypatch.setattr(counting, "take", scarce)
    for entry in await asyncio.gather(*(side.enter() for _ in range(4))):
        entry.done()
    assert counting.asked == [5, 1, 1, 1, 1]


async def test_two_gateways_share_places(pair: list[SharedLimits], clock: Any) -> None:
    one, two = (Limited("per=skill concurrent=3", clock, shared) for shared in pair)
    held = [await one.enter(), await two.enter("bob"), await one.enter("eve")]
    for side in (one, two):
        with pytest.raises(LimitReached):
            await side.enter()
    held[0].done()

    async def free() -> bool:
        return await two.admits(1) == 1

    await wait_until(free)


async def test_places_of_a_gateway_that_died_are_free_again(
    pair: list[SharedLimits], redis_url: str
) -> None:
    step = pair[0].place("k", 1)
    dying = ("hold", "k", 1, 0.05, step[4])
    assert await pair[0].take([dying]) == (True, [0.0])
    assert (await pair[1].take([pair[1].place("k", 1)])) == (False, [1.0])

    async def free() -> bool:
        taken = await pair[1].take([pair[1].place("k", 1)])
        return taken is not None and taken[0]

    await wait_until(free)
    async with embedded.redis_client(redis_url) as client:
        assert 0 < await client.ttl("weft:limits:k") <= 31


async def test_a_place_is_kept_while_it_is_held(pair: list[SharedLimits], redis_url: str) -> None:
    step = pair[0].place("k", 1)
    await pair[0].take([("hold", "k", 1, 5.0, step[4])])
    pair[0].tell(("renew", "k", 500.0, step[4]))
    pair[0].tell(("renew", "k", 500.0, "somebody else"))
    await pair[0].take([("rate", "other", 1.0, 1.0, 0.0)])
    async with embedded.redis_client(redis_url) as client:
        assert await client.ttl("weft:limits:k") > 400
        assert await client.zcard("weft:limits:k") == 1


async def test_units_are_settled_for_all(pair: list[SharedLimits], clock: Any) -> None:
    one, two = (Limited("per=identity units=100/h burst=100", clock, side) for side in pair)
    (await one.enter()).done(250)

    async def learnt() -> bool:
        return await two.admits(1) == 0

    await wait_until(learnt)


async def test_nothing_is_taken_of_one_limit_where_another_refuses(
    pair: list[SharedLimits], clock: Any
) -> None:
    one, two = (
        Limited("per=identity rate=1/h burst=5; per=tenant concurrent=1", clock, side)
        for side in pair
    )
    entry = await one.enter()
    assert await two.admits(20) == 0
    entry.done()

    async def four_more() -> bool:
        return await two.admits(9) == 4

    await wait_until(four_more)


async def test_where_redis_is_away_each_keeps_limits_by_itself(clock: Any) -> None:
    away: list[int] = []
    shared = SharedLimits("redis://127.0.0.1:1/0", on_away=lambda: away.append(1))
    limited = Limited("per=identity rate=1/h burst=5; per=all concurrent=1", clock, shared)
    assert await limited.admits(20) == 5
    assert len(away) == 5
    entry = await limited.enter("bob")
    with pytest.raises(LimitReached):
        await limited.enter("eve")
    entry.done()
    await shared.close()


async def test_a_caller_that_hangs_up_while_redis_is_asked_leaves_no_place_taken(
    pair: list[SharedLimits], clock: Any
) -> None:
    limited = Limited("per=all concurrent=1", clock, pair[0])
    asking = asyncio.create_task(limited.enter())
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    async def free() -> bool:
        return await limited.admits(1) == 1

    await wait_until(free)
    assert not limited.limits._places
