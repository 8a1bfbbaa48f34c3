from __future__ import annotations

import asyncio
import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from google.rpc import error_details_pb2
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from weft import rpc
from weft.agents import llm
from weft.agents.llm.money.postgres import SCHEMA, SQL, PostgresLedger
from weft.agents.llm.prices import NANO
from weft.agents.messaging import sending
from weft.agents.messaging.served import call_of
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.postgres import Database
from weft.rpc.call import Call, serve_as
from weft.rpc.testing import wait_until
from weft.telemetry import Telemetry
from weft.telemetry.instruments import Instruments
from weft.testing.messages_server import scenarios as say
from weft.v1 import message_pb2
from weft.v1.identity_pb2 import Identity

SONNET = "claude-sonnet-5-5"


def served(run: str = "", tenant: str = "", agent: str = "solution") -> Call:
    """Makes this task serve a call."""
    call = Call.at_door("/a/B", (), rpc.Deadline.after(timedelta(minutes=1)))
    if tenant:
        call.trust(("weft-identity-bin", Identity(subject="x", tenant=tenant).SerializeToString()))
    call.run, call.agent = run, agent
    serve_as(call)
    return call


@pytest.fixture
async def shared(database_url):
    async with await Database.connect(database_url, SCHEMA) as database:
        await database.migrate(SQL)
        yield PostgresLedger(database)


async def test_an_answer_costs_what_the_price_list_says(house) -> None:
    house.server.answer(
        say.text("hello").with_usage(
            input_tokens=1_000,
            cache_read_input_tokens=10_000,
            cache_creation_input_tokens=2_000,
            output_tokens=500,
        )
    )
    reply = await house.model().generate("hi")
    dollars = Decimal(2) * 1_000 + Decimal("0.1") * 10_000 + Decimal("2.5") * 2_000
    dollars = (dollars + Decimal(10) * 500) / 1_000_000
    assert Decimal(reply.cost) / NANO == dollars
    assert reply.usage.tokens == 13_500


async def test_what_a_model_costs_that_nobody_knows_is_not_known(house) -> None:
    house.server.answer(say.text("hello"))
    reply = await house.model("some-other-model").generate("hi")
    assert reply.cost is None
    assert reply.usage.tokens > 0


async def test_a_budget_in_money_needs_a_price(house) -> None:
    books = llm.Books(limits={"tenant": llm.Limit(usd=1)})
    with pytest.raises(rpc.FailedPrecondition) as failed:
        await house.model("some-other-model", books=books).generate("hi")
    assert failed.value.reason == "MODEL_UNPRICED"
    assert house.server.requests == []


def test_prices_have_a_date_and_long_prompts_their_own() -> None:
    prices = llm.Prices.shipped()
    assert date.fromisoformat(prices.date) > date(2026, 1, 1)
    haiku = prices.of("claude-haiku-5-5")
    assert haiku.of(llm.Usage(input=100_000)) == 100_000 * 100
    assert haiku.of(llm.Usage(input=50_000, cache_read=50_001)) == 50_000 * 500 + 50_001 * 50
    assert prices.of("claude-haiku-4-5-20251001") == prices.of("claude-haiku-4-5")
    assert prices.of("claude-haiku-9") is None


async def test_a_run_of_several_agents_stops_when_its_tokens_are_spent(house, shared) -> None:
    house.server.always(SONNET, say.text("hello").with_usage(input_tokens=300, output_tokens=100))
    limits = {"run": llm.Limit(tokens=1_500)}
    # Two processes have books of their own, and one ledger.
    models = [house.models(SONNET, books=llm.Books(shared, limits)) for _ in range(2)]

    async def ask(number: int) -> None:
        served(run="run-7", agent=("solution", "triage")[number % 2])
        await models[number % 2][SONNET].generate("hi")

    for number in range(4):
        await ask(number)
    with pytest.raises(llm.BudgetSpent) as failed:
        await ask(4)
    # The answer of the last was held to what was left.
    assert house.server.requests[3].body["max_tokens"] < 400
    error = failed.value
    assert error.code.name == "RESOURCE_EXHAUSTED"
    assert error.metadata["scope"] == "run"
    assert error.metadata["name"] == "/run-7"
    assert error.metadata["spent_tokens"] == "1600"
    assert error.metadata["limit_tokens"] == "1500"
    assert "solution by claude-sonnet-5-5: 800 tokens, 0.0032 USD" in error.metadata["where"]
    assert "triage by claude-sonnet-5-5: 800 tokens" in error.message
    status = rpc.status_proto(error)
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("BUDGET_SPENT", "weft.dev")
    # Another run has a budget of its own, and the same run of another tenant too.
    served(run="run-8")
    await models[0][SONNET].generate("hi")
    served(run="run-7", tenant="acme")
    await models[0][SONNET].generate("hi")


