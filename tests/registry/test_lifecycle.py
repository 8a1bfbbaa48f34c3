"""LifecycleService: what operators do to agents, and what the registry makes of it."""

from __future__ import annotations

import asyncio

import grpc
import pytest
import pytest_asyncio
from google.protobuf import duration_pb2

from weft import rpc
from weft.registry.index import Index
from weft.registry.lifecycle import Directives, changes
from weft.registry.store import Changes
from weft.rpc.call import IDENTITY_KEY
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2, lifecycle_pb2, lifecycle_pb2_grpc, registry_pb2, registry_pb2_grpc
from weft.v1.identity_pb2 import Identity

PAUSED = agent_pb2.INSTANCE_STATE_PAUSED
DRAINING = agent_pb2.INSTANCE_STATE_DRAINING
SERVING = agent_pb2.INSTANCE_STATE_SERVING
AGENT = "support-triage"


@pytest_asyncio.fixture
async def operator(mesh):
    async with rpc.Channel(mesh.address) as channel:
        yield lifecycle_pb2_grpc.LifecycleServiceStub(channel)


async def fails(call) -> rpc.Error:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return rpc.error_from_call(failed.value)


def pause(agent=AGENT, *ids, reason="prices are wrong") -> lifecycle_pb2.PauseAgentRequest:
    return lifecycle_pb2.PauseAgentRequest(agent=agent, instance_ids=ids, reason=reason)


async def seen(channel, revision) -> None:
    """Returns when a registry has come to a revision."""
    watch = registry_pb2_grpc.RegistryServiceStub(channel).Watch(registry_pb2.WatchRequest())
    async for change in watch:
        if change.revision >= revision:
            break
    watch.cancel()


async def states(stub, agent=AGENT) -> dict[str, tuple[int, str]]:
    listed = await stub.ListAgents(registry_pb2.ListAgentsRequest())
    found = next(each for each in listed.agents if each.name == agent)
    return {each.instance_id: (each.state, each.state_reason) for each in found.instances}


async def resolved(stub, agent=AGENT) -> list[str]:
    answer = await stub.Resolve(registry_pb2.ResolveRequest(agent=agent))
    return [each.instance_id for each in answer.instances]


async def test_pause_holds_all_and_those_that_come_later(mesh, stub, operator, join, world):
    await join(mesh, world.instance("a"), world.instance("b"))
    control = (await operator.PauseAgent(pause())).control
    assert (control.version, control.hold.state, control.hold.reason) == (
        1,
        PAUSED,
        "prices are wrong",
    )
    assert await resolved(stub) == []
    await join(mesh, world.instance("c"))
    assert await states(stub) == dict.fromkeys("abc", (PAUSED, "prices are wrong"))
    again = (await operator.PauseAgent(pause())).control
    assert again.version == 1, "nothing changed, and nothing is recorded"
    resumed = await operator.ResumeAgent(lifecycle_pb2.ResumeAgentRequest(agent=AGENT))
    assert (resumed.control.version, resumed.control.HasField("hold")) == (2, False)
    assert await resolved(stub) == ["a", "b", "c"]


async def test_single_instances(mesh, stub, operator, join, world):
    await join(mesh, *(world.instance(each) for each in "abc"))
    await operator.DrainAgent(
        lifecycle_pb2.DrainAgentRequest(agent=AGENT, instance_ids=["a"], reason="new machine")
    )
    assert await resolved(stub) == ["b", "c"]
    assert (await states(stub))["a"] == (DRAINING, "new machine")
    await operator.PauseAgent(pause())
    control = (
        await operator.ResumeAgent(
            lifecycle_pb2.ResumeAgentRequest(agent=AGENT, instance_ids=["b"])
        )
    ).control
    assert await resolved(stub) == ["b"]
    assert sorted(control.instance_holds) == ["a", "c"], "the others stay held"
    await operator.ResumeAgent(lifecycle_pb2.ResumeAgentRequest(agent=AGENT))
    assert await resolved(stub) == ["a", "b", "c"]


async def test_a_paused_agent_outlives_the_registry(run_registry, join, world):
    async with run_registry() as first, rpc.Channel(first.address) as channel:
        await join(first, world.instance("a"))
        await lifecycle_pb2_grpc.LifecycleServiceStub(channel).PauseAgent(pause())
    async with run_registry() as second, rpc.Channel(second.address) as channel:
        stub = lifecycle_pb2_grpc.LifecycleServiceStub(channel)
        control = (await stub.GetControl(lifecycle_pb2.GetControlRequest(agent=AGENT))).control
        assert control.hold.state == PAUSED
        assert [each.state for each in control.instances] == [PAUSED]


