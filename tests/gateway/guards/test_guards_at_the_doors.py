"""Limits, cache, second attempts and breakers as callers meet them, by HTTP and by gRPC, at two gateways."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import Any

import grpc
import httpx
import pytest

from weft import rpc
from weft.agents import Host
from weft.agents.llm import Model, ModelEntry, Models, preset
from weft.gateway import Gateway
from weft.gateway.guards import BreakerSettings, limit_rules
from weft.gateway.guards.key_store import KeyStore
from weft.postgres import Database
from weft.registry import Registry
from weft.rpc.testing import wait_until
from weft.testing.messages_server import MessagesServer, scenarios

C = grpc.StatusCode
SERVICE = "/test.shop.v1.ShopService"


class Shop:
    """What the agent does, as a test tells it.

    Attributes:
        calls: how often each method was called.
        failing: raised instead of an answer, as often as it is there.
        down: raised by every call.
        units: what a call of Buy says it cost.
        model: what Buy and Watch ask; None: nobody.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.failing: list[rpc.Error] = []
        self.down: rpc.Error | None = None
        self.slow: list[float] = []
        self.units = ""
        self.model: Model | None = None
        self.go_on = asyncio.Event()

    async def serve(self, method: str) -> int:
        self.calls[method] += 1
        if self.model is not None:
            await self.model.generate("hello")
        if self.down is not None:
            raise self.down
        if self.failing:
            raise self.failing.pop()
        if self.slow:
            await asyncio.sleep(self.slow.pop())
        return self.calls[method]


def servicer(shop: tuple[ModuleType, ModuleType], told: Shop) -> Any:
    messages, services = shop

    class Servicer(services.ShopServiceServicer):
        async def Price(self, request, context):
            return messages.PriceResponse(price=await told.serve("Price"))

        async def Menu(self, request, context):
            return messages.PriceResponse(price=await told.serve("Menu"))

        async def Look(self, request, context):
            return messages.PriceResponse(price=await told.serve("Look"))

        async def Buy(self, request, context):
            if told.units:
                context.set_trailing_metadata((("weft-units", told.units),))
            return messages.PriceResponse(price=await told.serve("Buy"))

        async def Watch(self, request, context):
            yield messages.PriceResponse(price=await told.serve("Watch"))
            await told.go_on.wait()

    return Servicer()


@dataclass(kw_only=True)
class Town:
    shop: Shop
    gateways: list[Gateway]
    http: list[httpx.AsyncClient]
    grpc: grpc.aio.Channel
    database_url: str
    messages: ModuleType

    async def by_grpc(self, method: str, item: str = "a", **further: Any) -> Any:
        call = self.grpc.unary_unary(
            f"{SERVICE}/{method}", response_deserializer=self.messages.PriceResponse.FromString
        )
        request = self.messages.PriceRequest(item=item).SerializeToString()
        running = call(request, timeout=10, **further)
        answer = await running
        trailing = {str(key): value for key, value in await running.trailing_metadata()}
        return answer.price, trailing


@contextlib.asynccontextmanager
async def town(shop, database_url: str, redis_url: str, *, count: int = 1, **further: Any):
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        registry = await enter(
            Registry(database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0))
        )
        host = await enter(Host(registry=registry.address))
        told = Shop()
        host.add(servicer(shop, told))
        await host.start()
        gateways, clients = [], []
        for _ in range(count):
            gateway = await enter(
                Gateway(
                    registry=registry.address,
                    database_url=database_url,
                    redis_url=redis_url,
                    listen="127.0.0.1:0",
                    grpc_listen="127.0.0.1:0",
                    **further,
                )
            )
            gateways.append(gateway)
            client = await enter(httpx.AsyncClient(base_url=gateway.url, timeout=20))
            clients.append(client)

            async def served(client: httpx.AsyncClient = client) -> bool:
                return (await client.get("/v1/look/ready")).status_code not in {404, 503}

            await wait_until(served)
        told.calls.clear()
        channel = await enter(grpc.aio.insecure_channel(gateways[0].grpc_address))
        yield Town(
            shop=told,
            gateways=gateways,
            http=clients,
            grpc=channel,
            database_url=database_url,
            messages=shop[0],
        )
        told.go_on.set()


Made = Callable[..., Any]


@pytest.fixture
async def make(fresh_xds, shop, database_url: str, redis_url: str) -> AsyncIterator[Made]:
    async with contextlib.AsyncExitStack() as stack:

        async def made(**further: Any) -> Town:
            return await stack.enter_async_context(town(shop, database_url, redis_url, **further))

        yield made


