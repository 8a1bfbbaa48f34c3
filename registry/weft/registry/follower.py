"""Keeps index, catalog, leases and probes in step with the database: what all replicas share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from weft import rpc
from weft.postgres import Listener
from weft.registry import catalog
from weft.registry.health import Health
from weft.registry.index import Index
from weft.registry.leases import Leases
from weft.registry.store import LOCAL, Changes, Store

log = logging.getLogger("weft.registry")

CHANNEL = "weft_registry"
_CATCH_UP = 1.0  # seconds: a change whose notification was lost is seen by then
_GAP = 0.005  # seconds between two looks: a storm of changes is read in few of them


class Behind(rpc.Unavailable):
    """This replica has not caught up with the database; try again, or another one."""

    reason = "REPLICA_BEHIND"


class Follower:
    """Follows the database.

    Args:
        store: where changes are read.
        index: follows.
        sets: follows.
        table: follows: which leases are this replica's.
        health: follows: which instances are this replica's to probe.
    """

    def __init__(
        self, store: Store, index: Index, sets: catalog.Catalog, table: Leases, health: Health
    ) -> None:
        self._store = store
        self._index = index
        self._sets = sets
        self._leases = table
        self._health = health
        self._heard = 0  # the latest revision that is known to exist
        self._behind_since: float | None = None
        self._look = asyncio.Event()

    @property
    def lag(self) -> float:
        """Seconds for which this replica has known, or must assume, that it is behind; 0 when it is not."""
        return 0.0 if self._behind_since is None else time.monotonic() - self._behind_since

    async def load(self) -> None:
        """Reads everything. Raises rpc.Error."""
        self._take(await self._store.changes(-1))

    async def run(self, url: str) -> None:
        """Follows for ever.

        Args:
            url: of the database, to listen on.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Listener(url, CHANNEL, self._notified).run())
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CATCH_UP):
                        await self._look.wait()
                self._look.clear()
                await self._catch_up()
                await asyncio.sleep(_GAP)

    async def reached(self, revision: int, patience: float) -> None:
        """Returns when everything up to a revision is here.

        Raises:
            Behind: it is not, in so many seconds.
        """
        try:
            async with asyncio.timeout(patience):
                while self._index.position < revision:
                    self._look.set()  # and no more: whoever asks may know a revision that there never was
                    await self._index.moved.wait()
        except TimeoutError:
            raise Behind from None

    def _notified(self, payload: str | None) -> None:
        if payload is None:  # begins to listen: something may have been said before
            self._look.set()
        elif payload.isdecimal():
            self._expect(int(payload) * LOCAL)

    def _expect(self, revision: int) -> None:
        self._heard = max(self._heard, revision)
        if self._heard > self._index.position:
            if self._behind_since is None:
                self._behind_since = time.monotonic()
            self._look.set()

    async def _catch_up(self) -> None:
        try:
            changes = await self._store.changes(self._index.position)
        except rpc.Error as failed:
            if self._behind_since is None:
                self._behind_since = time.monotonic()
                log.warning("the database is away", extra={"cause": failed.message})
            return
        self._take(changes)

    def _take(self, changes: Changes) -> None:
        for found in changes.descriptors:
            if found.digest in self._sets:
                continue
            try:
                self._sets.add(found.digest, found.content, catalog.read(found.content))
            except catalog.InvalidSetError:  # as after an upgrade; who needs it is asked to send it
                log.exception("a stored descriptor set is left out", extra={"digest": found.digest})
        before = set(self._index.ids()) if changes.whole and self._index.position else set[str]()
        self._index.follow(changes)
        for instance_id in changes.departed:
            self._leases.lost(instance_id)
            self._health.release(instance_id)
        for row in changes.instances:
            instance = row.instance
            before.discard(instance.instance_id)
            if row.replica == self._store.replica:
                self._leases.held(instance.instance_id, row.lease_id)
                self._health.hold(instance, row.fault)
            else:
                self._leases.lost(instance.instance_id, row.lease_id)
                self._health.release(instance.instance_id)
        for instance_id in before:
            self._leases.lost(instance_id)
            self._health.release(instance_id)
        self._behind_since = None if self._heard <= self._index.position else time.monotonic()
