"""One address of an agent: connected while it is wanted, and again when the connection is lost."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass

from weft.gateway.dataplane.connection import Connection
from weft.gateway.dataplane.tally import Tally
from weft.mtls import Credentials, WrongServer, check_server

log = logging.getLogger("weft.gateway")

_FIRST, _LONGEST, _GROWTH = 0.1, 2.0, 1.6  # seconds between attempts (gRPC's connection-backoff.md)
_JITTER = 0.2
_SETTLES = 5.0  # seconds a new connection may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How connections to an agent are encrypted."""

    credentials: Credentials
    expected: Callable[[str], Collection[str]]
    """SPIFFE ids of which whoever is at an address must show one."""

    def context(self) -> ssl.SSLContext:
        """For a new connection."""
        return self.credentials.context


class Endpoint:
    """An address.

    Args:
        address: "host:port" or "unix:path".
        connections: where open connections are kept.
        changed: called when it can be used, or failed.
        security: how connections are encrypted; None: they are not.

    Attributes:
        connection: the last one; whether it takes calls it knows by itself.
        failed: whether the last attempt to connect failed; so calls need not wait for the next.
        tally: what became of its calls.
        ejected: whether it is left alone for a time, since its calls fail.
    """

    def __init__(
        self,
        address: str,
        connections: set[Connection],
        changed: Callable[[], None],
        security: Security | None = None,
    ) -> None:
        self._security = security
        self.address = address
        self._connections = connections
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self.connection: Connection | None = None
        self.failed = False
        self.tally = Tally()
        self.ejected = False
        self._times = 0  # it was left alone, lately
        self._returned = 0.0
        self._return: asyncio.TimerHandle | None = None

    @property
    def pending(self) -> bool:
        """Whether it is not known yet if it can be reached."""
        return self.connection is None and not self.failed

    def eject(self, seconds: float, longest: float) -> None:
        """Leaves it alone, for longer each time unless it did well for as long."""
        loop = asyncio.get_running_loop()
        if self._times and loop.time() - self._returned > seconds * self._times:
            self._times = 0
        self._times += 1
        self.ejected = True
        log.warning(
            "an instance is left alone: its calls fail",
            extra={"address": self.address, "seconds": min(longest, seconds * self._times)},
        )
        self._return = loop.call_later(min(longest, seconds * self._times), self.spare)

    def spare(self) -> None:
        """Leaves it alone no longer."""
        if self._return is not None:
            self._return.cancel()
            self._return = None
        if self.ejected:
            self.ejected = False
            self._returned = asyncio.get_running_loop().time()
            self._changed()

    def wake(self) -> None:
        """Connects, if it does not do so already."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="agent")

    def stop(self) -> None:
        """Begins no more calls; those that run go on to their end."""
        if self._return is not None:
            self._return.cancel()
        self.tally.on_failure = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self.connection is not None:
            self.connection.retire()
            self.connection = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST
        while True:
            begun = loop.time()
            try:
                self.connection = await _connect(self.address, self._connections, self._security)
                self.connection.tally = self.tally
            except OSError:
                self.failed = True
                self._changed()
                spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 jitter
                await asyncio.sleep(begun + pause * spread - loop.time())
                pause = min(pause * _GROWTH, _LONGEST)
            else:
                self.failed = False
                self._changed()
                await asyncio.shield(self.connection.gone)
                pause = _FIRST
                await asyncio.sleep(begun + pause - loop.time())  # where each is lost at once


async def _connect(
    address: str, connections: set[Connection], security: Security | None = None
) -> Connection:
    """A connection to "host:port" or "unix:path" that takes calls.

    Args:
        address: where.
        connections: where it is kept as long as it is open.
        security: how it is encrypted, unless it is of this machine; None: it is not.

    Raises:
        OSError: there is none, or who listens there does not speak HTTP/2 (`TimeoutError`, `ConnectionError`), or is somebody
            else (`WrongServer`).
    """
    loop = asyncio.get_running_loop()

    def make() -> Connection:
        return Connection(connections)

    async with asyncio.timeout(_SETTLES):
        if address.startswith("unix:"):
            _, connection = await loop.create_unix_connection(make, address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            context = None if security is None else security.context()
            transport, connection = await loop.create_connection(
                make, host.strip("[]"), int(port), ssl=context
            )
            if security is not None:
                _check(transport, connection, security.expected(address))
        try:
            await connection.settled
        except BaseException:
            connection.close()
            raise
    return connection


def _check(
    transport: asyncio.BaseTransport, connection: Connection, expected: Collection[str]
) -> None:
    """Ends a connection to somebody else; nothing of a call has been sent by then."""
    try:
        check_server(transport, expected)
    except WrongServer as failed:
        log.warning("not the agent", extra={"cause": str(failed)})
        connection.close()
        raise
