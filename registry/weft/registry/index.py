"""What the registry knows, in memory: agents, their instances, and at which revision each agent changed last.

Reads never touch the database. All messages handed out are shared: readers must not change them, and must
copy what they keep past the next await (adding them to a response does).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from weft.registry.signal import Signal
from weft.v1 import agent_pb2

Agent = agent_pb2.Agent
Instance = agent_pb2.Instance
ServiceRef = agent_pb2.ServiceRef
State = agent_pb2.InstanceState

IN_SERVICE = frozenset((State.INSTANCE_STATE_SERVING, State.INSTANCE_STATE_DEGRADED))


class _Entry:
    """An instance: what it announces of itself, and what the health probes say of it."""

    __slots__ = ("announced", "fault", "instance", "order", "reason")

    def __init__(self, instance: Instance, order: int, fault: str) -> None:
        self.instance = instance
        self.announced = instance.state
        self.reason = instance.state_reason
        self.order = order
        self.fault = fault
        self.settle()

    def settle(self) -> bool:
        """Works out the state from what is announced and what is probed; whether it differs now."""
        before = (self.instance.state, self.instance.state_reason)
        unreachable = self.fault and self.announced in IN_SERVICE
        now = (
            (State.INSTANCE_STATE_UNREACHABLE, self.fault)
            if unreachable
            else (self.announced, self.reason)
        )
        self.instance.state, self.instance.state_reason = now
        return before != now


class _Role:
    """An agent: its contract and those who fill it."""

    __slots__ = ("contract", "entries", "in_service", "view")

    def __init__(self, contract: Agent) -> None:
        self.contract = contract
        self.entries: dict[str, _Entry] = {}
        self.view: Agent | None = None
        self.in_service: tuple[Instance, ...] | None = None

    def refresh_services(self) -> None:
        """Sets the contract's services to those of the instances; with no instance the last known stay.

        Where instances differ about a service, during an upgrade, the one that registered last is right.
        """
        if not self.entries:
            return
        found: dict[str, ServiceRef] = {}
        for entry in sorted(self.entries.values(), key=lambda entry: entry.order):
            found |= {ref.name: ref for ref in entry.instance.services}
        del self.contract.services[:]
        self.contract.services.extend(found.values())


class Index:
    """Agents and instances, with a revision that grows with every change.

    Attributes:
        revision: of the latest change.
        floor: revision the index was restored at; changes up to it cannot be told apart.
        changed: fires after changes.

    Args:
        floor: revision to begin with; greater than any a former run has given out.
    """

    def __init__(self, floor: int = 0) -> None:
        self.floor = floor
        self.revision = floor
        self.changed = Signal()
        self._roles: dict[str, _Role] = {}
        self._names: list[str] | None = []
        self._recent: dict[str, int] = {}  # agent -> revision of its last change, oldest first
        self._home: dict[str, str] = {}  # instance id -> agent
        # Keys are never removed: what was registered once is known, if only as "nobody there".
        self._by_service: dict[str, dict[str, None]] = {}
        self._by_capability: dict[str, dict[str, None]] = {}
        self._order = 0

    # --- writing -------------------------------------------------------------------------------------

    def restore(
        self, agents: Iterable[Agent], services: Iterable[str], capabilities: Iterable[str]
    ) -> None:
        """Takes over what a former run knew, without a new revision. Instances follow by `register`."""
        for agent in agents:
            self._roles[agent.name] = _Role(agent)
            self._recent[agent.name] = self.revision
        self._names = None
        for name in services:
            self._by_service.setdefault(name, {})
        for name in capabilities:
            self._by_capability.setdefault(name, {})

    def register(self, instances: Iterable[Instance], contracts: Mapping[str, Agent]) -> int:
        """Adds or replaces instances and their agents' contracts; the revision they are visible at.

        The index keeps the instances. An instance that comes back keeps its load and, at the same address,
        what the probes said of it; one that comes back unchanged is no change.
        """
        touched: set[str] = set()
        for instance in instances:
            former = self._entry(instance.instance_id)
            if former is None or self.storable(instance.instance_id) != instance:
                touched |= self._put(instance, former)
        for name, contract in contracts.items():
            if self._adopt(name, contract):
                touched.add(name)
        return self._touch(touched)

    def announce(self, instance_ids: Iterable[str], state: State.ValueType, reason: str) -> int:
        """Sets what instances announce of themselves; the revision it is visible at."""
        touched = set()
        for instance_id in instance_ids:
            entry = self._entry(instance_id)
            if entry is not None:
                entry.announced, entry.reason = state, reason
                if entry.settle():
                    touched.add(entry.instance.agent)
        return self._touch(touched)

    def probed(self, instance_ids: Iterable[str], fault: str) -> int:
        """Sets what the probes say: "" for healthy, else what is wrong."""
        touched = set()
        for instance_id in instance_ids:
            entry = self._entry(instance_id)
            if entry is not None:
                entry.fault = fault
                if entry.settle():
                    touched.add(entry.instance.agent)
        return self._touch(touched)

    def report(self, instance_id: str, load: agent_pb2.Load) -> None:
        """Sets the load of an instance. Load is no change: it has no revision and wakes nobody."""
        entry = self._entry(instance_id)
        if entry is not None:
            entry.instance.load.CopyFrom(load)

    def remove(self, instance_ids: Iterable[str]) -> int:
        """Removes instances; their agents stay known."""
        touched = set()
        for instance_id in instance_ids:
            entry = self._entry(instance_id)
            if entry is not None:
                touched.add(self._drop(entry))
        return self._touch(touched)

    # --- reading -------------------------------------------------------------------------------------

    def names(self) -> Sequence[str]:
        """Names of all agents that were ever registered, sorted."""
        if self._names is None:
            self._names = sorted(self._roles)
        return self._names

    def __contains__(self, agent: str) -> bool:
        return agent in self._roles

    def agent(self, name: str) -> Agent | None:
        """An agent with its instances, ordered by id."""
        role = self._roles.get(name)
        if role is None:
            return None
        if role.view is None:
            role.view = Agent()
            role.view.CopyFrom(role.contract)
            role.view.instances.extend(e.instance for _, e in sorted(role.entries.items()))
        else:  # loads move without making a new view
            for seen in role.view.instances:
                live = role.entries[seen.instance_id].instance
                if live.HasField("load"):
                    seen.load.CopyFrom(live.load)
        return role.view

    def in_service(self, name: str) -> Sequence[Instance]:
        """Instances of an agent that take calls now, ordered by id; none for an unknown agent."""
        role = self._roles.get(name)
        if role is None:
            return ()
        if role.in_service is None:
            role.in_service = tuple(
                entry.instance
                for _, entry in sorted(role.entries.items())
                if entry.instance.state in IN_SERVICE
            )
        return role.in_service

    def serving(self, service: str) -> Sequence[Instance] | None:
        """Instances that serve a gRPC service now, by agent and id; None: it was never registered."""
        return self._filed(self._by_service.get(service))

    def capable(self, capability: str) -> Sequence[Instance] | None:
        """Instances with a capability that take calls now; None: it was never registered."""
        return self._filed(self._by_capability.get(capability))

    def instance(self, instance_id: str) -> Instance | None:
        """An instance by id."""
        entry = self._entry(instance_id)
        return None if entry is None else entry.instance

    def storable(self, instance_id: str) -> Instance | None:
        """A copy of an instance as it announced itself: without load, and whatever the probes say."""
        entry = self._entry(instance_id)
        if entry is None:
            return None
        copy = Instance()
        copy.CopyFrom(entry.instance)
        copy.ClearField("load")
        copy.state, copy.state_reason = entry.announced, entry.reason
        return copy

    def changes(self, after: int) -> list[str] | None:
        """Names of the agents that changed after a revision, latest first.

        None: that cannot be told, for the revision is of a former run (or of a future one).
        """
        if not self.floor <= after <= self.revision:
            return None
        return list(self._since(after))

    # --- inside --------------------------------------------------------------------------------------

    def _since(self, after: int) -> Iterator[str]:
        # Since agents are never forgotten, the last change of each is a complete history, bounded by
        # the number of agents, and a watcher that was away for long gets each agent once.
        for name in reversed(self._recent):
            if self._recent[name] <= after:
                return
            yield name

    def _entry(self, instance_id: str) -> _Entry | None:
        home = self._home.get(instance_id)
        return None if home is None else self._roles[home].entries[instance_id]

    def _filed(self, ids: Mapping[str, None] | None) -> Sequence[Instance] | None:
        if ids is None:
            return None
        found = [self._roles[self._home[i]].entries[i].instance for i in ids]
        found = [instance for instance in found if instance.state in IN_SERVICE]
        return sorted(found, key=lambda instance: (instance.agent, instance.instance_id))

    def _put(self, instance: Instance, former: _Entry | None) -> set[str]:
        touched = {instance.agent}
        fault = ""
        if former is not None:
            old = former.instance
            if old.HasField("load"):
                instance.load.CopyFrom(old.load)
            if old.address == instance.address:
                fault = former.fault
            touched.add(self._drop(former))
        role = self._roles.get(instance.agent)
        if role is None:
            role = self._roles[instance.agent] = _Role(Agent(name=instance.agent))
            self._names = None
        self._order += 1
        role.entries[instance.instance_id] = _Entry(instance, self._order, fault)
        self._home[instance.instance_id] = instance.agent
        for ref in instance.services:
            self._by_service.setdefault(ref.name, {})[instance.instance_id] = None
        for capability in instance.capabilities:
            self._by_capability.setdefault(capability, {})[instance.instance_id] = None
        return touched

    def _drop(self, entry: _Entry) -> str:
        instance = entry.instance
        del self._home[instance.instance_id]
        del self._roles[instance.agent].entries[instance.instance_id]
        for ref in instance.services:
            self._by_service[ref.name].pop(instance.instance_id, None)
        for capability in instance.capabilities:
            self._by_capability[capability].pop(instance.instance_id, None)
        return instance.agent

    def _adopt(self, name: str, contract: Agent) -> bool:
        role = self._roles[name]
        adopted = Agent()
        adopted.CopyFrom(contract)
        del adopted.services[:]
        adopted.services.extend(role.contract.services)
        if adopted == role.contract:
            return False
        role.contract = adopted
        return True

    def _touch(self, names: set[str]) -> int:
        if not names:
            return self.revision
        self.revision += 1
        for name in names:
            role = self._roles[name]
            role.view = role.in_service = None
            role.refresh_services()
            self._recent.pop(name, None)
            self._recent[name] = self.revision
        self.changed.notify()
        return self.revision
