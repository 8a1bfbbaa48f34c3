"""What outlives a registry and is shared by all: agents, instances with their lease, descriptor sets, in PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from google.protobuf.message import Message

from weft import rpc
from weft.postgres import Database
from weft.v1 import agent_pb2, lifecycle_pb2, registry_pb2

log = logging.getLogger("weft.registry")

SQL = "weft.registry.sql"
SCHEMA = "registry"
# By another name than versions that knew of no other replicas: the schema tells them apart by it (0002_replicas.sql).
APPLICATION = "weft-registry-replica"
# Room between two revisions of the database for what a replica numbers alone while the database is away. Decimal, so
# that a person sees the two apart.
LOCAL = 1_000_000


class WentBack(rpc.Unavailable):
    """The database lost what it had said already; it is read anew in a moment. Try again."""

    reason = "DATABASE_WENT_BACK"


class DescriptorSet(NamedTuple):
    """A serialized google.protobuf.FileDescriptorSet and its SHA-256."""

    digest: str
    content: bytes


class Row(NamedTuple):
    """An instance as it is stored: as it announced itself, who holds it, and what the probes say of it.

    `registered`: revision of its registration.
    """

    instance: agent_pb2.Instance
    lease_id: str
    replica: str
    fault: str
    registered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What changed in the database after a revision.

    Attributes:
        position: revision up to which this is everything.
        floor: revision at which the present epoch began.
        whole: whether it is all there is, so that what is not named is gone.
        descriptors: new descriptor sets.
        services: names of services that were never registered before.
        capabilities: the same of capabilities.
        agents: contracts of agents that look different to others, each with its revision, in the order of those.
        departed: instances that are gone.
        instances: instances that are new or stored anew.
        controls: what operators want of agents, where that changed.
    """

    position: int
    floor: int = 0
    whole: bool = False
    descriptors: Sequence[DescriptorSet] = ()
    services: Sequence[str] = ()
    capabilities: Sequence[str] = ()
    agents: Sequence[tuple[agent_pb2.Agent, int]] = ()
    departed: Sequence[str] = ()
    instances: Sequence[Row] = ()
    controls: Sequence[lifecycle_pb2.Control] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Instances for one lease.

    Attributes:
        moved: ids of those known at another address, of which probes said nothing yet.
        former: agents that instances of these ids may be of until now, by id, beside their own; None: any.
    """

    lease_id: str
    instances: Sequence[agent_pb2.Instance]
    agents: Sequence[agent_pb2.Agent]
    descriptors: Sequence[DescriptorSet]
    moved: Sequence[str]
    former: Mapping[str, str] | None


@dataclass(slots=True)
class Batch:
    """Changes that are stored together. An instance is registered once in it.

    Attributes:
        registrations: what is registered.
        states: instances as they announce themselves now, by id, with the lease they must still be of.
        faults: what probes say, by id.
        removals: leases that instances must still be of to be removed, by id.
    """

    registrations: list[Registration] = field(default_factory=list)
    states: dict[str, tuple[str, agent_pb2.Instance]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    removals: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.registrations or self.states or self.faults or self.removals)


class Written(NamedTuple):
    """A batch that is stored, at a revision. `refused`: leases of registrations that want an instance of another agent."""

    revision: int
    refused: frozenset[str]


class _Refused(Exception):
    """Some leases want an instance of another agent: nothing of the transaction is stored."""

    def __init__(self, leases: Iterable[str]) -> None:
        super().__init__()
        self.leases = frozenset(leases)


class Peer(NamedTuple):
    """A replica. `silence`: since it was last heard of."""

    replica: str
    address: str
    start_time: datetime
    warm_time: datetime
    position: int
    leases: int
    silence: timedelta


class Store:
    """The database as a replica uses it. Its methods raise rpc.Unavailable and rpc.DeadlineExceeded while it is away.

    Args:
        database: the registry's own schema.
        replica: id of this replica.
        patience: how long a statement may take.
    """

    def __init__(self, database: Database, replica: str, patience: timedelta) -> None:
        self.replica = replica
        self._database = database
        self._patience = patience
        self._stored: set[str] = set()  # digests that need not be sent to the database again

    async def ping(self) -> None:
        """Asks the database for an answer. Raises rpc.Error where it gives none."""
        await self._database.ping()

    async def open(self) -> None:
        """Brings the schema up to date."""
        await self._database.migrate(package=SQL)

    async def changes(self, after: int) -> Changes:
        """What changed after a revision; everything if that is not known of it."""
        with rpc.Deadline.after(self._patience).applied():
            known = after // LOCAL
            rows = await self._database.fetch("changes", known)
            whole = known < max(rows[0]["number"], rows[0]["registered"])
            if rows[0]["revision"] < known:
                # As where a standby takes over that had not heard of all: nobody's place in it is good.
                log.warning("the database went back in time; everything is read anew")
                await self._database.execute("begin_epoch", known + 1)
                whole = True
            if whole and after >= 0:
                rows = await self._database.fetch("changes", -1)
        found: dict[int, list[Any]] = {kind: [] for kind in range(8)}
        for row in rows:
            found[row["kind"]].append(row)
        if whole:
            self._stored.clear()
        self._stored.update(row["name"] for row in found[1])
        return Changes(
            position=rows[0]["revision"] * LOCAL,
            floor=rows[0]["registered"] * LOCAL,
            whole=whole,
            descriptors=[DescriptorSet(row["name"], row["document"]) for row in found[1]],
            services=[row["name"] for row in found[2]],
            capabilities=[row["name"] for row in found[3]],
            agents=[
                (agent_pb2.Agent.FromString(row["document"]), row["revision"] * LOCAL)
                for row in found[4]
            ],
            departed=[row["name"] for row in found[5]],
            instances=[
                Row(
                    agent_pb2.Instance.FromString(row["document"]),
                    row["lease_id"],
                    row["replica"] or "",
                    row["fault"],
                    row["registered"],
                )
                for row in found[6]
            ],
            controls=[lifecycle_pb2.Control.FromString(row["document"]) for row in found[7]],
        )

    async def write(self, batch: Batch, *, behind: int = 0) -> Written:
        """Stores a batch in one transaction. What this replica does not hold any more stays as it is.

        Args:
            batch: changes.
            behind: revision that the new one must be greater than, for it was read.

        Raises:
            WentBack: it is not.
        """
        refused = frozenset[str]()
        with rpc.Deadline.after(self._patience).applied():
            while True:
                try:
                    return Written(await self._write(batch, behind), refused)
                except _Refused as failed:
                    refused |= failed.leases
                    taken = [one for one in batch.registrations if one.lease_id not in refused]
                    batch = replace(batch, registrations=taken)

    async def _write(self, batch: Batch, behind: int) -> int:
        async with self._database.transaction() as work:
            # First, so that no other replica has changed what is compared below.
            revision: int = await work.fetchval("take_revision", 0)
            if revision * LOCAL <= behind:
                raise WentBack
            if batch.registrations:
                sets = {s for each in batch.registrations for s in each.descriptors}
                fresh = sorted(s for s in sets if s.digest not in self._stored)
                if fresh:
                    await work.execute(
                        "put_descriptors", [s.digest for s in fresh], [s.content for s in fresh]
                    )
                agents = {a.name: a for each in batch.registrations for a in each.agents}
                await work.execute("put_agents", list(agents), [_bytes(a) for a in agents.values()])
                names = sorted(_names(batch.registrations))
                await work.execute("put_names", [kind for kind, _ in names], [n for _, n in names])
                rows = [(i, each.lease_id) for each in batch.registrations for i in each.instances]
                ids = [i.instance_id for i, _ in rows]
                lease_ids = [lease_id for _, lease_id in rows]
                stored = await work.execute(
                    "put_instances",
                    self.replica,
                    ids,
                    [i.agent for i, _ in rows],
                    lease_ids,
                    [_bytes(i) for i, _ in rows],
                    [moved for each in batch.registrations for moved in each.moved],
                    _former(batch.registrations),
                )
                if stored < len(rows):
                    found = await work.fetch("refused", ids, lease_ids)
                    raise _Refused(row["lease_id"] for row in found)
            if batch.states:
                leases = [lease_id for lease_id, _ in batch.states.values()]
                documents = [_bytes(instance) for _, instance in batch.states.values()]
                await work.execute(
                    "update_instances", self.replica, list(batch.states), leases, documents
                )
            if batch.faults:
                await work.execute(
                    "update_faults",
                    self.replica,
                    list(batch.faults),
                    list(batch.faults.values()),
                )
            if batch.removals:
                await work.execute(
                    "delete_instances",
                    self.replica,
                    list(batch.removals),
                    list(batch.removals.values()),
                )
        return revision * LOCAL

    async def change_control(
        self,
        agent: str,
        change: Callable[[lifecycle_pb2.Control], lifecycle_pb2.ControlEvent | None],
    ) -> int:
        """Changes what operators want of an agent, and records it; the revision it is visible at.

        Args:
            agent: that is registered.
            change: changes what is in force now and says what was done; None: nothing.
        """
        with rpc.Deadline.after(self._patience).applied():
            async with self._database.transaction() as work:
                # First, so that nobody changes it in between.
                revision: int = await work.fetchval("take_revision", 0)
                document = await work.fetchval("get_control", agent)
                control = lifecycle_pb2.Control.FromString(document or b"")
                control.agent = agent
                event = change(control)
                if event is not None:
                    event.version = control.version = control.version + 1
                    await work.execute("put_control", agent, _bytes(control))
                    await work.execute("put_control_event", agent, event.SerializeToString())
        return revision * LOCAL

    async def control_events(
        self, agent: str, before: int, limit: int
    ) -> list[tuple[int, lifecycle_pb2.ControlEvent]]:
        """What operators did to an agent, or to all (""), before an event; the latest first, with their numbers."""
        rows = await self._database.fetch("control_events", agent, before, limit)
        return [
            (row["event"], lifecycle_pb2.ControlEvent.FromString(row["document"])) for row in rows
        ]

    async def begin_epoch(self) -> None:
        """Makes all revisions so far such that nobody can resume behind them."""
        with rpc.Deadline.after(self._patience).applied():
            await self._database.execute("begin_epoch", 0)

    async def beat(
        self, address: str, start: datetime, warm: datetime, position: int, leases: int
    ) -> bool:
        """Says that this replica lives; whether it was not there, or not any more."""
        with rpc.Deadline.after(self._patience).applied():
            return bool(
                await self._database.fetchval(
                    "beat", self.replica, address, start, warm, position // LOCAL, leases
                )
            )

    async def peers(self) -> list[Peer]:
        """All replicas, this one too, by their age."""
        with rpc.Deadline.after(self._patience).applied():
            rows = await self._database.fetch("all_replicas")
        return [Peer(*row.values())._replace(position=row["position"] * LOCAL) for row in rows]

    async def drop_former(self, address: str) -> None:
        """Strikes out who served at this replica's address before."""
        with rpc.Deadline.after(self._patience).applied():
            await self._database.execute("drop_former", self.replica, address)

    async def drop(self, replica: str, silence: timedelta = timedelta(0)) -> bool:
        """Strikes out a replica that has been silent for so long; False: it was heard of again."""
        with rpc.Deadline.after(self._patience).applied():
            return await self._database.execute("drop_replica", replica, silence) > 0

    async def adopt(self) -> int:
        """Takes over what is held by no replica there is; how many instances."""
        with rpc.Deadline.after(self._patience).applied():
            if not await self._database.fetchval("orphans"):
                return 0
            async with self._database.transaction() as work:
                # Whoever comes second finds none, and not those that the first is just taking.
                await work.fetchval("take_revision", 0)
                return await work.execute("adopt", self.replica)

    async def forget_departures(self, older: timedelta) -> None:
        """Forgets which instances are gone for so long."""
        with rpc.Deadline.after(self._patience).applied():
            await self._database.execute("forget_departures", older)
            await self._database.execute("drop_loads")

    async def put_loads(self, report: registry_pb2.LoadReport) -> None:
        """Says what this replica's instances report, in place of what it said before."""
        with rpc.Deadline.after(self._patience).applied():
            await self._database.execute("put_loads", self.replica, report.SerializeToString())

    async def other_loads(
        self, known: Mapping[str, int]
    ) -> list[tuple[str, int, registry_pb2.LoadReport]]:
        """What other replicas' instances report, with its number, where that is not known."""
        seen = [f"{replica} {number}" for replica, number in known.items()]
        with rpc.Deadline.after(self._patience).applied():
            rows = await self._database.fetch("other_loads", self.replica, seen)
        return [
            (row["replica"], row["number"], registry_pb2.LoadReport.FromString(row["document"]))
            for row in rows
        ]


def _names(registrations: Collection[Registration]) -> set[tuple[str, str]]:
    instances = [i for each in registrations for i in each.instances]
    services = {("service", ref.name) for i in instances for ref in i.services}
    return services | {("capability", word) for i in instances for word in i.capabilities}


def _former(registrations: Collection[Registration]) -> list[str] | None:
    found: list[str] = []
    for each in registrations:
        if each.former is None:
            return None
        found += [f"{instance_id} {agent}" for instance_id, agent in each.former.items()]
    return found


def _bytes(message: Message) -> bytes:
    # Equal contents give equal bytes, so that an upsert sees when nothing changed.
    return message.SerializeToString(deterministic=True)