async def test_a_tenants_money_is_spent_once_however_many_ask(house, shared) -> None:
    house.server.always(SONNET, say.text("hello").with_usage(input_tokens=100, output_tokens=500))
    limits = {"tenant:acme": llm.Limit(usd=0.05)}
    model = house.model(SONNET, books=llm.Books(shared, limits), settings={"max_tokens": 500})

    async def one() -> int:
        served(tenant="acme")
        try:
            return (await model.generate("hi " * 200)).cost
        except llm.BudgetSpent as failed:
            assert failed.metadata["limit_usd"] == "0.05"  # noqa: PT017
            return 0

    costs = await asyncio.gather(*(one() for _ in range(20)))
    assert 0.04 * NANO < sum(costs) <= 0.05 * NANO
    served(tenant="other")
    await model.generate("hi")


async def test_a_call_has_a_budget_of_its_own(house) -> None:
    house.server.always(SONNET, say.text("hello").with_usage(input_tokens=300, output_tokens=100))
    books = llm.Books(limits={"call": llm.Limit(tokens=1_000)})
    model = house.model(SONNET, books=books)
    call = served()
    for _ in range(3):
        await model.generate("hi")
    with pytest.raises(llm.BudgetSpent) as failed:
        await model.generate("hi")
    assert failed.value.metadata["scope"] == "call"
    assert len(house.server.requests) == 3
    assert call is rpc.current_call()
    served()
    await model.generate("hi")


async def test_a_budget_begins_anew_with_its_period(house) -> None:
    now = [datetime(2026, 11, 30, 23, tzinfo=UTC)]
    limits = {"agent": llm.Limit(tokens=500, per="month")}
    books = llm.Books(limits=limits, now=lambda: now[0])
    house.server.always(SONNET, say.text("hello").with_usage(input_tokens=490, output_tokens=10))
    model = house.model(SONNET, books=books)
    await model.generate("hi")
    with pytest.raises(llm.BudgetSpent) as failed:
        await model.generate("hi")
    assert failed.value.metadata["period"] == "2026-11"
    now[0] += timedelta(hours=1)
    await model.generate("hi")


async def test_meters_count_what_is_spent_within_them(house) -> None:
    house.server.always(SONNET, say.text("hello").with_usage(input_tokens=100, output_tokens=10))
    model = house.model(SONNET)
    with llm.metered() as outer:
        await model.generate("hi")
        with llm.metered() as inner:
            await asyncio.gather(model.generate("hi"), model.generate("hi"))
    assert (inner.requests, inner.usage.tokens) == (2, 220)
    assert (outer.requests, outer.usage.tokens) == (3, 330)
    assert outer.cost == 3 * (100 * 2_000 + 10 * 10_000)


async def test_an_answer_that_breaks_off_is_paid_for_as_far_as_it_came(house, shared) -> None:
    said = "so far " * 40
    house.server.answer(say.ends(said, after=20).with_usage(input_tokens=70))
    books = llm.Books(shared)
    served(run="run-1")
    with llm.metered() as meter, pytest.raises(llm.StreamBroken):
        await house.model(SONNET, books=books, entry={"retries": 0}).generate("hi")
    assert meter.usage.estimated
    assert meter.usage.input == 70
    assert 40 < meter.usage.output < 70
    spent = await shared.spent(books.account("run", "/run-1"))
    assert spent.tokens == meter.usage.tokens


async def test_who_gives_up_pays_for_what_came(house, shared) -> None:
    house.server.answer(say.stalls("so far so good", after=4).with_usage(input_tokens=70))
    books = llm.Books(shared)
    model = house.model(SONNET, books=books)
    served(run="run-1")
    stream = model.stream("hi")
    await anext(stream)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    account = books.account("run", "/run-1")
    spent = await shared.spent(account)
    assert 70 < spent.tokens < 100


class Relay(echo_pb2_grpc.EchoServiceServicer):
    """Asks a model, and the next agent."""

    def __init__(self, model, onward=None) -> None:
        self._model = model
        self._onward = onward

    async def Say(self, request, context):
        reply = await self._model.generate(request.text)
        if self._onward is not None:
            stub = echo_pb2_grpc.EchoServiceStub(self._onward)
            await stub.Say(echo_pb2.SayRequest(text=request.text))
        return echo_pb2.SayResponse(text=reply.text)


