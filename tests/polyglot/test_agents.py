"""The agents of clients/ in Go and TypeScript: registered, checked, drained, sent messages, called by every door."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
import pytest_asyncio
from google.protobuf import json_format
from tests.conftest import empty_database
from tests.polyglot.conftest import (
    AGENTS,
    CLIENTS,
    PATIENCE,
    Program,
    Town,
    connections,
    consumes,
    town,
)
from tests.polyglot.doors import DOORS, refused

from weft import embedded, rpc
from weft.agents import Mesh
from weft.agents.messaging.sending import Sending
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway import Gateway
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2, broker_pb2, broker_pb2_grpc, lifecycle_pb2, message_pb2

# The first build of a language takes minutes.
pytestmark = [pytest.mark.failure, pytest.mark.timeout(600)]

Operate = Callable[..., Awaitable[lifecycle_pb2.Control]]
State = agent_pb2.InstanceState
SAY = echo_pb2_grpc.EchoServiceServicer.Say
UNAVAILABLE, RESOURCE_EXHAUSTED = 14, 8
PARTS = 2  # of a mesh that are started first: registry, broker
_REDIS = 15  # number of the database: no other test of this process runs meanwhile


@pytest.fixture(scope="module", params=list(AGENTS))
def language(request: pytest.FixtureRequest, built: Callable[[str], None]) -> str:
    found: str = request.param
    built(found)
    return found


@pytest_asyncio.fixture(scope="module")
async def mesh(
    language: str,
    fresh_xds_of_module: None,
    servers: embedded.Endpoints,
    spare_databases: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Town]:
    """A registry and a broker, for the agents of one language."""
    redis_url = urlsplit(servers.redis_url)._replace(query=f"db={_REDIS}").geturl()
    async with (
        empty_database(servers, spare_databases) as database_url,
        town(tmp_path_factory.mktemp(language), database_url, redis_url) as made,
    ):
        yield made
    async with embedded.redis_client(redis_url) as client:
        await client.flushdb()


@pytest.fixture(autouse=True)
async def as_before(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Each test finds no agent and no messages, whatever became of the one before."""
    yield
    if "mesh" not in request.fixturenames:
        return
    mesh: Town = request.getfixturevalue("mesh")
    while len(mesh.programs) > PARTS:
        await mesh.programs.pop().end()
    await mesh.until(lambda found: not found)
    async with rpc.Channel(mesh.broker) as channel:
        broker = broker_pb2_grpc.BrokerServiceStub(channel)
        await broker.SetQueue(broker_pb2.SetQueueRequest(queue="echo"))

        async def empty() -> bool:
            # What an agent had in hand when it ended is there a moment later.
            await broker.PurgeQueue(broker_pb2.PurgeQueueRequest(queue="echo"))
            left = (await broker.Describe(broker_pb2.DescribeRequest(queue="echo"))).status
            return not left.depth + left.pending + left.delayed

        await wait_until(empty, PATIENCE)


@pytest.fixture
async def agent(mesh: Town, language: str) -> Program:
    """The only instance of echo."""
    return await mesh.agent(language)


@pytest.fixture
def run() -> str:
    """For ids of messages: a test that is run once more has others."""
    return uuid.uuid4().hex[:8]


@pytest.fixture
async def sending(mesh: Town) -> AsyncIterator[Sending]:
    async with Sending(mesh.broker, sender="test") as made:
        yield made


async def test_every_door_leads_to_it(mesh: Town, agent: Program) -> None:
    async with (
        Gateway(
            registry=mesh.registry,
            database_url=mesh.database_url,
            listen="127.0.0.1:0",
            grpc_listen="127.0.0.1:0",
        ) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
    ):
        await gateway.ready()
        for name, door in DOORS.items():
            said = await door(gateway, http, "hello")
            assert said, name
            assert set(said) == {"hello"}, name
        assert await refused(gateway, http) == ["fail_with"] * 3


async def test_it_is_registered_with_its_contract_and_its_load(
    mesh: Town, agent: Program, language: str
) -> None:
    (instance,) = await mesh.instances("echo")
    assert instance.state == State.INSTANCE_STATE_SERVING
    assert instance.version == "1.0.0"
    async with rpc.Channel(instance.address) as channel:
        echo = echo_pb2_grpc.EchoServiceStub(channel)
        for _ in range(5):
            assert (await echo.Say(echo_pb2.SayRequest())).instance.startswith(language)
        with pytest.raises(grpc.aio.AioRpcError):
            await echo.Say(echo_pb2.SayRequest(fail_with=14))
    loads = (6, 1)
    await mesh.until(lambda found: [(f.load.calls, f.load.failures) for f in found] == [loads])
    assert (await mesh.instances("echo"))[0].load.HasField("latency_ewma")


