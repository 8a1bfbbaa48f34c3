"""What outlives the registry, in PostgreSQL: agents, instances with their lease, descriptor sets, the run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from weft import rpc
from weft.postgres import Database
from weft.v1 import agent_pb2

log = logging.getLogger("weft.registry")

SQL = "weft.registry.sql"
# Revisions of a run begin here times the number of the run: greater than all of former runs, with no write
# for each, so that what is not stored (probes, expiry) is numbered while the database is away. Decimal, so
# that a person sees "run 3, change 57" in 3000000000057.
_RUN = 10**12


class DescriptorSet(NamedTuple):
    """A serialized google.protobuf.FileDescriptorSet and its SHA-256."""

    digest: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a former run left.

    Attributes:
        floor: revision this run begins at.
        agents: contracts, with the services last known.
        leases: instances by the id of the lease that held them.
        descriptors: all descriptor sets.
        services: names of all services ever registered.
        capabilities: all capabilities ever registered.
    """

    floor: int
    agents: Sequence[agent_pb2.Agent]
    leases: dict[str, list[agent_pb2.Instance]]
    descriptors: Sequence[DescriptorSet]
    services: Sequence[str]
    capabilities: Sequence[str]


class Store:
    """Writes through, one transaction for each change. Heartbeats and probes are not written.

    Args:
        database: the registry's own schema.
        patience: how long a write may take. A stream waits for it with its next heartbeats unread.
    """

    def __init__(self, database: Database, patience: timedelta) -> None:
        self._database = database
        self._patience = patience
        self._stored: set[str] = set()  # digests that need not be sent to the database again
        self._stale: asyncio.Queue[tuple[str, list[str]]] = asyncio.Queue()

    async def ping(self) -> None:
        """Asks the database for an answer. Raises rpc.Error where it gives none."""
        await self._database.ping()

    async def restore(self) -> Restored:
        """Begins a run: brings the schema up to date and reads everything."""
        await self._database.migrate(package=SQL)
        run: int = await self._database.fetchval("begin_run")
        held: dict[str, list[agent_pb2.Instance]] = {}
        for row in await self._database.fetch("all_instances"):
            instance = agent_pb2.Instance.FromString(row["document"])
            held.setdefault(row["lease_id"], []).append(instance)
        names = await self._database.fetch("all_names")
        sets = await self._database.fetch("all_descriptors")
        self._stored = {row["digest"] for row in sets}
        return Restored(
            floor=run * _RUN,
            agents=[
                agent_pb2.Agent.FromString(row["document"])
                for row in await self._database.fetch("all_agents")
            ],
            leases=held,
            descriptors=[DescriptorSet(row["digest"], row["content"]) for row in sets],
            services=[row["name"] for row in names if row["kind"] == "service"],
            capabilities=[row["name"] for row in names if row["kind"] == "capability"],
        )

    async def register(
        self,
        lease_id: str,
        instances: Sequence[agent_pb2.Instance],
        agents: Sequence[agent_pb2.Agent],
        descriptors: Sequence[DescriptorSet],
    ) -> None:
        """Stores instances under a lease, with their agents' contracts and descriptor sets.

        Raises:
            rpc.Unavailable, rpc.DeadlineExceeded: the database is away; perhaps nothing is stored.
        """
        names = {("service", ref.name) for instance in instances for ref in instance.services}
        names |= {("capability", word) for instance in instances for word in instance.capabilities}
        # Rows in one order in every transaction: two that meet wait for each other and never deadlock.
        ordered = sorted(instances, key=lambda instance: instance.instance_id)
        roles = sorted(agents, key=lambda agent: agent.name)
        sets = sorted(s for s in descriptors if s.digest not in self._stored)
        named = sorted(names)
        with rpc.Deadline.after(self._patience).applied():
            async with self._database.transaction() as work:
                if sets:
                    digests, contents = [s.digest for s in sets], [s.content for s in sets]
                    await work.execute("put_descriptors", digests, contents)
                await work.execute(
                    "put_agents", [a.name for a in roles], [_bytes(a) for a in roles]
                )
                await work.execute("put_names", [kind for kind, _ in named], [n for _, n in named])
                await work.execute(
                    "put_instances",
                    lease_id,
                    [i.instance_id for i in ordered],
                    [i.agent for i in ordered],
                    [_bytes(i) for i in ordered],
                )
        self._stored.update(s.digest for s in sets)

    async def update(self, lease_id: str, instances: Sequence[agent_pb2.Instance]) -> None:
        """Stores instances anew, those that are still of this lease.

        Raises:
            rpc.Unavailable, rpc.DeadlineExceeded: the database is away; perhaps nothing is stored.
        """
        with rpc.Deadline.after(self._patience).applied():
            await self._database.execute(
                "update_instances",
                lease_id,
                [i.instance_id for i in instances],
                [_bytes(i) for i in instances],
            )

    def forget(self, lease_id: str, instance_ids: Sequence[str]) -> None:
        """Deletes instances, those that are still of this lease.

        Done by `run`, so that no caller waits and none that is cancelled leaves it undone. With the database
        away it is only logged: the next run restores the instances and lets them run out.
        """
        self._stale.put_nowait((lease_id, list(instance_ids)))

    async def run(self) -> None:
        """Does what `forget` was asked for, for ever."""
        while True:
            await self._forget(*await self._stale.get())

    async def flush(self) -> None:
        """Does what is left of it."""
        while not self._stale.empty():
            await self._forget(*self._stale.get_nowait())

    async def _forget(self, lease_id: str, instance_ids: list[str]) -> None:
        try:
            with rpc.Deadline.after(self._patience).applied():
                await self._database.execute("delete_instances", lease_id, instance_ids)
        except rpc.Error as failed:
            log.warning(
                "instances that left could not be deleted; they run out after the next start",
                extra={"lease_id": lease_id, "error": failed.message},
            )


def _bytes(message: agent_pb2.Instance | agent_pb2.Agent) -> bytes:
    # Equal contents give equal bytes, so that an upsert sees when nothing changed.
    return message.SerializeToString(deterministic=True)
