"""Health of one address, by grpc.health.v1 over one connection.

A Watch stream for each service tells of transitions at once; a Check at every tick notices what a stream
cannot: a peer that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from functools import partial
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from weft.mtls import Credentials, WrongServer, check_server
from weft.mtls.relay import relayed
from weft.registry.wire import Connection

log = logging.getLogger("weft.registry")

_CHECK = b"/grpc.health.v1.Health/Check"
_WATCH = b"/grpc.health.v1.Health/Watch"
_FAILURES = 2  # in a row, before an address counts as unreachable

# Told which instances are concerned, and what is wrong with them; "": nothing.
Verdict = Callable[[Collection[str], str], object]
Spawn = Callable[[Coroutine[None, None, None]], asyncio.Task[None]]


class _Service:
    """A service at an address: who depends on it, and how it is."""

    __slots__ = ("fault", "instances", "request", "unclear", "watch", "watched")

    def __init__(self, name: str) -> None:
        self.request = health_pb2.HealthCheckRequest(service=name).SerializeToString()
        self.instances: set[str] = set()
        self.fault: str | None = None  # None: it has not said yet
        self.watch = 0  # stream of the connection; 0: none
        self.watched = False  # whether that stream tells, so that checks need not ask
        self.unclear = False  # the last check was answered with an error


class Prober:
    """Probes one address at every `tick`; what was not answered by the next one has failed.

    Args:
        address: "IP:port".
        patience: seconds a connection may take.
        verdict: is told what is found out.
        spawn: runs a coroutine as a task that somebody owns.
        mtls: what it shows; None: connections are not encrypted.
    """

    def __init__(
        self,
        address: str,
        *,
        patience: float,
        verdict: Verdict,
        spawn: Spawn,
        mtls: Credentials | None = None,
    ) -> None:
        self._mtls = mtls
        self._ids: dict[str, str] = {}  # SPIFFE id of each instance
        self._address = address
        self._patience = patience
        self._verdict = verdict
        self._spawn = spawn
        self._services: dict[str, _Service] = {}
        self._fault = ""  # of the address as a whole
        self._failures = 0
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._proven = False  # whether this connection ever answered
        self._asked: dict[int, str] = {}  # checks that are not answered yet: service by stream
        self._stopped = False

    def add(self, instance_id: str, name: str, who: str = "") -> None:
        """An instance depends on a service of the address, where a server of this SPIFFE id is."""
        self._ids[instance_id] = who
        service = self._services.setdefault(name, _Service(name))
        service.instances.add(instance_id)
        fault = self._fault or service.fault
        if fault is not None:
            self._verdict([instance_id], fault)
        if self._connection is not None and not service.watch:
            self._watch(name, service)

    def remove(self, instance_id: str, name: str) -> bool:
        """It no longer does; whether nobody is left."""
        service = self._services[name]
        service.instances.discard(instance_id)
        self._ids.pop(instance_id, None)
        if not service.instances:
            del self._services[name]
            if self._connection is not None:
                self._connection.cancel(service.watch)
        return not self._services

    def stop(self) -> None:
        """Closes the connection and tells nothing more."""
        self._stopped = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.close()

    def tick(self) -> None:
        """Settles the checks of the last tick and sends those of this one."""
        if self._connection is None:
            self._connect()
            return
        if self._asked:
            for stream in self._asked:
                self._connection.cancel(stream)
            self._asked.clear()
            self._failed("it does not answer health checks")
        silent = [name for name, service in self._services.items() if not service.watched]
        for name in silent or list(self._services)[:1]:
            service = self._services[name]
            stream = self._connection.call(_CHECK, service.request, self._answered)
            self._asked[stream] = name
            if service.watch == 0 and not service.unclear:
                self._watch(name, service)

    def _connect(self) -> None:
        if self._connecting is None and not self._stopped:
            self._connecting = self._spawn(self._dial())

    async def _dial(self) -> None:
        host, _, port = self._address.rpartition(":")
        secure = self._mtls
        try:
            async with asyncio.timeout(self._patience):
                transport, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._address, self._lost),
                    host.strip("[]"),
                    int(port),
                    ssl=None if secure is None else secure.context,
                )
            if secure is not None:
                self._check(transport)
        except ConnectionRefusedError:
            self._connecting = None
            self._unreached("connection refused")
        except WrongServer as failed:
            self._connecting = None
            self._unreached(str(failed))
        except OSError as failed:
            self._connecting = None
            self._failed(f"no connection: {failed.strerror or 'timed out'}")
        else:
            self._connecting = None
            if self._stopped:
                connection.close()
            if self._stopped or not connection.open:  # perhaps lost again already
                return
            self._connection, self._proven = connection, False
            for name, service in self._services.items():
                self._watch(name, service)
            self.tick()

    def _expected(self) -> set[str]:
        return set(filter(None, self._ids.values()))

    def _check(self, transport: asyncio.BaseTransport) -> None:
        try:
            check_server(transport, self._expected())
        except WrongServer:
            cast("asyncio.Transport", transport).abort()
            raise

    def _lost(self) -> None:
        self._connection = None
        self._asked.clear()
        for service in self._services.values():
            service.watch, service.watched = 0, False
        if not self._stopped:
            self._failed("the connection broke")
            if self._proven:  # if not, trying again at once could go round for ever
                self._connect()

    def _watch(self, name: str, service: _Service) -> None:
        if self._connection is not None:
            hears = partial(self._heard, name, service)
            service.watch = self._connection.call(_WATCH, service.request, hears)

    def _heard(self, name: str, service: _Service, _: int, message: bytes | None) -> None:
        if message is not None:
            service.watched = True
            self._tell(name, message)
        elif service.watched:  # ended by a server that does have Watch: again at the next tick
            service.watch, service.watched = 0, False

    def _answered(self, stream: int, message: bytes | None) -> None:
        name = self._asked.pop(stream, None)
        if name is None:
            return  # the end of a stream whose message came before
        self._reached()
        service = self._services.get(name)
        if message is not None:
            self._tell(name, message)
        elif service is not None and not service.unclear:
            service.unclear = True
            self._spawn(self._clear_up(name, service))

    def _tell(self, name: str, message: bytes) -> None:
        try:
            status = health_pb2.HealthCheckResponse.FromString(message).status
        except DecodeError:
            self._settle(name, "its health service answers in an unknown form")
            return
        service = self._services.get(name)
        if service is not None:
            service.unclear = False
        if status == health_pb2.HealthCheckResponse.SERVING:
            self._settle(name, "")
        elif status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            self._settle(name, f"its health service does not know {name}")
        else:
            said = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
            self._settle(name, f"its health service says {said}")

    async def _clear_up(self, name: str, service: _Service) -> None:
        """Asks once by grpc.aio what kind of error it is that a check is answered with."""
        try:
            async with self._relayed() as target, grpc.aio.insecure_channel(target) as channel:
                check: Any = channel.unary_unary(_CHECK.decode())
                await self._ask(check, name, service)
        except OSError as failed:
            self._settle(name, f"health check: {failed}")

    @contextlib.asynccontextmanager
    async def _relayed(self) -> AsyncIterator[str]:
        """Where grpc.aio reaches the address; it cannot check SPIFFE ids by itself."""
        if self._mtls is None:
            yield self._address
            return
        expected = partial(check_server, expected=self._expected())
        async with relayed(self._address, self._mtls.context, expected) as target:
            yield target

    async def _ask(self, check: Any, name: str, service: _Service) -> None:
        try:
            await check(service.request, timeout=self._patience)
        except grpc.aio.AioRpcError as failed:
            if failed.code() is grpc.StatusCode.UNIMPLEMENTED:
                self._settle(name, "")  # no health service: a server that answers is healthy
            elif failed.code() is grpc.StatusCode.NOT_FOUND:
                self._settle(name, f"its health service does not know {name}")
            else:
                self._settle(name, f"health check: {failed.code().name}")
        else:
            service.unclear = False

    def _failed(self, fault: str) -> None:
        self._failures += 1
        if self._failures >= _FAILURES:
            self._unreached(fault)

    def _unreached(self, fault: str) -> None:
        if not self._fault and not self._stopped:
            log.warning("address is unreachable", extra={"address": self._address, "why": fault})
            self._fault = fault
            for service in self._services.values():
                self._verdict(service.instances, fault)

    def _reached(self) -> None:
        self._failures = 0
        self._proven = True
        if self._fault:
            log.info("address is reachable again", extra={"address": self._address})
            self._fault = ""
            for service in self._services.values():
                if service.fault is not None:
                    self._verdict(service.instances, service.fault)

    def _settle(self, name: str, fault: str) -> None:
        service = self._services.get(name)
        if service is not None and service.fault != fault:
            service.fault = fault
            if not self._fault:
                self._verdict(service.instances, fault)
