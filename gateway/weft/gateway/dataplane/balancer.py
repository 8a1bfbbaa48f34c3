"""All addresses of an agent, in turn (round robin)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import grpc

from weft.gateway.dataplane.connection import Connection
from weft.gateway.dataplane.endpoint import Endpoint, Security
from weft.gateway.dataplane.errors import CallFailed


class Balancer:
    """Spreads the calls of an agent over its addresses.

    Nothing is connected before the first call; then everything is.

    Args:
        connections: where open connections are kept.
        security: how they are encrypted; None: they are not.

    Attributes:
        addresses: all of them.
    """

    def __init__(self, connections: set[Connection], security: Security | None = None) -> None:
        self._security = security
        self.addresses: Sequence[str] = ()
        self._connections = connections
        self._endpoints: dict[str, Endpoint] = {}
        self._ring: list[Endpoint] = []
        # Many gateways do not begin with the same.
        self._turn = random.randrange(1 << 16)  # noqa: S311 no secret
        self._awake = False
        self._waiting: dict[asyncio.Future[None], None] = {}  # in the order in which they came

    def update(self, addresses: Sequence[str]) -> None:
        """Takes the addresses there are now; calls under way at others go on."""
        self.addresses = addresses
        before, self._endpoints = self._endpoints, {}
        for address in addresses:
            self._endpoints[address] = before.get(address) or Endpoint(
                address, self._connections, self._changed, self._security
            )
        self._ring = list(self._endpoints.values())
        for gone in before.keys() - self._endpoints.keys():
            before[gone].stop()
        if self._awake:
            self._wake()
        self._changed()

    def pick(self) -> Connection | None:
        """The next connection that takes calls, one that begins them at once if there is any."""
        if not self._awake:
            self._wake()
        busy = None
        for _ in self._ring:
            self._turn += 1
            connection = self._ring[self._turn % len(self._ring)].connection
            if connection is not None and connection.usable:
                if connection.has_room:
                    return connection
                busy = busy or connection
        return busy

    async def wait(self, seconds: float | None) -> Connection:
        """A connection, once there is one.

        Args:
            seconds: how long it may take; None: as long as it takes to know.

        Raises:
            CallFailed: no address can be reached, there is none, or it takes too long.
        """
        try:
            async with asyncio.timeout(seconds):
                while (connection := self.pick()) is None:
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
