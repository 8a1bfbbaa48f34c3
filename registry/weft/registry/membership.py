"""Which replicas there are, and what becomes of the leases of one that dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import grpc

from weft import rpc
from weft.mtls import Credentials
from weft.registry.index import Index
from weft.registry.leases import Leases
from weft.registry.store import Peer, Store
from weft.v1 import registry_pb2, registry_pb2_grpc

log = logging.getLogger("weft.registry")

_BEAT = 0.5  # seconds
_SILENT = timedelta(seconds=2)  # without a beat, before it is asked whether it lives
_ANSWER = 1.0  # seconds it has for that
_ORPHANS = 4  # beats between two looks for leases that nobody holds
_FORGET = 120  # beats between two clean-ups
_KEEP = timedelta(
    hours=1
)  # how long departures are kept: for so long may a replica be away and read on


class Membership:
    """This replica among the others.

    Each says twice a second that it lives. One that has not said so for two seconds, and does not answer at its
    address either, is dead: whoever strikes it out first takes over its leases, for which a fresh ttl begins. One
    that cannot reach the database alone is left in peace: it answers, and its leases are in good hands.

    Attributes:
        peers: all replicas, as of the last beat.

    Args:
        store: where it is said.
        index: how far this replica is.
        table: its leases.
        cold_start: how long after its start the state of a first replica may be old.
        mtls: what it shows to others; None: connections are not encrypted.
    """

    def __init__(
        self,
        store: Store,
        index: Index,
        table: Leases,
        cold_start: timedelta,
        mtls: Credentials | None = None,
    ) -> None:
        self._mtls = mtls
        self.peers: Sequence[Peer] = ()
        self._store = store
        self._index = index
        self._leases = table
        self._cold_start = cold_start
        self._first = False
        self._address = ""
        self._start = self._warm = datetime.now(UTC)

    async def join(self) -> None:
        """Enters the list and takes over what nobody holds.

        Raises:
            rpc.Error: the database is away.
        """
        others = [peer for peer in await self._store.peers() if peer.silence < _SILENT]
        # One without an address is about to start, as this one.
        answers = await asyncio.gather(*(_lives(peer, self._mtls) for peer in others))
        living = [p for p, lives in zip(others, answers, strict=True) if lives or not p.address]
        self._first = not living
        if self._first:
            self._warm = datetime.now(UTC) + self._cold_start
            await self._store.begin_epoch()
        else:
            self._warm = max(peer.warm_time for peer in living)
        await self._beat()
        await self._bury()
        await self._adopt()

    async def serve_at(self, address: str) -> timedelta:
        """Says where this replica serves; how long clients shall keep what they know of agents that are unknown here.

        That is for `cold_start` if this is the only replica: its state may be old. Where others live, what the database
        says is complete, or will be when they think so. Whoever served at this address before is gone.

        Raises:
            rpc.Error: the database is away.
        """
        self._address = address
        await self._store.drop_former(address)
        if self._first:
            self._warm = datetime.now(UTC) + self._cold_start
        await self._beat()
        await self._adopt()
        return max(timedelta(0), self._warm - datetime.now(UTC))

    async def run(self) -> None:
        """Beats for ever."""
        loop, due, count = asyncio.get_running_loop(), 0.0, 0
        while True:
            due = max(due + _BEAT, loop.time())
            count += 1
            try:
                await self._beat()
                buried = await self._bury()
                if buried or count % _ORPHANS == 0:
                    await self._adopt()
                if count % _FORGET == 0:
                    await self._store.forget_departures(_KEEP)
            except rpc.Error as failed:
                log.warning("no beat: the database is away", extra={"cause": failed.message})
            await asyncio.sleep(due + _BEAT - loop.time())

    async def leave(self) -> None:
        """Leaves the list, so that others need not find out; its leases are theirs."""
        try:
            await self._store.drop(self._store.replica)
        except rpc.Error as failed:
            log.warning("could not leave the list of replicas", extra={"cause": failed.message})

    async def _beat(self) -> None:
        new = await self._store.beat(
            self._address, self._start, self._warm, self._index.position, len(self._leases)
        )
        if new and self.peers:
            log.warning("this replica was thought dead; its leases are with others now")
        self.peers = await self._store.peers()

    async def _bury(self) -> bool:
        """Strikes out whoever is dead; whether there was one."""
        buried = False
        for peer in self.peers:
            silent = peer.silence >= _SILENT and peer.replica != self._store.replica
            if silent and not await _lives(peer, self._mtls):
                buried = await self._store.drop(peer.replica, _SILENT) or buried
        return buried

    async def _adopt(self) -> None:
        adopted = await self._store.adopt()
        if adopted:
            log.warning("took over leases", extra={"instances": adopted})


async def _lives(peer: Peer, mtls: Credentials | None) -> bool:
    """Whether a replica answers, whatever the database knows of it; another one at its address is not it."""
    if not peer.address:
        return False
    async with rpc.Channel(peer.address, mtls=mtls) as channel:
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        try:
            answer = await stub.ListReplicas(registry_pb2.ListReplicasRequest(), timeout=_ANSWER)
        except grpc.aio.AioRpcError:
            return False
        return answer.answered_by == peer.replica