async def test_fifty_a_second_by_two_gateways(make: Made) -> None:
    """The burst makes up for a machine that stands still now and then; `tests/faults/limits.py` is exact."""
    found: Town = await make(
        count=2, limits=limit_rules.parse("per=identity rate=50/s burst=50 methods=*/Look")
    )
    codes: Counter[int] = Counter()
    began = time.monotonic()

    async def press(client: httpx.AsyncClient) -> None:
        while time.monotonic() < began + 3:
            codes[(await client.get("/v1/look/a")).status_code] += 1

    await asyncio.gather(*(press(client) for client in found.http for _ in range(4)))
    assert set(codes) == {200, 429}
    seconds = time.monotonic() - began
    assert 47.5 * seconds <= codes[200] <= 50 + 52.5 * seconds


async def test_a_refusal_at_each_door(make: Made) -> None:
    rules = limit_rules.parse("per=skill rate=2/h burst=2 methods=*/Price")
    found: Town = await make(limits=rules)
    (http,) = found.http
    first = await http.get("/v1/prices/a")
    assert first.headers["ratelimit"] == '"skill-rate";r=1;t=1800'
    await http.get("/v1/prices/b")
    refused = await http.get("/v1/prices/c")
    assert refused.status_code == 429
    assert 1795 <= int(refused.headers["retry-after"]) <= 1800
    assert refused.headers["ratelimit-policy"] == '"skill-rate";q=2;w=3600'
    assert refused.headers["ratelimit"].startswith('"skill-rate";r=0;t=3')
    error = refused.json()["error"]
    assert error["status"] == "RESOURCE_EXHAUSTED"
    assert error["details"][0]["reason"] == "RATE_LIMITED"
    connect = await http.post(f"{SERVICE}/Price", json={})
    assert (connect.status_code, connect.json()["code"]) == (429, "resource_exhausted")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await found.by_grpc("Price")
    told = rpc.error_from_call(failed.value)
    assert failed.value.code() is C.RESOURCE_EXHAUSTED
    assert told.retry_after > timedelta(minutes=29)
    assert found.shop.calls["Price"] == 2


async def test_an_agent_says_what_a_call_cost(make: Made) -> None:
    found: Town = await make()
    (http,) = found.http
    found.shop.units = "40"
    assert (await http.post("/v1/shop:buy", json={})).status_code == 200
    price, trailing = await found.by_grpc("Buy")
    assert price == 2
    assert trailing["weft-units"] == "40"
    said = await http.post("/v1/shop:buy", json={})
    assert said.headers["ratelimit"].startswith('"skill-identity-units";r=19;')
    assert (await http.post("/v1/shop:buy", json={})).status_code == 429


async def test_tokens_are_what_a_call_cost(make: Made) -> None:
    found: Town = await make()
    (http,) = found.http
    async with MessagesServer() as server:
        said = scenarios.text("hi").with_usage(input_tokens=30, output_tokens=10)
        server.always("any", said)
        endpoint = preset("claude", url=server.url)
        models = Models({"shop": ModelEntry(endpoint=endpoint, model="any")})
        found.shop.model = models["shop"]
        _, trailing = await found.by_grpc("Buy")
        assert trailing["weft-units"] == "40"
        # They count where the call fails, too: they were spent.
        found.shop.failing.append(rpc.FailedPrecondition("no"))
        assert (await http.post("/v1/shop:buy", json={})).status_code == 400
        # What the agent says goes before.
        found.shop.units = "5"
        _, trailing = await found.by_grpc("Buy")
        assert trailing["weft-units"] == "5"
        last = await http.post("/v1/shop:buy", json={})
        assert last.headers["ratelimit"].startswith('"skill-identity-units";r=14;')
        # A stream says so at its end.
        found.shop.go_on.set()
        watching = found.grpc.unary_stream(f"{SERVICE}/Watch")(b"", timeout=10)
        assert len([message async for message in watching]) == 1
        assert ("weft-units", "40") in tuple(await watching.trailing_metadata())
        await models.close()


async def test_an_agent_says_what_a_job_cost(make: Made) -> None:
    found: Town = await make()
    (http,) = found.http
    found.shop.units = "40"
    begun = await http.post("/v1/shop:buy", json={}, headers={"prefer": "respond-async"})
    assert begun.status_code == 202

    async def ended() -> bool:
        job = await http.get(begun.headers["location"])
        return "SUCCEEDED" in job.json()["state"]

    await wait_until(ended)
    found.shop.units = ""
    said = await http.post("/v1/shop:buy", json={})
    assert said.headers["ratelimit"].startswith('"skill-identity-units";r=59;')