async def test_it_takes_health_checks(mesh: Town, agent: Program) -> None:
    agent.signal(signal.SIGSTOP)
    await mesh.until(lambda found: not found)
    agent.signal(signal.SIGCONT)
    await mesh.until(lambda found: len(found) == 1)


async def test_a_drain_costs_no_call_and_finishes_what_is_in_hand(
    mesh: Town, agent: Program, language: str, fresh_xds: None
) -> None:
    before = {one.instance_id for one in await mesh.instances("echo")}
    other = await mesh.agent(language)
    (leaving,) = {one.instance_id for one in await mesh.instances("echo")} - before
    failed: list[grpc.aio.AioRpcError] = []
    answered: set[str] = set()
    async with Mesh(mesh.registry) as callers:
        stub = callers.stub(echo_pb2_grpc.EchoServiceStub)

        async def call() -> None:
            while other.running or len(answered) < 2:
                try:
                    say = echo_pb2.SayRequest(delay={"nanos": 20_000_000})
                    # Not declared idempotent: nobody tries it again.
                    said = await stub.SayOnce(echo_pb2.SayOnceRequest(say=say), timeout=5)
                    answered.add(said.said.instance)
                except grpc.aio.AioRpcError as error:
                    failed.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(call())
            await wait_until(lambda: len(answered) == 2)
            other.signal(signal.SIGTERM)
            assert await asyncio.wait_for(other.ended(), 20) == 0, other.log
            assert leaving not in {one.instance_id for one in await mesh.listed()}
    assert failed == []


async def test_it_registers_again_when_the_registry_was_killed(mesh: Town, agent: Program) -> None:
    (before,) = await mesh.instances("echo")
    registry = mesh.programs[0]
    await registry.end()
    await mesh.until(lambda found: not found)
    mesh.programs[0] = await mesh.weft("registry")
    mesh.programs.pop()
    await mesh.until(lambda found: [one.instance_id for one in found] == [before.instance_id])
    async with rpc.Channel(before.address) as channel:
        await echo_pb2_grpc.EchoServiceStub(channel).Say(echo_pb2.SayRequest())
    # Its heartbeats come to the new one.
    calls = before.load.calls + 1
    await mesh.until(lambda found: [one.load.calls for one in found] == [calls])


async def test_it_leaves_a_registry_that_hangs(mesh: Town, agent: Program) -> None:
    registry = mesh.programs[0]
    # On a busy machine it may have lost it before, at its start.
    lost, before = agent.log.count("registry lost"), connections(agent, "registry")
    registry.signal(signal.SIGSTOP)
    await wait_until(lambda: agent.log.count("registry lost") > lost, PATIENCE)
    registry.signal(signal.SIGCONT)
    await wait_until(lambda: connections(agent, "registry") > before, PATIENCE)
    await mesh.until(lambda found: len(found) == 1)


async def test_what_the_registry_will_never_take_ends_it(mesh: Town, language: str) -> None:
    agent = await mesh.start_agent(language, "--agent", "No Name", "--brokers", "")
    assert await asyncio.wait_for(agent.ended(), 20) == 1
    assert "registration.instances[0].agent" in agent.log


async def test_it_waits_for_a_mesh_that_starts_after_it(
    language: str, tmp_path: Path, database_url: str, redis_url: str
) -> None:
    made = Town(tmp_path, database_url, redis_url)
    try:
        agent = await made.start_agent(language)
        await wait_until(lambda: "lost" in agent.log)
        await made.weft("broker")
        await made.weft("registry")
        await made.until(lambda found: len(found) == 1)
        await wait_until(lambda: consumes(agent), PATIENCE)
        async with Sending(made.broker, sender="test") as sending:
            answer = await sending.request(SAY, echo_pb2.SayRequest(text="hello"))
        assert answer.text == "hello"
    finally:
        for program in made.programs:
            await program.end()


async def test_messages_are_handled_like_calls(
    mesh: Town, agent: Program, language: str, sending: Sending
) -> None:
    answer = await sending.request(SAY, echo_pb2.SayRequest(text="hello"))
    assert answer.text == "hello"
    assert answer.instance.startswith(language)
    assert answer.HasField("time_left"), "a skill has a deadline by message, too"


