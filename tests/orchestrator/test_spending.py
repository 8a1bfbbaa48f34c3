"""What runs spend on models: two agents with ledgers of their own on one database, and a server that speaks the Messages API."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.orchestrator.conftest import ANN, QUICK, Mesh, begin, ended, say, spec, typed, way

from weft import config, rpc
from weft.agents import Host, llm
from weft.agents.llm.prices import NANO
from weft.agents.orchestrator import fleet
from weft.agents.orchestrator.engine.retention import Retention
from weft.agents.orchestrator.fleet import OrchestratorSettings, orchestrator
from weft.agents.orchestrator.spending import Purses, ledger_of
from weft.config import ModelBudget, ModelChoice, ModelEndpoint
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.call import new_traceparent
from weft.telemetry import Telemetry
from weft.telemetry.instruments import Instruments
from weft.testing.messages_server import MessagesServer, scenarios
from weft.v1 import orchestrator_pb2 as pb
from weft.v1 import orchestrator_pb2_grpc
from weft.v1.workflow_pb2 import WorkflowSpec

SONNET = "claude-sonnet-5-5"
USED = {"input_tokens": 20, "output_tokens": 40}  # fewer than is set aside
AGENTS = ("triage", "solution")


class Thinks(echo_pb2_grpc.EchoServiceServicer):
    """Has its model say something about what it is told."""

    def __init__(self, models: llm.Models, agent: str) -> None:
        self._model = models[agent]

    async def Say(self, request: Any, context: Any) -> Any:
        reply = await self._model.generate(request.text)
        return echo_pb2.SayResponse(text=reply.text)

    async def SayOnce(self, request: Any, context: Any) -> Any:
        return echo_pb2.SayOnceResponse(said=await self.Say(request.say, context))


@dataclass(frozen=True, kw_only=True)
class House:
    """The agents, an orchestrator, and a client of it."""

    server: MessagesServer
    client: Any
    exporter: InMemorySpanExporter

    async def run(self, workflow: WorkflowSpec, budget: pb.Budget | None = None) -> pb.Run:
        """A run that has ended; what it does is traced."""
        request = pb.StartRunRequest(
            spec=workflow, input=typed(echo_pb2.SayRequest(text="begin")), budget=budget
        )
        metadata = (("traceparent", new_traceparent(sampled=True)),)
        begun = (await self.client.StartRun(request, metadata=metadata)).run
        await ended(self.client, begun.id)
        return (await self.client.GetRun(pb.GetRunRequest(id=begun.id))).run

    def billed(self, run: str) -> tuple[int, int, dict[tuple[str, str], int]]:
        """Tokens, billionths of a dollar, and tokens by agent and model: what the spans of a run say."""
        tokens = cost = 0
        parts: dict[tuple[str, str], int] = {}
        for span in self.exporter.get_finished_spans():
            told: Mapping[str, Any] = span.attributes or {}
            if told.get("weft.run") != run:
                continue
            used = told["gen_ai.usage.input_tokens"] + told["gen_ai.usage.output_tokens"]
            tokens, cost = tokens + used, cost + told["weft.model.cost_nano_usd"]
            who = told["weft.agent"], told["gen_ai.request.model"]
            parts[who] = parts.get(who, 0) + used
        return tokens, cost, parts


@contextlib.asynccontextmanager
async def opened(
    mesh: Mesh, database_url: str, model: str = SONNET, **budgets: ModelBudget
) -> AsyncIterator[House]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("weft")
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(MessagesServer())
        server.always(model, scenarios.text("thought").with_usage(**USED))
        channels = {}
        for agent in AGENTS:
            settings = config.Settings(
                database_url=database_url,
                models={
                    "default": ModelChoice(
                        name="default", model=model, endpoint="here", max_tokens=40
                    )
                },
                endpoints={"here": ModelEndpoint(name="here", url=server.url)},
                budgets=budgets,
            )
            watched = Telemetry(metrics=Instruments("test"), tracer=tracer, sample_ratio=1.0)
            models = await stack.enter_async_context(llm.models_of(settings, watched))
            host = Host(registry=mesh.registry, telemetry=watched, models=models)
            await stack.enter_async_context(host)
            host.add(Thinks(host.mesh.models, agent), agent=agent)
            await host.start()
            channels[agent] = await stack.enter_async_context(rpc.Channel(host.server.address))
        registry = await stack.enter_async_context(rpc.Channel(mesh.registry))
        service = await stack.enter_async_context(
            orchestrator(
                database_url=database_url,
                registry=registry,
                channel=channels.__getitem__,
                settings=OrchestratorSettings(worker=QUICK),
            )
        )
        front = rpc.Server()
        front.add(orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server, service)
        await stack.enter_async_context(front)
        channel = await stack.enter_async_context(rpc.Channel(front.address, identity=ANN))
        client = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        yield House(server=server, client=client, exporter=exporter)


@pytest.fixture
async def house(mesh: Mesh, database_url: str) -> AsyncIterator[House]:
    async with opened(mesh, database_url) as made:
        yield made


def asks(id_: str, agent: str, **further: Any) -> dict[str, Any]:
    """A node in which an agent thinks."""
    node = say(id_, **further)
    node["call"]["agent"] = agent
    return node


def branches(*names: str, **further: Any) -> WorkflowSpec:
    """One, then several beside each other, then one."""
    nodes = [asks("first", "triage"), asks("last", "solution")]
    edges = []
    for number, name in enumerate(names):
        nodes.append(asks(name, AGENTS[number % 2], **further))
        edges += [way("first", name), way(name, "last")]
    return spec(nodes=nodes, edges=edges)


def spent_of(run: pb.Run) -> tuple[int, int, dict[tuple[str, str], int]]:
    parts = run.spending.parts
    assert sum(part.tokens for part in parts) == run.spending.tokens
    assert sum(round(part.usd * NANO) for part in parts) == round(run.spending.usd * NANO)
    by_part = {(part.agent, part.model): part.tokens for part in parts}
    return run.spending.tokens, round(run.spending.usd * NANO), by_part


async def test_what_is_shown_is_what_was_billed_and_what_spans_say(house: House) -> None:
    house.server.answer(
        scenarios.text("one").with_usage(**USED, cache_read_input_tokens=500),
        scenarios.overloaded(),
    )
    run = await house.run(branches("a", "b", "c"))
    assert run.state == pb.RUN_STATE_SUCCEEDED, run
    assert spent_of(run) == house.billed(run.id)
    assert run.spending.tokens == 5 * 60 + 500
    assert {part.agent: part.requests for part in run.spending.parts} == {
        "triage": 4,
        "solution": 2,
    }
    assert run.spending.usd > 0
    # Another run has an account of its own, and lists do not count.
    other = await house.run(branches("a"))
    assert spent_of(other) == house.billed(other.id)
    assert other.spending.tokens == 180
    listed = (await house.client.ListRuns(pb.ListRunsRequest())).runs
    assert not any(each.HasField("spending") for each in listed)


@pytest.mark.parametrize("budget", [pb.Budget(tokens=300), pb.Budget(usd=0.002)])
async def test_a_run_stops_before_it_would_spend_more(house: House, budget: pb.Budget) -> None:
    # It may be tried five times, and has a way where it fails: what is spent is spent all the same.
    retry = {"attempts": 5, "first_pause": "0.01s"}
    workflow = branches("a", "b", "c", "d", "e", retry=retry)
    way_out = [way(each, "last", failed=True) for each in ("a", "b", "c", "d", "e")]
    workflow.edges.extend(spec(edges=way_out).edges)
    run = await house.run(workflow, budget)
    assert run.budget == budget
    assert run.state == pb.RUN_STATE_FAILED
    failure = run.failure
    assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "BUDGET_SPENT"), failure
    assert failure.metadata["scope"] == "run"
    assert failure.metadata["step"] in {f"{each}@1" for each in ("a", "b", "c", "d", "e", "last")}
    # It says how much, of how much, and where.
    if budget.tokens:
        assert re.search(r"\d+ of 300 tokens spent", failure.message)
        assert failure.metadata["limit_tokens"] == "300"
    else:
        assert re.search(r"[\d.]+ of 0\.002 USD spent", failure.message)
    assert f"triage by {SONNET}: " in failure.message
    assert f"triage by {SONNET}: " in failure.metadata["where"]
    assert not budget.tokens or run.spending.tokens <= budget.tokens
    assert not budget.usd or run.spending.usd <= budget.usd
    assert len(house.server.requests) < 7
    failed = [step for step in run.steps if step.state == pb.STEP_STATE_FAILED]
    assert [step.attempts for step in failed] == [1] * len(failed)
    # The last step was not come to by the way for failures.
    assert "last@1" not in {step.key for step in run.steps if step.state == pb.STEP_STATE_SUCCEEDED}


async def test_the_narrower_of_setting_and_run_counts(mesh: Mesh, database_url: str) -> None:
    workflow = branches("a", "b")
    async with opened(mesh, database_url, run=ModelBudget(name="run", tokens=200)) as house:
        for budget, limit in ((pb.Budget(tokens=10_000), 200), (pb.Budget(tokens=150), 150)):
            run = await house.run(workflow, budget)
            assert run.failure.reason == "BUDGET_SPENT"
            assert run.failure.metadata["limit_tokens"] == str(limit)
            assert run.spending.tokens <= limit
        run = await house.run(workflow, pb.Budget(usd=1.0))
        assert run.failure.metadata["limit_tokens"] == "200"
        assert run.failure.metadata["limit_usd"] == "1.0"


async def test_a_model_of_unknown_cost_is_not_asked_for_money_that_is_limited(
    mesh: Mesh, database_url: str
) -> None:
    async with opened(mesh, database_url, model="homemade-1") as house:
        run = await house.run(branches("a"), pb.Budget(usd=5.0))
        assert run.failure.reason == "MODEL_UNPRICED"
        assert not house.server.requests
        run = await house.run(branches("a"), pb.Budget(tokens=5_000))
        assert run.state == pb.RUN_STATE_SUCCEEDED
        assert [part.unpriced for part in run.spending.parts] == [
            part.requests for part in run.spending.parts
        ]


async def test_runs_that_are_steps_spend_what_is_their_run_s(house: House) -> None:
    inner = branches("a", "b")
    inner.name = "inner"
    await house.client.SubmitWorkflow(pb.SubmitWorkflowRequest(spec=inner))
    sub = {"workflow": {"name": "inner", "message": "input"}}
    outer = spec(
        nodes=[asks("before", "triage"), {"id": "sub", **sub}], edges=[way("before", "sub")]
    )
    run = await house.run(outer)
    assert run.state == pb.RUN_STATE_SUCCEEDED
    assert spent_of(run) == house.billed(run.id)
    assert run.spending.tokens == 300
    child = next(step.child_run for step in run.steps if step.child_run)
    shown = (await house.client.GetRun(pb.GetRunRequest(id=child))).run
    assert not shown.HasField("spending")
    run = await house.run(outer, pb.Budget(tokens=220))
    assert run.failure.reason == "BUDGET_SPENT"
    assert run.spending.tokens <= 220


async def test_a_run_that_goes_on_has_a_budget_of_its_own(house: House) -> None:
    workflow = branches("a")
    run = await house.run(workflow, pb.Budget(tokens=150))
    assert run.failure.reason == "BUDGET_SPENT"
    again = (await house.client.RetryRun(pb.RetryRunRequest(id=run.id))).run
    assert again.budget == run.budget
    assert (await ended(house.client, again.id)).state == pb.RUN_STATE_SUCCEEDED
    step = pb.RetryRunRequest(id=run.id, step="first@1", budget=pb.Budget(tokens=50))
    again = (await house.client.RetryRun(step)).run
    assert (await ended(house.client, again.id)).failure.metadata["limit_tokens"] == "50"


async def test_the_same_id_with_another_budget_is_another_run(house: House) -> None:
    given = {"id": "mine", "budget": pb.Budget(tokens=5_000)}
    run = await begin(house.client, branches("a"), **given)
    assert (await begin(house.client, branches("a"), **given)).id == run.id
    for budget in (pb.Budget(tokens=6_000), None):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await begin(house.client, branches("a"), id="mine", budget=budget)
        assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("budget", "field"),
    [
        (pb.Budget(), "budget"),
        (pb.Budget(tokens=-1), "budget.tokens"),
        (pb.Budget(usd=-1), "budget.usd"),
        (pb.Budget(usd=float("nan")), "budget.usd"),
        (pb.Budget(usd=1e30), "budget.usd"),
        (pb.Budget(usd=1e-12), "budget"),
    ],
)
async def test_what_is_no_budget_is_refused(ann: Any, budget: pb.Budget, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await begin(ann, spec(nodes=[say("a")]), budget=budget)
    error = rpc.error_from_call(refused.value)
    assert isinstance(error, rpc.InvalidArgument)
    assert [path for path, _ in error.violations] == [field]


async def test_what_is_old_is_forgotten(house: House, database_url: str) -> None:
    old, kept, fresh = [await house.run(branches("a")) for _ in range(3)]
    connection = await asyncpg.connect(database_url)

    async def age(run: pb.Run, days: int) -> None:
        past = timedelta(days=days)
        await connection.execute(
            "UPDATE weft_models.model_accounts SET update_time = now() - $2::interval WHERE name = $1",
            f"acme/{run.id}",
            past,
        )
        await connection.execute(
            "UPDATE weft_models.model_requests q SET begin_time = now() - $2::interval "
            "FROM weft_models.model_request_accounts r WHERE r.request = q.id AND r.name = $1",
            f"acme/{run.id}",
            past,
        )

    async def accounts(scope: str) -> set[tuple[str, str]]:
        query = "SELECT name, period FROM weft_models.model_accounts WHERE scope = $1"
        return {tuple(row) for row in await connection.fetch(query, scope)}

    await age(old, 100)
    await age(kept, 100)  # and its run ended just now: it waited for long
    await connection.execute(
        "UPDATE orchestrator.runs SET end_time = now() - interval '100 days' WHERE id = $1", old.id
    )
    today = datetime.now(UTC)
    days = [(today - timedelta(days=365 + 1)), today - timedelta(days=365 - 1)]
    last_month = today.replace(year=today.year - 1, day=1)  # it ended less than a year ago
    before = last_month - timedelta(days=1)
    periods = [f"{each:%Y-%m-%d}" for each in days] + [f"{last_month:%Y-%m}", f"{before:%Y-%m}"]
    await connection.executemany(
        "INSERT INTO weft_models.model_accounts (scope, name, period) VALUES ('tenant', 'elsewhere', $1)",
        [(each,) for each in periods],
    )
    async with (
        await fleet.database(database_url) as database,
        await ledger_of(database_url) as ledger,
    ):
        purses = Purses(ledger, database)
        assert await Retention(database, purses, None).forget() == 0
        assert len(await accounts("run")) == 3
        await connection.executemany(
            "INSERT INTO weft_models.model_accounts (scope, name, period) VALUES ('tenant', 'elsewhere', $1)",
            [(periods[0],), (periods[3],)],
        )
        assert await Retention(database, purses, timedelta(days=90)).forget() == 1
    assert await accounts("run") == {(f"acme/{run.id}", "") for run in (kept, fresh)}
    told = {period for name, period in await accounts("tenant") if name == "elsewhere"}
    assert told == {periods[1], periods[2]}
    requests = await connection.fetchval("SELECT count(*) FROM weft_models.model_requests")
    assert requests == 6  # of the two runs that are there
    assert (await house.client.GetRun(pb.GetRunRequest(id=kept.id))).run.spending.parts
    await connection.close()