async def test_a_replay_costs_nothing(make: Made) -> None:
    found: Town = await make()
    (http,) = found.http
    found.shop.units = "90"
    headers = {"idempotency-key": "once"}
    left = []
    for _ in range(4):
        said = await http.post("/v1/shop:buy", json={}, headers=headers)
        assert said.json() == {"price": 1}
        left.append(said.headers["ratelimit"].partition(";t=")[0])
    assert said.headers["idempotency-replayed"] == "true"
    assert left[1:] == ['"skill-identity-units";r=9'] * 3


async def test_streams_hold_their_places(make: Made) -> None:
    found: Town = await make()
    (http,) = found.http
    async with http.stream("POST", "/v1/shop:watch", json={}) as first:
        lines = first.aiter_lines()
        await anext(lines)
        assert (await http.post("/v1/shop:watch", json={})).status_code == 429
        stream = found.grpc.unary_stream(f"{SERVICE}/Watch")(b"", timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
        assert refused.value.code() is C.RESOURCE_EXHAUSTED
        found.shop.go_on.set()
        assert [line async for line in lines]

    async def free() -> bool:
        return (await http.post("/v1/shop:watch", json={})).status_code == 200

    await wait_until(free)


async def test_a_kept_answer_at_each_door(make: Made) -> None:
    found: Town = await make()
    (http,) = found.http
    first = await http.get("/v1/prices/a")
    assert first.headers["age"] == "0"
    assert first.headers["cache-control"] == "private, max-age=5"
    assert first.json() == {"price": 1}
    tag = first.headers["etag"]
    again = await http.get("/v1/prices/a", headers={"if-none-match": f'"x", {tag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == tag
    other = await http.get("/v1/prices/a", headers={"if-none-match": '"x"'})
    assert (other.status_code, other.json()) == (200, {"price": 1})
    connect = await http.post(f"{SERVICE}/Price", json={"item": "a"})
    assert connect.json() == {"price": 1}
    price, trailing = await found.by_grpc("Price")
    assert price == 1
    assert "age" in trailing
    fresh = await http.get(
        "/v1/prices/a", headers={"cache-control": "no-cache", "if-none-match": tag}
    )
    assert (fresh.status_code, fresh.json()) == (200, {"price": 2})
    price, _ = await found.by_grpc("Price", metadata=(("cache-control", "no-cache"),))
    assert price == 3
    many = await asyncio.gather(*(http.get("/v1/prices/b") for _ in range(20)))
    assert {one.json()["price"] for one in many} == {4}
    for _ in range(2):
        bought = await http.post("/v1/shop:buy", json={})
        assert "etag" not in bought.headers
    assert found.shop.calls == {"Price": 4, "Buy": 2}


async def test_an_old_answer_while_the_circuit_is_open(make: Made) -> None:
    found: Town = await make()
    (http,) = found.http
    await http.get("/v1/prices/a")
    for name in ("Price", "Look"):
        held = {"agent": "shop", "method": name, "state": "open"}
        assert (await http.post("/breakers:hold", json=held)).status_code == 200
    stale = await http.get("/v1/prices/a", headers={"cache-control": "no-cache"})
    assert stale.json() == {"price": 1}
    assert stale.headers["weft-stale"] == "true"
    assert stale.headers["warning"] == '111 weft "Revalidation Failed"'
    none = await http.get("/v1/prices/b")
    assert none.status_code == 503
    info = none.json()["error"]["details"][0]
    assert info["reason"] == "CIRCUIT_OPEN"
    assert info["metadata"]["fallback_text"] == "Ask at the counter."
    assert info["metadata"]["held"] == "true"
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await found.by_grpc("Price", "b")
    told = rpc.error_from_call(failed.value)
    assert told.metadata["fallback_text"] == "Ask at the counter."
    other = await http.get("/v1/look/a")
    assert "fallback_text" not in other.json()["error"]["details"][0]["metadata"]


@pytest.mark.parametrize("door", ["rest", "grpc"])
async def test_what_may_run_twice_is_tried_again_and_nothing_else(make: Made, door: str) -> None:
    found: Town = await make()
    (http,) = found.http
    found.shop.failing = [rpc.Unavailable()] * 2
    if door == "rest":
        assert (await http.get("/v1/look/a")).json() == {"price": 3}
    else:
        assert (await found.by_grpc("Look"))[0] == 3
    found.shop.failing = [rpc.Unavailable()] * 2
    if door == "rest":
        assert (await http.post("/v1/shop:buy", json={})).status_code == 503
    else:
        with pytest.raises(grpc.aio.AioRpcError):
            await found.by_grpc("Buy")
    assert found.shop.calls["Buy"] == 1


async def test_an_agent_that_fails_is_asked_a_tenth_more(make: Made) -> None:
    # By gRPC's own attempts, or both kinds on top of each other, it would be asked 4 or 16 times as often.
    found: Town = await make(breaker=BreakerSettings(minimum_calls=1_000))
    (http,) = found.http
    found.shop.down = rpc.Unavailable()
    for _ in range(150):
        assert (await http.get("/v1/look/a")).status_code == 503
    assert 150 + 10 <= found.shop.calls["Look"] <= 150 + 10 + 15


async def test_a_slow_call_is_made_twice(make: Made) -> None:
    found: Town = await make()
    (http,) = found.http
    found.shop.slow = [5.0]
    began = time.monotonic()
    assert (await http.get("/v1/look/a")).json() == {"price": 2}
    assert time.monotonic() - began < 2


async def test_breakers_are_seen_and_held_by_all_gateways(make: Made) -> None:
    found: Town = await make(count=2, breaker=BreakerSettings(minimum_calls=3))
    one, two = found.http
    found.shop.down = rpc.Internal()
    for _ in range(3):
        await one.post("/v1/shop:buy", json={})

    async def state(client: httpx.AsyncClient, method: str) -> Any:
        listed = (await client.get("/breakers")).json()["breakers"]
        wanted = f"{SERVICE[1:]}/{method}"
        return next((each for each in listed if each["method"] == wanted), None)

    opened = await state(one, "Buy")
    assert (opened["agent"], opened["state"], opened["hold"]) == ("shop", "open", "auto")
    (change,) = opened["history"]
    assert (change["from"], change["to"], change["failures"]) == ("closed", "open", 3)
    assert await state(two, "Buy") is None
    found.shop.down = None
    held = {"agent": "shop", "method": f"{SERVICE[1:]}/Look", "state": "open"}
    assert (await one.post("/breakers:hold", json=held)).json() == {
        "agent": "shop",
        "method": f"{SERVICE[1:]}/Look",
        "hold": "open",
    }

    async def refused() -> bool:
        return (await two.get("/v1/look/a")).status_code == 503

    await wait_until(refused, timeout=timedelta(seconds=1))
    assert (await state(two, "Look"))["heldBy"] == "anonymous"
    await two.post("/breakers:hold", json={**held, "state": "auto"})

    async def served() -> bool:
        return (await one.get("/v1/look/a")).status_code == 200

    await wait_until(served, timeout=timedelta(seconds=1))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{", "body"),
        ("[]", "body"),
        ('{"agent": "shop"}', "method"),
        ('{"agent": "shop", "method": "Nope", "state": "open"}', "method"),
        ('{"agent": "nobody", "method": "Buy", "state": "open"}', "method"),
        ('{"agent": "shop", "method": "Buy", "state": "ajar"}', "state"),
        ('{"agent": "shop", "method": "Buy", "state": 1}', "state"),
    ],
)
async def test_nonsense_is_not_held(own: Any, body: str, field: str) -> None:
    headers = {"content-type": "application/json"}
    said = await own.http.post("/breakers:hold", content=body, headers=headers)
    assert said.status_code == 400
    violations = said.json()["error"]["details"][1]["fieldViolations"]
    assert [violation["field"] for violation in violations] == [field]


async def test_operators_need_a_scope(own_with_keys: Any) -> None:
    mesh, good, bad = own_with_keys
    async with await Database.connect(mesh.database_url, schema="gateway") as database:
        database.load("weft.gateway.sql")
        admin = await KeyStore(database).create("admin", scopes=["gateway.admin"])
    for key, status in ((None, 401), (bad, 401), (good, 403), (admin, 200)):
        headers = {} if key is None else {"x-api-key": key.text}
        assert (await mesh.http.get("/breakers", headers=headers)).status_code == status
        held = {"agent": "echo", "method": "Say", "state": "closed"}
        said = await mesh.http.post("/breakers:hold", json=held, headers=headers)
        assert said.status_code == status
    assert (await mesh.http.put("/breakers")).status_code == 405
    assert (await mesh.http.options("/breakers")).headers["allow"] == "GET, HEAD, OPTIONS"