async def test_what_fails_is_tried_again_and_what_never_works_is_not(
    mesh: Town, agent: Program, sending: Sending, run: str
) -> None:
    policy = message_pb2.QueuePolicy(max_attempts=2)
    policy.backoff.FromMilliseconds(10)
    async with rpc.Channel(mesh.broker) as channel:
        broker = broker_pb2_grpc.BrokerServiceStub(channel)
        await broker.SetQueue(broker_pb2.SetQueueRequest(queue="echo", policy=policy))
        with pytest.raises(rpc.InvalidArgument) as wrong:
            await sending.request(SAY, echo_pb2.SayRequest(fail_with=99), id=f"{run}-wrong")
        assert wrong.value.violations == (("fail_with", "must be 0 to 16"),)
        for code in (UNAVAILABLE, RESOURCE_EXHAUSTED):
            await sending.send(SAY, echo_pb2.SayRequest(fail_with=code), id=f"{run}-{code}")
        dead: dict[str, broker_pb2.DeadLetter] = {}

        async def all_of_them() -> bool:
            found = await broker.ListDeadLetters(broker_pb2.ListDeadLettersRequest(queue="echo"))
            mine = [one for one in found.dead_letters if one.message.id.startswith(run)]
            dead.update({each.message.id: each for each in mine})
            return len(dead) == 3

        await wait_until(all_of_them)
    never = dead[f"{run}-wrong"]
    assert (never.reason, never.attempts) == ("INVALID_ARGUMENT", 1)
    for code in (UNAVAILABLE, RESOURCE_EXHAUSTED):
        again = dead[f"{run}-{code}"]
        assert (again.reason, again.attempts) == ("MAX_ATTEMPTS", 2)