async def test_two_registries_say_the_same(run_registry, join, world):
    async with (
        run_registry() as first,
        run_registry() as second,
        rpc.Channel(first.address) as one,
        rpc.Channel(second.address) as other,
    ):
        member = world.instance("a")
        process = await join(first, member)
        stub = lifecycle_pb2_grpc.LifecycleServiceStub(other)
        await seen(other, process.revision)
        control = (await stub.PauseAgent(pause())).control
        assert [each.state for each in control.instances] == [PAUSED]
        process.freeze()
        async with process._turn:
            answer = await process.stream.read()
        assert answer.directive.instance_id == "a"
        assert answer.directive.version == 1
        assert answer.directive.hold.reason == "prices are wrong"
        done = registry_pb2.DirectiveApplied(
            instance_id="a", applied=agent_pb2.Applied(version=1, problems=["no such model"])
        )
        await process.stream.write(registry_pb2.RegisterRequest(applied=done))
        here = lifecycle_pb2_grpc.LifecycleServiceStub(one)
        for asked in (here, stub):
            async with asyncio.timeout(5):
                while True:
                    got = await asked.GetControl(lifecycle_pb2.GetControlRequest(agent=AGENT))
                    if got.control.instances[0].applied.version == 1:
                        break
                    await asyncio.sleep(0.01)
            assert list(got.control.instances[0].applied.problems) == ["no such model"]


async def test_settings_are_set_and_taken_back(mesh, operator, join, world):
    await join(mesh, world.instance("a"))
    settings = lifecycle_pb2.AgentSettings(
        max_concurrency=5,
        timeouts={"Classify": duration_pb2.Duration(seconds=2)},
        model="small",
        prompts={"answer": "3", "revise": "1"},
    )
    request = lifecycle_pb2.SetAgentRequest(agent=AGENT, settings=settings)
    assert (await operator.SetAgent(request)).control.settings == settings
    for paths, expected in (
        (["model"], {"model": ""}),
        (["prompts.revise"], {"prompts": {"answer": "3"}}),
        (["timeouts"], {"timeouts": {}}),
    ):
        back = lifecycle_pb2.SetAgentRequest(agent=AGENT, update_paths=paths)
        now = (await operator.SetAgent(back)).control.settings
        for name, value in expected.items():
            found = getattr(now, name)
            assert (dict(found) if isinstance(value, dict) else found) == value
    assert now.max_concurrency == 5, "what is not named stays"


async def test_every_change_is_recorded(mesh, operator, join, world):
    await join(mesh, world.instance("a"), world.instance("other", agent="other"))
    who = Identity(subject="person:ann", display_name="Ann", signature=b"x" * 64)
    metadata = ((IDENTITY_KEY, who.SerializeToString()),)
    await operator.PauseAgent(pause(), metadata=metadata)
    await operator.PauseAgent(pause("other", "other"))
    await operator.ResumeAgent(lifecycle_pb2.ResumeAgentRequest(agent=AGENT, reason="mended"))
    request = lifecycle_pb2.ListControlEventsRequest(page_size=2)
    first = await operator.ListControlEvents(request)
    assert [(e.agent, e.action, e.reason) for e in first.events] == [
        (AGENT, "resume", "mended"),
        ("other", "pause", "prices are wrong"),
    ]
    request.page_token = first.next_page_token
    [oldest] = (await operator.ListControlEvents(request)).events
    assert oldest.identity.subject == "person:ann"
    assert oldest.identity.signature == b""
    assert oldest.peer.startswith("ipv4:127.0.0.1:")
    assert oldest.create_time.seconds > 0
    only = await operator.ListControlEvents(lifecycle_pb2.ListControlEventsRequest(agent="other"))
    assert [list(e.instance_ids) for e in only.events] == [["other"]]


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("PauseAgent", pause(""), "agent"),
        ("PauseAgent", pause(reason="x" * 501), "reason"),
        ("PauseAgent", pause(AGENT, *map(str, range(257))), "instance_ids"),
        ("SetAgent", lifecycle_pb2.SetAgentRequest(agent=AGENT), "settings"),
        (
            "SetAgent",
            lifecycle_pb2.SetAgentRequest(agent=AGENT, settings={"max_concurrency": 1_000_001}),
            "settings.max_concurrency",
        ),
        (
            "SetAgent",
            lifecycle_pb2.SetAgentRequest(
                agent=AGENT,
                settings={"timeouts": {"Classify": duration_pb2.Duration(seconds=-1)}},
            ),
            'settings.timeouts["Classify"]',
        ),
        (
            "SetAgent",
            lifecycle_pb2.SetAgentRequest(
                agent=AGENT,
                settings={"timeouts": {"Clasify": duration_pb2.Duration(seconds=1)}},
            ),
            'settings.timeouts["Clasify"]',
        ),
        (
            "SetAgent",
            lifecycle_pb2.SetAgentRequest(agent=AGENT, update_paths=["model", "color"]),
            "update_paths[1]",
        ),
        (
            "SetAgent",
            lifecycle_pb2.SetAgentRequest(agent=AGENT, update_paths=[f"prompts.{'x' * 101}"]),
            "update_paths[0]",
        ),
        (
            "SetAgent",
            lifecycle_pb2.SetAgentRequest(agent=AGENT, update_paths=["model"] * 201),
            "update_paths",
        ),
        (
            "SetAgent",
            lifecycle_pb2.SetAgentRequest(agent=AGENT, settings={"prompts": {"a": ""}}),
            'settings.prompts["a"]',
        ),
        ("ListControlEvents", lifecycle_pb2.ListControlEventsRequest(page_size=-1), "page_size"),
    ],
)
async def test_bad_input_names_the_field(mesh, operator, join, world, method, request_, field):
    await join(mesh, world.instance("a"))
    error = await fails(getattr(operator, method)(request_))
    assert isinstance(error, rpc.InvalidArgument)
    assert [name for name, _ in error.violations] == [field]