async def test_the_run_travels_and_spans_sum_up_to_what_is_billed(house, shared) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(
        metrics=Instruments("test"), tracer=provider.get_tracer("weft"), sample_ratio=1.0
    )
    broken = say.ends("so far so good " * 9, after=8).with_usage(input_tokens=60)
    house.server.answer(
        *(say.text("one"), say.overloaded(), broken, say.text("two")),
        *(say.text("three").with_usage(cache_read_input_tokens=500), say.errs()),
        *(say.text("four"), say.text("five"), say.text("six")),
    )
    books = llm.Books(shared)
    add = echo_pb2_grpc.add_EchoServiceServicer_to_server
    triage = rpc.Server(telemetry=telemetry)
    triage.add(
        add, Relay(house.models(SONNET, books=books, telemetry=telemetry)[SONNET]), agent="triage"
    )
    async with triage, rpc.Channel(triage.address, telemetry=telemetry) as onward:
        solution = rpc.Server(telemetry=telemetry)
        model = house.models(SONNET, books=books, telemetry=telemetry)[SONNET]
        solution.add(add, Relay(model, onward), agent="solution")
        async with solution, rpc.Channel(solution.address, telemetry=telemetry) as channel:
            stub = echo_pb2_grpc.EchoServiceStub(channel)
            for _ in range(3):
                await stub.Say(echo_pb2.SayRequest(text="hi"), metadata=(("weft-run", "run-9"),))
    account = books.account("run", "/run-9")
    spent = await shared.spent(account)
    spans = [
        each for each in exporter.get_finished_spans() if "gen_ai.request.model" in each.attributes
    ]
    assert len(spans) == len(house.server.requests) == 9
    tokens = sum(
        each.attributes["gen_ai.usage.input_tokens"] + each.attributes["gen_ai.usage.output_tokens"]
        for each in spans
    )
    assert tokens == spent.tokens > 560
    assert sum(each.attributes["weft.model.cost_nano_usd"] for each in spans) == spent.cost
    by_agent = {agent: used for agent, _, used, _ in spent.where}
    assert by_agent.keys() == {"solution", "triage"}
    for agent, used in by_agent.items():
        assert used == sum(
            each.attributes["gen_ai.usage.input_tokens"]
            + each.attributes["gen_ai.usage.output_tokens"]
            for each in spans
            if each.attributes["weft.agent"] == agent
        )
    counted = generate_latest(telemetry.metrics.registry).decode()
    told = re.findall(r"^weft_model_tokens_total\{.*\} (.*)$", counted, re.MULTILINE)
    assert sum(map(float, told)) == spent.tokens
    ended = re.findall(
        r'^gen_ai_client_operation_duration_seconds_count\{.*outcome="(\w+)".*\} (.*)$',
        counted,
        re.MULTILINE,
    )
    outcomes = Counter()
    for outcome, number in ended:
        outcomes[outcome] += int(float(number))
    assert outcomes == {"OK": 6, "MODEL_STREAM_BROKEN": 1, "MODEL_OVERLOADED": 2}
    # They are children of the calls they were made for, in one trace each, and of the convention's names.
    served_spans = {each.context.span_id: each for each in exporter.get_finished_spans()}
    for each in spans:
        assert served_spans[each.parent.span_id].name == "weft.echo.v1.EchoService/Say"
        assert each.attributes["gen_ai.operation.name"] == "chat"
        assert each.attributes["weft.run"] == "run-9"
    assert len({each.context.trace_id for each in spans}) == 3
    # What was asked and answered is in none of them.
    assert "so far" not in str([dict(each.attributes) for each in exporter.get_finished_spans()])


async def test_the_run_travels_with_messages() -> None:
    served(run="run-9")
    sent = sending._message(echo_pb2.SayRequest(text="hi"))
    assert sent.attributes["weft-run"] == "run-9"
    delivery = message_pb2.MessageDelivery(message=sent)
    call = call_of(delivery, "/weft.echo.v1.EchoService/Say", 5.0, queue="echo")
    assert call.run == "run-9"
    assert ("weft-run", "run-9") in call.forwarded


async def test_a_call_that_is_not_traced_has_no_span(house) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(
        metrics=Instruments("test"), tracer=provider.get_tracer("weft"), sample_ratio=1.0
    )
    house.server.answer(say.text("one"))
    served()
    await house.model(SONNET, telemetry=telemetry).generate("hi")
    assert exporter.get_finished_spans() == ()
    assert "traceparent" not in house.server.requests[0].headers


async def test_the_ledger_is_settled_when_the_deadline_has_passed(house, shared) -> None:
    books = llm.Books(shared)
    model = house.model(SONNET, books=books)
    house.server.answer(say.text("hello"))
    await model.generate("hi")
    house.server.answer(say.stalls(after=3).with_usage(input_tokens=70))
    served(run="run-1")
    with pytest.raises(rpc.DeadlineExceeded), rpc.Deadline.after(timedelta(seconds=1)).applied():
        await model.generate("hi")
    spent = await shared.spent(books.account("run", "/run-1"))
    assert spent.tokens < 90  # what was set aside was thousands
    await wait_until(lambda: house.server.cut == 1)
