"""The index against a simple model, and what it promises to those who resume."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from weft.registry.index import IN_SERVICE, Index
from weft.registry.store import Changes, Row
from weft.v1 import agent_pb2

State = agent_pb2.InstanceState
IDS = st.sampled_from([f"i{n}" for n in range(6)])
AGENTS = st.sampled_from(["a", "b", "c"])
SERVICES = st.lists(
    st.sampled_from(["p.One", "p.Two", "p.Three"]), min_size=1, max_size=2, unique=True
)
WORDS = st.lists(st.sampled_from(["x", "y"]), max_size=2, unique=True)
ANNOUNCED = st.sampled_from(
    [
        State.INSTANCE_STATE_STARTING,
        State.INSTANCE_STATE_SERVING,
        State.INSTANCE_STATE_DEGRADED,
        State.INSTANCE_STATE_DRAINING,
    ]
)


@dataclass
class Known:
    agent: str
    services: list[str]
    capabilities: list[str]
    state: int
    fault: str = ""

    @property
    def shown(self) -> int:
        if self.fault and self.state in IN_SERVICE:
            return State.INSTANCE_STATE_UNREACHABLE
        return self.state


def register(index: Index, instance: agent_pb2.Instance, contract: agent_pb2.Agent) -> None:
    """Registers as the database does: with the next revision, and with what the probes said before."""
    revision = index.position + 1
    fault = index.fault(instance.instance_id)
    index.follow(
        Changes(
            position=revision,
            floor=index.floor,
            agents=[(contract, revision)],
            instances=[Row(instance, "lease", "replica", fault, revision)],
        )
    )


@dataclass
class Watcher:
    revision: int
    seen: dict[str, bytes] = field(default_factory=dict)


class IndexMachine(RuleBasedStateMachine):
    """Whatever happens, the index says what a plain dictionary says, and watchers that lag catch up."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.index = Index(1_000)
        self.known: dict[str, Known] = {}
        self.agents: set[str] = set()
        self.watchers = [Watcher(1_000), Watcher(1_000)]
        self.last = self.index.revision

    def teardown(self) -> None:
        self.loop.close()

    def run(self, change, *arguments):
        async def inside():
            return change(*arguments)

        return self.loop.run_until_complete(inside())

    @rule(id_=IDS, agent=AGENTS, services=SERVICES, words=WORDS, state=ANNOUNCED)
    def register(self, id_, agent, services, words, state):
        instance = agent_pb2.Instance(
            instance_id=id_,
            agent=agent,
            address="127.0.0.1:1",
            services=[agent_pb2.ServiceRef(name=name, descriptor_digest="d") for name in services],
            capabilities=words,
            state=state,
        )
        fault = self.known[id_].fault if id_ in self.known else ""
        self.run(register, self.index, instance, agent_pb2.Agent(name=agent, description="d"))
        self.known[id_] = Known(agent, services, words, state, fault)
        self.agents.add(agent)

    @rule(id_=IDS, state=ANNOUNCED)
    def announce(self, id_, state):
        self.run(self.index.announce, [id_], state, "")
        if id_ in self.known:
            self.known[id_].state = state

    @rule(id_=IDS, fault=st.sampled_from(["", "refused"]))
    def probe(self, id_, fault):
        self.run(self.index.probed, [id_], fault)
        if id_ in self.known:
            self.known[id_].fault = fault

    @rule(id_=IDS, calls=st.integers(0, 9))
    def report(self, id_, calls):
        before = self.index.revision
        self.run(self.index.report, id_, agent_pb2.Load(calls=calls))
        assert self.index.revision == before

    @rule(ids=st.lists(IDS, max_size=3))
    def remove(self, ids):
        self.run(self.index.remove, ids)
        for id_ in ids:
            self.known.pop(id_, None)

    @rule(which=st.sampled_from([0, 1]))
    def watch(self, which):
        watcher = self.watchers[which]
        changed = self.index.changes(watcher.revision)
        assert changed is not None
        assert len(changed) == len(set(changed))
        watcher.revision = self.index.revision
        watcher.seen |= {name: self.picture(name) for name in changed}
        assert watcher.seen == {name: self.picture(name) for name in self.agents}

    def picture(self, name: str) -> bytes:
        agent = agent_pb2.Agent()
        agent.CopyFrom(self.index.agent(name))
        for instance in agent.instances:
            instance.ClearField("load")
        return agent.SerializeToString(deterministic=True)

    @invariant()
    def revision_grows_only(self):
        assert self.index.revision >= self.last
        self.last = self.index.revision

    @invariant()
    def agents_are_as_modelled(self):
        assert list(self.index.names()) == sorted(self.agents)
        for name in self.agents:
            agent = self.index.agent(name)
            there = {i: k for i, k in sorted(self.known.items()) if k.agent == name}
            assert [i.instance_id for i in agent.instances] == list(there)
            assert [i.state for i in agent.instances] == [k.shown for k in there.values()]
            if there:
                assert {ref.name for ref in agent.services} == {
                    s for k in there.values() for s in k.services
                }
            serving = [i for i, k in there.items() if k.shown in IN_SERVICE]
            assert [i.instance_id for i in self.index.in_service(name)] == serving

    @invariant()
    def lookups_are_as_modelled(self):
        for find, attribute, names in (
            (self.index.serving, "services", ["p.One", "p.Two", "p.Three"]),
            (self.index.capable, "capabilities", ["x", "y"]),
        ):
            for name in names:
                wanted = sorted(
                    (k.agent, i)
                    for i, k in self.known.items()
                    if name in getattr(k, attribute) and k.shown in IN_SERVICE
                )
                found = find(name)
                assert [(i.agent, i.instance_id) for i in found or ()] == wanted


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_revisions_of_another_epoch_cannot_be_resumed():
    index = Index(5_000)
    assert index.changes(4_999) is None
    assert index.changes(5_001) is None
    assert index.changes(5_000) == []


async def test_a_burst_of_changes_wakes_a_waiter_once():
    index = Index(0)
    register(
        index,
        agent_pb2.Instance(instance_id="i", agent="a", state=2),
        agent_pb2.Agent(name="a"),
    )
    async with asyncio.timeout(5):
        await index.changed.wait()
        for number in range(100):
            index.probed(["i"], f"fault {number}")
        await index.changed.wait()
    assert index.revision == 101
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await index.changed.wait()


async def test_services_of_an_agent_that_is_gone_stay_known():
    index = Index(0)
    ref = agent_pb2.ServiceRef(name="p.One", descriptor_digest="d")
    register(
        index,
        agent_pb2.Instance(instance_id="i", agent="a", services=[ref], capabilities=["x"], state=2),
        agent_pb2.Agent(name="a", description="what it does"),
    )
    index.remove(["i"])
    agent = index.agent("a")
    assert (agent.description, list(agent.services), list(agent.instances)) == (
        "what it does",
        [ref],
        [],
    )
    assert index.serving("p.One") == []
    assert index.capable("x") == []
    assert index.serving("p.Two") is None


@pytest.mark.parametrize("newest", ["old", "new"])
async def test_the_instance_that_registered_last_decides_about_a_service(newest):
    index = Index(0)
    order = ["old", "new"] if newest == "new" else ["new", "old"]
    for name in order:
        ref = agent_pb2.ServiceRef(name="p.One", descriptor_digest=name)
        register(
            index,
            agent_pb2.Instance(instance_id=name, agent="a", services=[ref], state=2),
            agent_pb2.Agent(name="a"),
        )
    assert [ref.descriptor_digest for ref in index.agent("a").services] == [newest]