async def test_what_is_not_there_is_not_found_at_once(mesh, operator, join, world):
    await join(mesh, world.instance("a"))
    for call in (
        operator.PauseAgent(pause("nobody")),
        operator.GetControl(lifecycle_pb2.GetControlRequest(agent="nobody")),
        operator.ListControlEvents(lifecycle_pb2.ListControlEventsRequest(agent="nobody")),
    ):
        error = await fails(call)
        assert (type(error), error.reason) == (rpc.NotFound, "AGENT_UNKNOWN")
    error = await fails(operator.PauseAgent(pause(AGENT, "ghost")))
    assert (error.reason, error.metadata) == (
        "INSTANCE_UNKNOWN",
        {"agent": AGENT, "instance": "ghost"},
    )


async def test_a_process_may_not_answer_for_others(mesh, join, world, member):
    await join(mesh, world.instance("a"))
    process = member(mesh.address, [world.instance("b")])
    await process.register()
    done = registry_pb2.DirectiveApplied(instance_id="a", applied=agent_pb2.Applied(version=1))
    await process.stream.write(registry_pb2.RegisterRequest(applied=done))
    error = await process.ended()
    assert [name for name, _ in error.violations] == ["applied.instance_id"]
    await process.vanish()


def test_holds_of_instances_that_are_gone_are_forgotten():
    control = lifecycle_pb2.Control()
    for each in ("gone", "here"):
        changes.hold(control, [each], lifecycle_pb2.Hold(state=PAUSED))
    changes.prune(control, ["here"])
    assert list(control.instance_holds) == ["here"]


async def test_calls_to_a_paused_agent_come_to_those_who_say_why(
    mesh, stub, operator, join, world, replica, dial, ask
):
    serving = await replica("a")
    await join(mesh, serving.instance())
    async with dial(mesh.address) as channel:
        assert await ask(channel) == "a"
        await operator.PauseAgent(pause())
        # Its own port is what callers are given still: it is the agent that says why (weft.rpc.live).
        assert await ask(channel) == "a"
        other = await replica("b")
        await operator.ResumeAgent(lifecycle_pb2.ResumeAgentRequest(agent=AGENT))
        await join(mesh, other.instance())
        await operator.PauseAgent(pause(AGENT, "a"))

        async def only_b() -> bool:
            return {await ask(channel) for _ in range(6)} == {"b"}

        await wait_until(only_b)


async def test_what_is_said_while_a_directive_is_on_its_way_is_said_after_it(world):
    index = Index()

    def wanted(version: int) -> None:
        control = lifecycle_pb2.Control(agent=AGENT, version=version)
        index.follow(Changes(position=index.position + 1, controls=[control]))

    index.follow(Changes(position=1, agents=[(agent_pb2.Agent(name=AGENT), 1)]))
    wanted(1)
    said: list[tuple[str, int]] = []

    async def send(response: registry_pb2.RegisterResponse) -> None:
        directive = response.directive
        said.append((directive.instance_id, directive.version))
        if len(said) == 1:  # the stream is slow, and an operator is not
            wanted(2)
            await index.directed.wait()

    process = Directives(index, [world.instance("a"), world.instance("b")], send)
    telling = asyncio.create_task(process.run())
    await wait_until(lambda: ("a", 2) in said and ("b", 2) in said)
    telling.cancel()
