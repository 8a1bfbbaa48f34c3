"""Single point of control for what this replica changes: stored in groups, and seen when the database says so.

While the database is away, what cannot wait takes effect in this replica alone - drains, leaves, leases that ran out,
probes - and is stored, where it still holds, when the database is back. Registrations are refused meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping
from datetime import timedelta

from weft import rpc
from weft.registry.errors import InstanceTaken
from weft.registry.follower import Follower
from weft.registry.index import Index, State
from weft.registry.store import Batch, Registration, Store
from weft.v1 import agent_pb2

log = logging.getLogger("weft.registry")

_SOON = 0.25  # seconds after which what cannot wait takes effect though it is not stored yet
_AGAIN = 0.5  # seconds between attempts while the database is away
_PASSING = (rpc.Unavailable, rpc.DeadlineExceeded, rpc.Aborted)


class _Group:
    """What is stored together, and who waits for it."""

    def __init__(self) -> None:
        self.batch = Batch()
        self.registering: set[str] = set()
        self.refused = frozenset[str]()  # leases
        self.timer: asyncio.TimerHandle | None = None
        self.seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, error: rpc.Error | None = None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.seen.done():
            return
        if error is None:
            self.seen.set_result(None)
        else:
            self.seen.set_exception(error)
            self.seen.exception()  # perhaps nobody waits


class Writer:
    """Writes for this replica.

    Args:
        store: where changes are stored.
        index: where they take effect meanwhile.
        follower: tells when they are seen.
        patience: how long that may take.
    """

    def __init__(self, store: Store, index: Index, follower: Follower, patience: timedelta) -> None:
        self._store = store
        self._index = index
        self._follower = follower
        self._patience = patience.total_seconds()
        self._next = _Group()
        self._owed = Batch()  # took effect here and is not stored
        self._asked = asyncio.Event()
        self._away = False

    async def register(self, registration: Registration) -> None:
        """Stores instances under a lease; returns when they are discoverable here.

        Raises:
            InstanceTaken: one of them is another agent's; nothing is stored.
            rpc.Unavailable, rpc.DeadlineExceeded: the database is away; perhaps nothing is stored.
        """
        ids = {instance.instance_id for instance in registration.instances}
        while not self._next.registering.isdisjoint(ids):
            await asyncio.wait({self._next.seen})
        group = self._next
        group.registering |= ids
        group.batch.registrations.append(registration)
        self._asked.set()
        try:
            await asyncio.shield(group.seen)
        except _PASSING:
            if registration.lease_id not in group.refused:
                raise
        except rpc.Error:
            if len(group.batch.registrations) == 1:
                raise
            # What the database does not take may be another's.
            alone = Batch(registrations=[registration])
            revision, refused = await self._store.write(alone)
            group.refused |= refused
            await self._follower.reached(revision, self._patience)
        if registration.lease_id in group.refused:
            raise InstanceTaken

    async def announce(
        self, lease_id: str, instance_ids: Collection[str], state: State.ValueType, reason: str
    ) -> None:
        """Stores what instances of a lease announce of themselves; returns when it is seen here.

        Raises:
            rpc.Unavailable, rpc.DeadlineExceeded: seen, but the database is away; it is stored later.
        """
        for instance_id in instance_ids:
            instance = self._index.storable(instance_id)
            if instance is not None:
                instance.state, instance.state_reason = state, reason
                self._next.batch.states[instance_id] = (lease_id, instance)
        await asyncio.shield(self._ask())

    async def applied(self, lease_id: str, instance_id: str, applied: agent_pb2.Applied) -> None:
        """Stores how far an instance of a lease does as operators say; returns when it is seen here.

        Raises:
            rpc.Unavailable, rpc.DeadlineExceeded: the database is away; it is stored later.
        """
        instance = self._index.storable(instance_id)
        if instance is not None and instance.applied != applied:
            instance.applied.CopyFrom(applied)
            self._next.batch.states[instance_id] = (lease_id, instance)
            await asyncio.shield(self._ask())

    async def remove(self, lease_id: str, instance_ids: Collection[str]) -> None:
        """Removes instances that are still of a lease; returns when that is seen here, stored or not."""
        with contextlib.suppress(rpc.Error):
            await asyncio.shield(self.forget(lease_id, instance_ids))

    def forget(self, lease_id: str, instance_ids: Collection[str]) -> asyncio.Future[None]:
        """Removes instances that are still of a lease; done when that is seen here, failed where it is not stored."""
        self._next.batch.removals.update(dict.fromkeys(instance_ids, lease_id))
        return self._ask()

    def probed(self, faults: Mapping[str, str]) -> None:
        """Stores what the probes say of instances, with nobody waiting."""
        self._next.batch.faults.update(faults)
        self._ask()

    async def run(self) -> None:
        """Writes for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN if self._away else None):
                        await self._asked.wait()
                self._asked.clear()
                group, self._next = self._next, _Group()
                revision = await self._store_group(group)
                if revision is not None:
                    tasks.create_task(self._confirm(group, revision))

    async def flush(self) -> None:
        """Writes what is left, if the database takes it."""
        group, self._next = self._next, _Group()
        if group.batch or self._owed:
            await self._store_group(group)

    def _ask(self) -> asyncio.Future[None]:
        group = self._next
        if group.timer is None:
            soon = 0.0 if self._away else _SOON
            group.timer = asyncio.get_running_loop().call_later(soon, self._take_effect, group)
        self._asked.set()
        return group.seen

    async def _store_group(self, group: _Group) -> int | None:
        """Stores a group and what is owed; None: the database does not take it now."""
        batch = group.batch
        owed = Batch(
            states=self._owed.states | batch.states,
            faults=self._owed.faults | batch.faults,
            removals=self._owed.removals | batch.removals,
        )
        self._owed = owed
        whole = Batch(batch.registrations, owed.states, owed.faults, owed.removals)
        writing = asyncio.create_task(
            self._store.write(whole, behind=self._index.position), name="write"
        )
        try:
            revision, group.refused = await asyncio.shield(writing)
        except asyncio.CancelledError:  # this replica stops: what is under way is not broken off
            await asyncio.wait({writing})
            if writing.exception() is None:
                self._owed = Batch()
            raise
        except Exception as failed:  # whatever it is, it must not end the registry
            self._take_effect(group)
            error = _told(failed)
            if not isinstance(error, _PASSING) and not batch.registrations:
                log.exception("the database does not take what is owed; it is dropped")
                self._owed = Batch()
            elif not self._away:
                log.warning("the database does not take changes", extra={"cause": error.message})
            self._away = True
            group.end(error)
            return None
        self._owed, self._away = Batch(), False
        if (
            group.timer is not None
        ):  # what is stored comes by the follower, and perhaps something newer with it
            group.timer.cancel()
        return revision

    async def _confirm(self, group: _Group, revision: int) -> None:
        try:
            await self._follower.reached(revision, self._patience)
        except rpc.Error as failed:
            self._take_effect(group)
            group.end(failed)
        else:
            group.end()

    def _take_effect(self, group: _Group) -> None:
        """Lets what cannot wait be seen here, where the instances are still of their leases."""
        group.timer = None
        index, batch = self._index, group.batch
        for instance_id, (lease_id, instance) in batch.states.items():
            if index.holder(instance_id)[0] == lease_id:
                index.announce([instance_id], instance.state, instance.state_reason)
        for instance_id, fault in batch.faults.items():
            index.probed([instance_id], fault)
        gone = [i for i, lease_id in batch.removals.items() if index.holder(i)[0] == lease_id]
        index.remove(gone)


def _told(failed: Exception) -> rpc.Error:
    if isinstance(failed, rpc.Error):
        return failed
    log.error("storing failed", exc_info=failed)
    return rpc.Internal("The registry cannot store this.")
