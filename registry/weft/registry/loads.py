"""What instances report of themselves: at once at the replica that hears it, every few seconds at the others."""

from __future__ import annotations

import asyncio
import logging

from weft import rpc
from weft.registry.index import Index
from weft.registry.membership import Membership
from weft.registry.store import Store
from weft.v1 import agent_pb2, registry_pb2

log = logging.getLogger("weft.registry")

_EVERY = 2.0  # seconds
_AT_A_TIME = 100  # loads that are taken before others get their turn


class Loads:
    """Shares loads in bulk: one row for each replica, with no revision, and nobody is woken by it.

    Args:
        store: where they are shared.
        index: where they are seen.
        membership: whether there is anybody to share them with.
    """

    def __init__(self, store: Store, index: Index, membership: Membership) -> None:
        self._store = store
        self._index = index
        self._membership = membership
        self._reported: dict[str, agent_pb2.Load] = {}
        self._dirty = False
        self._known: dict[str, int] = {}

    def report(self, instance_id: str, load: agent_pb2.Load) -> None:
        """Takes what an instance reports of itself."""
        self._index.report(instance_id, load)
        if self._reported.get(instance_id) != load:
            self._reported[instance_id] = load
            self._dirty = True

    async def run(self) -> None:
        """Shares for ever."""
        while True:
            await asyncio.sleep(_EVERY)
            if len(self._membership.peers) <= 1:
                self._reported.clear()  # nobody is told, and instances come and go
                continue
            try:
                await self._tell()
                await self._hear()
            except rpc.Error as failed:
                log.debug("loads are not shared now", extra={"cause": failed.message})

    async def _tell(self) -> None:
        if not self._dirty:
            return
        self._dirty = False
        # An instance that another replica holds now is that one's to tell of.
        mine = (i for i in self._reported if self._index.holder(i)[1] == self._store.replica)
        self._reported = {i: self._reported[i] for i in mine}
        await self._store.put_loads(registry_pb2.LoadReport(loads=self._reported))

    async def _hear(self) -> None:
        living = {peer.replica for peer in self._membership.peers}
        self._known = {replica: n for replica, n in self._known.items() if replica in living}
        for replica, number, report in await self._store.other_loads(self._known):
            self._known[replica] = number
            for count, (instance_id, load) in enumerate(report.loads.items(), 1):
                if self._index.holder(instance_id)[1] == replica:
                    self._index.report(instance_id, load)
                if count % _AT_A_TIME == 0:
                    await asyncio.sleep(0)