async def test_what_is_too_much_at_a_time_is_refused_and_no_attempt(
    mesh: Town, language: str, sending: Sending, run: str
) -> None:
    await mesh.agent(language, "--concurrency", "1")
    (instance,) = await mesh.instances("echo")
    assert instance.max_concurrency == 1
    slow = echo_pb2.SayRequest(delay={"nanos": 100_000_000})
    async with rpc.Channel(instance.address) as channel:
        echo = echo_pb2_grpc.EchoServiceStub(channel)
        first = echo.Say(slow)
        outcomes = await asyncio.gather(first, echo.Say(slow), return_exceptions=True)
    (refused_one,) = [one for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
    assert refused_one.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert rpc.error_from_call(refused_one).reason == "CONCURRENCY_LIMIT"

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(sending.request(SAY, slow, id=f"{run}-{number}"))
    await _all_at_the_first_attempt(mesh, run, 4)


@pytest.fixture
async def operate(mesh: Town) -> AsyncIterator[Operate]:
    """Does something to echo by the command, until its instances do as told; takes all of it back at the end."""
    done: list[str] = []

    async def act(action: str, *arguments: str) -> lifecycle_pb2.Control:
        done.append(action)
        command = await mesh.weft("agents", action, "echo", *arguments, "--json")
        text = await asyncio.wait_for(command.output(), 20)
        assert await command.ended() == 0, command.log
        assert mesh.programs.pop() is command
        control = json_format.Parse(text, lifecycle_pb2.Control())
        assert control.instances
        assert {one.applied.version for one in control.instances} == {control.version}
        return control

    yield act
    if "set" in done:
        await act("set", "concurrency=", "model=", "timeout.Say=")
    if done:
        await act("resume")


async def test_while_it_is_paused_calls_are_told_why_and_messages_wait(
    mesh: Town, agent: Program, sending: Sending, operate: Operate, run: str
) -> None:
    (instance,) = await mesh.instances("echo")
    async with rpc.Channel(instance.address) as channel, asyncio.TaskGroup() as group:
        echo = echo_pb2_grpc.EchoServiceStub(channel)
        slow = echo_pb2.SayRequest(text="in hand", delay={"seconds": 2})
        in_hand = [
            group.create_task(sending.request(SAY, slow, id=f"{run}-in-hand")),
            asyncio.ensure_future(echo.Say(slow)),
        ]
        await mesh.until(lambda found: found[0].load.in_flight == 2)
        await operate("pause", "--reason", "wrong prices")

        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await echo.Say(echo_pb2.SayRequest())
        error = rpc.error_from_call(failed.value)
        assert isinstance(error, rpc.Unavailable)
        assert (error.reason, error.message) == (
            "AGENT_PAUSED",
            "An operator has paused the agent: wrong prices.",
        )

        assert [one.text for one in await asyncio.gather(*in_hand)] == ["in hand"] * 2
        await wait_until(_queue(mesh, lambda echo: not echo.consumers), PATIENCE)
        late = [
            group.create_task(
                sending.request(SAY, echo_pb2.SayRequest(text=f"{n}"), id=f"{run}-{n}")
            )
            for n in range(5)
        ]
        await wait_until(_queue(mesh, lambda echo: echo.depth >= len(late)), PATIENCE)
        assert not any(one.done() for one in late)

        await operate("resume")
        assert [(await one).text for one in late] == [f"{n}" for n in range(5)]
        assert (await echo.Say(echo_pb2.SayRequest(text="again"))).text == "again"
    await _all_at_the_first_attempt(mesh, run, 6)


async def test_it_stays_paused_while_the_registry_is_away_and_is_told_again(
    mesh: Town, agent: Program, operate: Operate
) -> None:
    (instance,) = await mesh.instances("echo")
    await operate("pause")
    before = connections(agent, "registry")
    await mesh.programs[0].end()
    async with rpc.Channel(instance.address) as channel:
        echo = echo_pb2_grpc.EchoServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await echo.Say(echo_pb2.SayRequest())
        assert rpc.error_from_call(failed.value).message == "An operator has paused the agent."
        mesh.programs[0] = await mesh.weft("registry")
        mesh.programs.pop()
        await wait_until(lambda: connections(agent, "registry") > before, PATIENCE)
        await operate("resume")
        assert (await echo.Say(echo_pb2.SayRequest(text="again"))).text == "again"


async def test_one_that_is_drained_by_an_operator_leaves_messages_to_the_others(
    mesh: Town, agent: Program, language: str, sending: Sending, operate: Operate, run: str
) -> None:
    (drained,) = await mesh.instances("echo")
    await mesh.agent(language)
    await operate("drain", "--instance", drained.instance_id)
    await mesh.until(lambda found: drained.instance_id not in {one.instance_id for one in found})
    await wait_until(_queue(mesh, lambda echo: len(echo.consumers) == 1), PATIENCE)
    async with rpc.Channel(drained.address) as channel:
        # Whoever has not heard of it yet is served.
        await echo_pb2_grpc.EchoServiceStub(channel).Say(echo_pb2.SayRequest())
    (other,) = await mesh.instances("echo")
    said = [await sending.request(SAY, echo_pb2.SayRequest(), id=f"{run}-{n}") for n in range(5)]
    async with rpc.Channel(other.address) as channel:
        its = await echo_pb2_grpc.EchoServiceStub(channel).Say(echo_pb2.SayRequest())
    assert {one.instance for one in said} == {its.instance}
    await operate("resume")
    await mesh.until(lambda found: len(found) == 2)
    await wait_until(_queue(mesh, lambda echo: len(echo.consumers) == 2), PATIENCE)


async def test_how_much_it_takes_at_a_time_is_set_while_it_runs(
    mesh: Town, agent: Program, operate: Operate
) -> None:
    (instance,) = await mesh.instances("echo")
    slow = echo_pb2.SayRequest(delay={"nanos": 200_000_000})
    async with rpc.Channel(instance.address) as channel:
        echo = echo_pb2_grpc.EchoServiceStub(channel)

        async def reasons() -> list[str]:
            said = await asyncio.gather(*(echo.Say(slow) for _ in range(3)), return_exceptions=True)
            return [
                rpc.error_from_call(one).reason
                for one in said
                if isinstance(one, grpc.aio.AioRpcError)
            ]

        assert await reasons() == []
        control = await operate("set", "concurrency=1", "model=small", "timeout.Say=5s")
        assert await reasons() == ["CONCURRENCY_LIMIT"] * 2
        (one,) = control.instances
        assert sorted(one.applied.problems) == [
            f"this process cannot be set {what} while it runs" for what in ("model", "timeouts")
        ]
        control = await operate("set", "concurrency=", "model=", "timeout.Say=")
        assert not control.instances[0].applied.problems
        assert await reasons() == []


async def test_the_answer_goes_where_the_message_says(
    mesh: Town, agent: Program, sending: Sending, run: str
) -> None:
    async with rpc.Channel(mesh.broker) as channel:
        broker = broker_pb2_grpc.BrokerServiceStub(channel)
        await broker.SetQueue(broker_pb2.SetQueueRequest(queue="answers"))
        await sending.send(SAY, echo_pb2.SayRequest(text="for you"), id=run, reply_to="answers")
        records: list[broker_pb2.Record] = []

        async def answered() -> bool:
            found = await broker.History(broker_pb2.HistoryRequest(queue="answers"))
            records[:] = [one for one in found.records if one.message.correlation_id == run]
            return bool(records)

        await wait_until(answered)
    (record,) = records
    assert echo_pb2.SayResponse.FromString(record.message.payload).text == "for you"


async def test_a_drain_finishes_the_messages_in_hand_and_gives_back_the_others(
    mesh: Town, agent: Program, language: str, sending: Sending, run: str
) -> None:
    count = 20
    slow = echo_pb2.SayRequest(delay={"seconds": 3})  # all are delivered before the first ends
    async with rpc.Channel(mesh.broker) as channel, asyncio.TaskGroup() as group:
        broker = broker_pb2_grpc.BrokerServiceStub(channel)
        for number in range(count):
            group.create_task(sending.request(SAY, slow, id=f"{run}-{number}"))

        async def delivered() -> bool:
            found = await broker.Describe(broker_pb2.DescribeRequest(queue="echo"))
            return found.status.pending == count

        await wait_until(delivered)
        agent.signal(signal.SIGTERM)
        assert await asyncio.wait_for(agent.ended(), 20) == 0, agent.log
        # What was on its way when the drain began.
        await mesh.start_agent(language)
    await _all_at_the_first_attempt(mesh, run, count)


async def test_no_message_is_lost_when_broker_and_agent_are_killed(
    mesh: Town, agent: Program, language: str, sending: Sending, run: str
) -> None:
    """Each is acknowledged after it was handled, never before."""
    count, keys = 60, 3
    policy = message_pb2.QueuePolicy(visibility_timeout={"seconds": 2})
    async with rpc.Channel(mesh.broker) as channel:
        broker = broker_pb2_grpc.BrokerServiceStub(channel)
        await broker.SetQueue(broker_pb2.SetQueueRequest(queue="echo", policy=policy))

    async def send(number: int) -> str:
        say = echo_pb2.SayRequest(text=f"{number}", delay={"nanos": 50_000_000})
        within, key = timedelta(seconds=60), f"{number % keys}"
        said = await sending.request(SAY, say, id=f"{run}-{number}", key=key, within=within)
        return said.text

    async with asyncio.TaskGroup() as group:
        sent = [group.create_task(send(number)) for number in range(count)]

        def done() -> int:
            return sum(task.done() for task in sent)

        await wait_until(lambda: done() >= keys)
        await mesh.programs[1].end()
        mesh.programs[1] = await mesh.weft("broker")
        mesh.programs.pop()
        reached = done()
        await wait_until(lambda: done() > reached, PATIENCE)
        await agent.end()
        assert done() < count
        await mesh.start_agent(language)
    assert [task.result() for task in sent] == [f"{number}" for number in range(count)]


def _queue(
    mesh: Town, holds: Callable[[broker_pb2.QueueStatus], bool]
) -> Callable[[], Awaitable[bool]]:
    """Whether something holds of the queue of echo."""

    async def asked() -> bool:
        async with rpc.Channel(mesh.broker) as channel:
            broker = broker_pb2_grpc.BrokerServiceStub(channel)
            found = await broker.Describe(broker_pb2.DescribeRequest(queue="echo"))
        return holds(found.status)

    return asked


async def _all_at_the_first_attempt(mesh: Town, run: str, count: int) -> None:
    """Returns when so many messages of a test are acknowledged, none of them at a second attempt."""
    async with rpc.Channel(mesh.broker) as channel:
        broker = broker_pb2_grpc.BrokerServiceStub(channel)
        attempts: list[int] = []

        async def archived() -> bool:
            found = await broker.History(broker_pb2.HistoryRequest(queue="echo"))
            attempts[:] = [
                one.attempts
                for one in found.records
                if one.message.id.startswith(run) and one.outcome == broker_pb2.OUTCOME_ACKED
            ]
            return len(attempts) == count

        await wait_until(archived)
    assert set(attempts) == {1}


@pytest.mark.parametrize("helper", ["go/weft/mesh.go", "typescript/src/weft/mesh.ts"])
def test_what_is_written_by_hand_to_speak_with_the_mesh_is_short(helper: str) -> None:
    assert len((CLIENTS / helper).read_text().splitlines()) <= 150
