"""All addresses of an agent, and which of them takes the next call."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import random
from collections.abc import Sequence

import grpc

from weft.gateway.dataplane.choosers import Chooser, Turns, chooser, hashed
from weft.gateway.dataplane.connection import Connection
from weft.gateway.dataplane.endpoint import Endpoint, Security
from weft.gateway.dataplane.errors import CallFailed
from weft.gateway.dataplane.outliers import Judge
from weft.gateway.dataplane.traffic import USUAL, Balancing, Traffic
from weft.rpc.call import Metadata


class Balancer:
    """Spreads the calls of an agent over its addresses.

    Nothing is connected before the first call; then everything is.

    Args:
        connections: where open connections are kept.
        security: how they are encrypted; None: they are not.

    Attributes:
        addresses: all of them.
        traffic: how calls are spread.
    """

    def __init__(self, connections: set[Connection], security: Security | None = None) -> None:
        self._security = security
        self.addresses: Sequence[str] = ()
        self.traffic = USUAL
        self._connections = connections
        self._endpoints: dict[str, Endpoint] = {}
        self._ring: list[Endpoint] = []
        self._judge = Judge(self._changed)
        self._everybody: Chooser = Turns(())
        # By subset, each with those that are asked first: of the caller's zone.
        self._ways: dict[str, tuple[Chooser, ...]] = {}
        self._shares: tuple[list[str], list[int]] = ([], [])
        self._awake = False
        self._waiting: dict[asyncio.Future[None], None] = {}  # in the order in which they came

    def update(self, addresses: Sequence[str], traffic: Traffic = USUAL) -> None:
        """Takes the addresses there are now, and how calls are spread; calls under way at others go on."""
        self.addresses, self.traffic = addresses, traffic
        before, self._endpoints = self._endpoints, {}
        for address in addresses:
            self._endpoints[address] = before.get(address) or Endpoint(
                address, self._connections, self._changed, self._security
            )
        self._ring = list(self._endpoints.values())
        for gone in before.keys() - self._endpoints.keys():
            before[gone].stop()
        self._judge.update(self._ring, traffic.outliers)
        self._plan(traffic)
        if self._awake:
            self._wake()
        self._changed()

    def _plan(self, traffic: Traffic) -> None:
        clock = asyncio.get_running_loop().time
        for endpoint in self._ring:
            endpoint.tally.weighs = traffic.balancing is Balancing.WEIGHTED
        self._everybody = chooser(traffic.balancing, self._ring, clock)
        self._shares = (list(traffic.shares), list(itertools.accumulate(traffic.shares.values())))
        self._ways = {}
        if not (traffic.subsets or traffic.zone):
            return
        for subset in traffic.shares:
            of = [e for e in self._ring if traffic.subsets.get(e.address, "") == subset]
            near = [e for e in of if traffic.zone and traffic.zones.get(e.address) == traffic.zone]
            self._ways[subset] = tuple(
                chooser(traffic.balancing, group, clock) for group in (near, of) if group
            )

    def pick(self, metadata: Metadata = ()) -> Connection | None:
        """The next connection that takes calls, one that begins them at once if there is any.

        Args:
            metadata: of the call.
        """
        if not self._awake:
            self._wake()
        key = self._key(metadata) if self.traffic.header else None
        if self._ways:
            for way in self._ways[self._subset(key)]:
                connection = way.pick(key)
                if connection is not None:
                    return connection
                if any(endpoint.pending for endpoint in way.endpoints):
                    return None  # not elsewhere only since nothing is connected yet
        return self._everybody.pick(key) or self._anybody()

    def _key(self, metadata: Metadata) -> int | None:
        header = self.traffic.header
        for name, value in metadata:
            if name == header:
                return hashed(value)
        return None

    def _subset(self, key: int | None) -> str:
        """By its share; callers with a key stay with one, as long as shares stay."""
        names, bounds = self._shares
        if len(names) == 1:
            return names[0]
        at = random.random() if key is None else hashed(key.to_bytes(8, "big")) / (1 << 64)  # noqa: S311 no secret
        return names[bisect.bisect(bounds, at * bounds[-1])]

    def _anybody(self) -> Connection | None:
        """One that is left alone, where there is no other."""
        for endpoint in self._ring:
            connection = endpoint.connection
            if connection is not None and connection.usable:
                return connection
        return None

    async def wait(self, seconds: float | None, metadata: Metadata = ()) -> Connection:
        """A connection, once there is one.

        Args:
            seconds: how long it may take; None: as long as it takes to know.
            metadata: of the call.

        Raises:
            CallFailed: no address can be reached, there is none, or it takes too long.
        """
        try:
            async with asyncio.timeout(seconds):
                while (connection := self.pick(metadata)) is None:
                    if all(endpoint.failed for endpoint in self._ring):
                        raise CallFailed(
                            grpc.StatusCode.UNAVAILABLE, "No instance can be reached.", unseen=True
                        )
                    await self._change()
        except TimeoutError:
            raise CallFailed(
                grpc.StatusCode.DEADLINE_EXCEEDED, "No instance was reached in time.", unseen=True
            ) from None
        return connection

    def stop(self) -> None:
        """Ends with the calls that are under way."""
        self.update(())

    def _wake(self) -> None:
        self._awake = True
        for endpoint in self._ring:
            endpoint.wake()

    async def _change(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = None
        try:
            await waiting
        finally:
            del self._waiting[waiting]

    def _changed(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
