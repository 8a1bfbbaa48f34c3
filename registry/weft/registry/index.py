"""What the registry knows, in memory: agents, their instances, and at which revision each agent changed last.

It follows the database, which numbers what all replicas share; what a replica has to decide alone, with the database
away, it numbers itself, behind the last number it knows. Reads never touch the database. All messages handed out are shared: readers must not change them, and must
copy what they keep past the next await (adding them to a response does).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from weft.registry.signal import Signal
from weft.registry.store import Changes, Row
from weft.registry.traffic import Policy
from weft.v1 import agent_pb2, lifecycle_pb2

Agent = agent_pb2.Agent
Instance = agent_pb2.Instance
Control = lifecycle_pb2.Control
Hold = lifecycle_pb2.Hold
ServiceRef = agent_pb2.ServiceRef
State = agent_pb2.InstanceState

IN_SERVICE = frozenset((State.INSTANCE_STATE_SERVING, State.INSTANCE_STATE_DEGRADED))


class _Entry:
    """An instance: what it announces of itself, what the health probes say of it, and what operators want of it."""

    __slots__ = ("announced", "fault", "hold", "instance", "lease_id", "order", "reason", "replica")

    def __init__(self, instance: Instance, order: int, fault: str, hold: Hold | None) -> None:
        self.instance = instance
        self.announced = instance.state
        self.reason = instance.state_reason
        self.order = order
        self.fault = fault
        self.hold = hold
        self.lease_id = self.replica = ""
        self.settle()

    def settle(self) -> bool:
        """Works out the state from what is announced and what is probed; whether it differs now."""
        before = (self.instance.state, self.instance.state_reason)
        now = (self.announced, self.reason)
        if self.announced in IN_SERVICE and self.fault:
            now = (State.INSTANCE_STATE_UNREACHABLE, self.fault)
        elif self.announced in IN_SERVICE and self.hold is not None:
            now = (self.hold.state, self.hold.reason)
        self.instance.state, self.instance.state_reason = now
        return before != now


class _Role:
    """An agent: its contract, those who fill it, and what operators want of them."""

    __slots__ = ("contract", "control", "entries", "in_service", "policy", "stored", "view")

    def __init__(self, contract: Agent) -> None:
        self.contract = contract
        self.stored = tuple(contract.services)
        self.control: Control | None = None
        self.policy = Policy()
        self.entries: dict[str, _Entry] = {}
        self.view: Agent | None = None
        self.in_service: tuple[Instance, ...] | None = None

    def hold(self, instance_id: str) -> Hold | None:
        """What holds an instance back."""
        control = self.control
        if control is None:
            return None
        if instance_id in control.instance_holds:
            return control.instance_holds[instance_id]
        return control.hold if control.HasField("hold") else None

    def obey(self, control: Control) -> None:
        """Takes what operators want."""
        self.control = control
        self.policy = Policy(control.traffic)
        for instance_id, entry in self.entries.items():
            entry.hold = self.hold(instance_id)
            entry.instance.subset = self.policy.subset(entry.instance)
            entry.settle()

    def refresh_services(self) -> None:
        """Sets the contract's services to those of the instances; with no instance, to the last known.

        Where instances differ about a service, during an upgrade, the one that registered last is right.
        """
        found: dict[str, ServiceRef] = {}
        if not self.entries:
            found = {ref.name: ref for ref in self.stored or self.contract.services}
        entries = sorted(self.entries.items(), key=lambda item: (item[1].order, item[0]))
        for _, entry in entries:
            found |= {ref.name: ref for ref in entry.instance.services}
        del self.contract.services[:]
        self.contract.services.extend(found.values())


class Index:
    """Agents and instances, with a revision that grows with every change.

    Attributes:
        revision: of the latest change.
        position: up to which everything is known; beyond `revision` lies what nobody sees, such as leases that move.
        floor: revision the present epoch began at; changes up to it cannot be told apart.
        changed: fires after changes.
        moved: fires when `position` has moved.
        directed: fires when operators want something else of an agent.

    Args:
        floor: revision to begin with.
    """

    def __init__(self, floor: int = 0) -> None:
        self.floor = floor
        self.revision = floor
        self.position = floor
        self.changed = Signal()
        self.moved = Signal(gap=0)
        self.directed = Signal()
        self._roles: dict[str, _Role] = {}
        self._names: list[str] | None = []
        self._recent: dict[str, int] = {}  # agent -> revision of its last change, oldest first
        self._home: dict[str, str] = {}  # instance id -> agent
        # Keys are never removed: what was registered once is known, if only as "nobody there".
        self._by_service: dict[str, dict[str, None]] = {}
        self._by_capability: dict[str, dict[str, None]] = {}

    # --- writing -------------------------------------------------------------------------------------

    def follow(self, changes: Changes) -> None:
        """Takes what the database says, in place of whatever was known of these instances.

        An agent gets the revision the database has for it, the same at all replicas.
        """
        self.floor = changes.floor
        self.revision = max(self.revision, self.floor)
        differ = self._learn(changes)
        gone: Collection[str] = changes.departed
        if changes.whole:
            gone = self._home.keys() - {row.instance.instance_id for row in changes.instances}
        entries = [entry for i in gone if (entry := self._entry(i)) is not None]
        differ.update(self._drop(entry) for entry in entries)
        for row in changes.instances:
            differ |= self._place(row)
        controls = list(changes.controls)
        if changes.whole:  # where there is none any more, nothing is wanted
            named = {control.agent for control in controls}
            controls += [
                Control(agent=a)
                for a, role in self._roles.items()
                if role.control is not None and a not in named
            ]
        for control in controls:
            self._roles[control.agent].obey(control)
            differ.add(control.agent)
            self.directed.notify()
        for agent, revision in changes.agents:
            differ.discard(agent.name)
            self._mark(agent.name, revision)
        # Else only what this replica decided alone and the database does not confirm: news to those who were told.
        for name in sorted(differ):
            self._mark(name, changes.position)
        if changes.position > self.position:
            self.position = changes.position
            self.moved.notify()
        if differ or changes.agents:
            self.changed.notify()

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

    def ids(self) -> Collection[str]:
        """Ids of all instances."""
        return self._home.keys()

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
            if role.control is not None and role.control.HasField("traffic"):
                role.view.traffic.CopyFrom(role.control.traffic)
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

    def answering(self, name: str) -> Sequence[Instance]:
        """Those in service; where there is none, those that operators have paused: they say so to whoever calls."""
        role = self._roles.get(name)
        if role is None or self.in_service(name):
            return self.in_service(name)
        entries = [entry.instance for _, entry in sorted(role.entries.items())]
        return [each for each in entries if each.state == State.INSTANCE_STATE_PAUSED]

    def control(self, name: str) -> Control | None:
        """What operators want of an agent; None: they never said anything."""
        role = self._roles.get(name)
        return None if role is None else role.control

    def policy(self, name: str) -> Policy:
        """How the calls of an agent find an instance."""
        role = self._roles.get(name)
        return Policy() if role is None else role.policy

    def hold(self, instance_id: str) -> Hold | None:
        """What holds an instance back."""
        entry = self._entry(instance_id)
        return None if entry is None else entry.hold

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
        copy.ClearField("subset")
        copy.state, copy.state_reason = entry.announced, entry.reason
        return copy

    def holder(self, instance_id: str) -> tuple[str, str]:
        """Lease and replica that hold an instance; empty for one that is not there."""
        entry = self._entry(instance_id)
        return ("", "") if entry is None else (entry.lease_id, entry.replica)

    def fault(self, instance_id: str) -> str:
        """What the probes say of an instance; empty: healthy."""
        entry = self._entry(instance_id)
        return "" if entry is None else entry.fault

    def changes(self, after: int) -> list[str] | None:
        """Names of the agents that changed after a revision, latest first.

        None: that cannot be told, for the revision is of a former epoch (or of a future one).
        """
        if not self.floor <= after <= self.position:
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

    def _learn(self, changes: Changes) -> set[str]:
        """Takes names and contracts; the agents that look different now."""
        for name in changes.services:
            self._by_service.setdefault(name, {})
        for name in changes.capabilities:
            self._by_capability.setdefault(name, {})
        differ: set[str] = set()
        for agent, _ in changes.agents:
            if agent.name not in self._roles:
                self._roles[agent.name] = _Role(agent)
                self._names = None
                differ.add(agent.name)
            elif self._adopt(agent.name, agent):
                differ.add(agent.name)
        return differ

    def _place(self, row: Row) -> set[str]:
        """Puts an instance where a row says; the agents that look different now.

        The index keeps the instance. One that comes back keeps its load; one that comes back unchanged is no change.
        """
        former = self._entry(row.instance.instance_id)
        touched: set[str] = set()
        if (
            former is None
            or former.fault != row.fault
            or former.order != row.registered
            or self.storable(row.instance.instance_id) != row.instance
        ):
            touched = self._put(row.instance, former, row.registered, row.fault)
        entry = self._entry(row.instance.instance_id)
        assert entry is not None
        entry.lease_id, entry.replica = row.lease_id, row.replica
        return touched

    def _put(self, instance: Instance, former: _Entry | None, order: int, fault: str) -> set[str]:
        touched = {instance.agent}
        if former is not None:
            old = former.instance
            if old.HasField("load"):
                instance.load.CopyFrom(old.load)
            touched.add(self._drop(former))
        role = self._roles.get(instance.agent)
        if role is None:
            role = self._roles[instance.agent] = _Role(Agent(name=instance.agent))
            self._names = None
        instance.subset = role.policy.subset(instance)
        entry = _Entry(instance, order, fault, role.hold(instance.instance_id))
        role.entries[instance.instance_id] = entry
        if former is not None:
            entry.lease_id, entry.replica = former.lease_id, former.replica
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
        role.stored = tuple(contract.services)
        adopted = Agent()
        adopted.CopyFrom(contract)
        del adopted.services[:]
        adopted.services.extend(role.contract.services)
        if adopted == role.contract:
            return False
        role.contract = adopted
        return True

    def _touch(self, names: set[str]) -> int:
        """Numbers a change of this replica alone."""
        if names:
            self.position += 1
            for name in names:
                self._mark(name, self.position)
            self.changed.notify()
        return self.revision

    def _mark(self, name: str, revision: int) -> None:
        role = self._roles[name]
        role.view = role.in_service = None
        role.refresh_services()
        self._recent.pop(name, None)
        self._recent[name] = revision
        self.revision = max(self.revision, revision)
