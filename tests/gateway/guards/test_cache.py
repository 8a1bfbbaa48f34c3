"""Answers kept for a while."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from weft import rpc
from weft.gateway.failures import AgentUnavailable
from weft.gateway.guards.cache import CacheSettings, ResponseCache
from weft.gateway.guards.circuit import CircuitOpen
from weft.gateway.metadata import Beside
from weft.gateway.transcoding.catalog import Catalog, Contract, Method
from weft.rpc.call import IDENTITY_KEY, Call
from weft.v1.identity_pb2 import Identity


@pytest.fixture(scope="module")
def methods(shop_set: bytes) -> dict[str, Method]:
    found = Catalog([Contract(agent="shop", descriptor_set=shop_set)]).methods
    return {method.name: method for method in found.values()}


class Asked:
    """A cache before an agent that answers with a number."""

    def __init__(self, methods: dict[str, Method], clock: Any, **settings: Any) -> None:
        self.uses: list[str] = []
        self.cache = ResponseCache(
            CacheSettings(**settings), on_use=lambda _, use: self.uses.append(use), clock=clock
        )
        self.methods = methods
        self.cache.use({method.path: method for method in methods.values()})
        self.calls = 0
        self.fails: rpc.Error | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.size = 0
        self.headers: dict[str, str] = {}
        self.beside = Beside()

    async def make(self) -> tuple[bytes, Beside]:
        self.calls += 1
        number = self.calls
        await self.go_on.wait()
        if self.fails is not None:
            raise self.fails
        return b"%d" % number + b"x" * self.size, Beside(leading=(("shelf", str(number)),))

    async def ask(
        self,
        request: bytes = b"",
        *,
        method: str = "Price",
        who: str = "ann",
        tenant: str = "",
        control: bytes = b"",
        sent: Any = (),
        seconds: float = 5,
    ) -> str:
        policy = self.cache.policy(self.methods[method].path)
        assert policy is not None
        entry = (IDENTITY_KEY, Identity(subject=who, tenant=tenant).SerializeToString())
        call = Call.at_door(policy.path, (), rpc.Deadline.after_seconds(seconds), entry)
        headers: list[tuple[bytes, bytes]] = []
        self.beside = Beside(sent=sent)
        response = await self.cache.answer(
            policy,
            call,
            request,
            beside=self.beside,
            headers=headers,
            control=control,
            make=self.make,
        )
        self.headers = {name.decode(): value.decode() for name, value in headers}
        return response.rstrip(b"x").decode()


@pytest.fixture
def asked(methods: dict[str, Method], clock: Any) -> Asked:
    return Asked(methods, clock)


def test_only_what_has_a_ttl_and_no_effects_is_kept(
    asked: Asked, methods: dict[str, Method]
) -> None:
    kept = {name for name, method in methods.items() if asked.cache.policy(method.path)}
    assert kept == {"Price", "Menu"}


async def test_an_answer_is_kept_for_its_time(asked: Asked, clock: Any) -> None:
    assert await asked.ask() == "1"
    clock.advance(4.9)
    assert await asked.ask() == "1"
    assert asked.headers["age"] == "4"
    assert asked.headers["cache-control"] == "private, max-age=5"
    assert asked.beside.leading == (("shelf", "1"),)
    tag = asked.headers["etag"]
    clock.advance(0.2)
    assert await asked.ask() == "2"
    assert asked.headers["age"] == "0"
    assert asked.headers["etag"] != tag
    assert asked.uses == ["miss", "hit", "miss"]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"who": "bob"}, False),
        ({"tenant": "acme"}, False),
        ({"request": b"\x0a\x01b"}, False),
        ({"sent": (("lang", "de"),)}, False),
        ({"sent": (("cache-control", "max-age=60"),)}, True),
        ({"method": "Menu"}, False),
    ],
)
async def test_an_answer_belongs_to_who_asked_and_what(
    asked: Asked, other: dict[str, Any], *, same: bool
) -> None:
    await asked.ask()
    assert await asked.ask(**other) == ("1" if same else "2")


async def test_an_answer_for_all_is_for_all(asked: Asked) -> None:
    assert await asked.ask(method="Menu") == "1"
    assert await asked.ask(method="Menu", who="bob", tenant="acme") == "1"
    assert asked.headers["cache-control"] == "public, max-age=60"


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (b"\x0a\x01a\x10\x05", b"\x10\x05\x0a\x01a", True),  # fields in another order
        (b"\x0a\x01a", b"\x0a\x01b\x0a\x01a", True),  # the last value counts
        (b"\x0a\x01a\x10\x00", b"\x0a\x01a", True),  # a default that is spelt out
        (b"\x0a\x01a\x78\x01", b"\x0a\x01a", False),  # a field nobody here knows
        (b"\xff", b"\xfe", False),  # no message
    ],
)
async def test_equal_requests_have_one_form(
    asked: Asked, one: bytes, two: bytes, *, same: bool
) -> None:
    await asked.ask(one)
    assert await asked.ask(two) == ("1" if same else "2")


@pytest.mark.parametrize(
    ("control", "answers"),
    [
        (b"no-cache", ["2", "2"]),
        (b"max-age=0", ["2", "2"]),
        (b"Max-Age=2", ["2", "2"]),
        (b"max-age=60", ["1", "1"]),
        (b"no-store", ["2", "1"]),
    ],
)
async def test_a_caller_may_ask_the_agent(
    asked: Asked, clock: Any, control: bytes, answers: list[str]
) -> None:
    await asked.ask()
    clock.advance(3)
    assert [await asked.ask(control=control), await asked.ask()] == answers


async def test_equal_questions_at_a_time_are_asked_once(asked: Asked) -> None:
    asked.go_on.clear()
    asking = [asyncio.create_task(asked.ask()) for _ in range(50)]
    await asyncio.sleep(0.01)
    asked.go_on.set()
    assert {await one for one in asking} == {"1"}
    assert sorted(set(asked.uses)) == ["joined", "miss"]


async def test_who_asked_first_may_hang_up(asked: Asked) -> None:
    asked.go_on.clear()
    first, second = (asyncio.create_task(asked.ask()) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    asked.go_on.set()
    assert await second == "1"
    assert first.cancelled()


async def test_a_call_nobody_waits_for_is_given_up(asked: Asked) -> None:
    before = asyncio.all_tasks()
    asked.go_on.clear()
    asking = asyncio.create_task(asked.ask())
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before
    asked.go_on.set()
    assert await asked.ask() == "2"


async def test_whose_time_is_over_does_not_wait_for_others(asked: Asked) -> None:
    asked.go_on.clear()
    first = asyncio.create_task(asked.ask())
    await asyncio.sleep(0.01)
    with pytest.raises(rpc.DeadlineExceeded):
        await asked.ask(seconds=0.02)
    asked.go_on.set()
    assert await first == "1"


async def test_a_failure_is_not_kept(asked: Asked) -> None:
    asked.fails = rpc.NotFound()
    with pytest.raises(rpc.NotFound):
        await asked.ask()
    asked.fails = None
    assert await asked.ask() == "2"


@pytest.mark.parametrize(
    ("failed", "after", "stale"),
    [
        (CircuitOpen("no"), 6, True),
        (AgentUnavailable(), 6, True),
        (CircuitOpen("no"), 5 + 61, False),
        (rpc.NotFound(), 6, False),
        (rpc.Unavailable(), 6, False),
    ],
)
async def test_an_old_answer_stands_in_for_an_agent_that_is_away(
    methods: dict[str, Method], clock: Any, failed: rpc.Error, after: float, *, stale: bool
) -> None:
    asked = Asked(methods, clock, stale=timedelta(minutes=1))
    await asked.ask()
    clock.advance(after)
    asked.fails = failed
    if not stale:
        with pytest.raises(type(failed)):
            await asked.ask()
        return
    assert await asked.ask() == "1"
    assert asked.headers["weft-stale"] == "true"
    assert asked.headers["warning"].startswith("111 ")
    assert asked.headers["age"] == str(int(after))
    asked.fails = None
    assert await asked.ask() == "3"
    assert "weft-stale" not in asked.headers


async def test_the_least_used_answer_makes_room(methods: dict[str, Method], clock: Any) -> None:
    asked = Asked(methods, clock, max_bytes=20_000)
    asked.size = 1_000
    for number in range(12):
        await asked.ask(b"\x10%c" % (number + 1))
    assert await asked.ask(b"\x10\x01") == "1"
    await asked.ask(b"\x10\x7f")
    assert await asked.ask(b"\x10\x01") == "1"
    assert await asked.ask(b"\x10\x02") == "14"
    assert asked.cache.bytes <= 20_000


async def test_what_is_too_large_is_not_kept(methods: dict[str, Method], clock: Any) -> None:
    asked = Asked(methods, clock, max_bytes=20_000)
    asked.size = 5_000
    assert [await asked.ask(), await asked.ask()] == ["1", "2"]
    assert asked.cache.bytes == 0


def test_a_cache_may_be_off(methods: dict[str, Method], clock: Any) -> None:
    asked = Asked(methods, clock, max_bytes=0)
    assert asked.cache.policy(methods["Price"].path) is None


async def test_new_contracts_forget_answers(asked: Asked) -> None:
    await asked.ask()
    asked.cache.use({method.path: method for method in asked.methods.values()})
    assert await asked.ask() == "2"
