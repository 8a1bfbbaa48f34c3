"""Active health: every instance is watched and checked by grpc.health.v1.

For each address there is one connection. A Watch stream for each service tells of transitions at once; a
Check every interval notices what a stream cannot: a peer that hangs. Checks are sent as bytes made once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from weft.registry.index import Index

log = logging.getLogger("weft.registry")

_OPTIONS = (
    # A server that comes back is noticed by the next check, not after gRPC's minutes of back-off.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # how long a connection may take
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A connection of our own for each prober: shared ones outlive it in the global pool.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
)
_CHECK = "/grpc.health.v1.Health/Check"
_WATCH = "/grpc.health.v1.Health/Watch"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_FAILURES = 2  # in a row, before an address counts as unreachable
_JITTER = 0.1
_SOON = 0.05  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often addresses are checked.

    Attributes:
        interval: between the beginnings of two checks of an address.
        timeout: of a check.
    """

    interval: timedelta = timedelta(seconds=1)
    timeout: timedelta = timedelta(seconds=1)


class Health:
    """Follows the index, and tells it which instances cannot be reached."""

    def __init__(self, index: Index, pace: Pace) -> None:
        self._index = index
        self._pace = pace
        self._probers: dict[str, _Prober] = {}  # by address
        self._seen: dict[str, Mapping[str, tuple[str, str]]] = {}  # agent -> id -> address, service

    async def run(self) -> None:
        """Probes for ever."""
        revision = -1
        async with asyncio.TaskGroup() as tasks:
            while True:
                names = self._index.changes(revision)
                revision = self._index.revision
                for name in self._index.names() if names is None else names:
                    self._follow(name, tasks)
                if revision == self._index.revision:
                    await self._index.changed.wait()

    def _follow(self, name: str, tasks: asyncio.TaskGroup) -> None:
        agent = self._index.agent(name)
        assert agent is not None
        now = {i.instance_id: (i.address, i.services[0].name) for i in agent.instances}
        before = self._seen.get(name, {})
        for instance_id, (address, service) in before.items():
            if now.get(instance_id) != (address, service):
                self._probers[address].remove(instance_id, service)
                if self._probers[address].idle():
                    self._probers.pop(address).stop()
        for instance_id, (address, service) in now.items():
            if before.get(instance_id) != (address, service):
                if address not in self._probers:
                    self._probers[address] = _Prober(address, self._index, self._pace)
                    self._probers[address].start(tasks)
                self._probers[address].add(instance_id, service, tasks)
        self._seen[name] = now


class _Service:
    """A service at an address: who depends on it, and what its health is."""

    __slots__ = ("fault", "instances", "watch", "watched")

    def __init__(self) -> None:
        self.instances: set[str] = set()
        self.fault = ""
        self.watched = False  # whether the stream tells; else checks do
        self.watch: asyncio.Task[None] | None = None


class _Prober:
    """Probes one address."""

    def __init__(self, address: str, index: Index, pace: Pace) -> None:
        self._address = address
        self._index = index
        self._interval = pace.interval.total_seconds()
        self._timeout = pace.timeout.total_seconds()
        self._services: dict[str, _Service] = {}
        self._fault = ""  # of the address as a whole
        self._failures = 0
        self._doubt = False  # a connection broke, which says little yet: look again soon
        self._look = asyncio.Event()  # set: check now
        self._up = asyncio.Event()  # set by each check that is answered
        self._task: asyncio.Task[None] | None = None
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._check: Any = self._channel.unary_unary(_CHECK)
        self._watch: Any = self._channel.unary_stream(_WATCH)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        self._task = tasks.create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def idle(self) -> bool:
        return not self._services

    def add(self, instance_id: str, name: str, tasks: asyncio.TaskGroup) -> None:
        service = self._services.get(name)
        if service is None:
            service = self._services[name] = _Service()
            service.watch = tasks.create_task(self._follow(name, service))
        service.instances.add(instance_id)
        self._index.probed([instance_id], self._fault or service.fault)

    def remove(self, instance_id: str, name: str) -> None:
        service = self._services[name]
        service.instances.discard(instance_id)
        if not service.instances:
            del self._services[name]
            if service.watch is not None:
                service.watch.cancel()

    async def _run(self) -> None:
        try:
            await self._pause(self._interval * random.random())  # noqa: S311 spreads the load
            while True:
                started = asyncio.get_running_loop().time()
                await self._probe()
                spent = asyncio.get_running_loop().time() - started
                jitter = 1 + _JITTER * (random.random() - 0.5)  # noqa: S311 spreads the load
                await self._pause(_SOON if self._doubt else self._interval * jitter - spent)
        finally:
            await self._channel.close()

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._look.wait()
        self._look.clear()

    async def _probe(self) -> None:
        """One check of the address, by a service whose stream tells nothing if there is one."""
        asked = [name for name, service in self._services.items() if not service.watched]
        for name in asked or list(self._services)[:1]:
            request = health_pb2.HealthCheckRequest(service=name).SerializeToString()
            try:
                answer = await self._check(request, timeout=self._timeout)
            except grpc.aio.AioRpcError as failed:
                if not self._failed(name, failed):
                    return
            else:
                self._reached()
                self._tell(name, answer)

    def _failed(self, name: str, failed: grpc.aio.AioRpcError) -> bool:
        """Takes a failed check; whether the address answered all the same."""
        code = failed.code()
        if (
            code == grpc.StatusCode.UNIMPLEMENTED
        ):  # no health service: a server that answers is healthy
            self._reached()
            self._settle(name, "")
            return True
        if code == grpc.StatusCode.NOT_FOUND:
            self._reached()
            self._settle(name, f"its health service does not know {name}")
            return True
        details = failed.details() or ""
        refused = code == grpc.StatusCode.UNAVAILABLE and "refused" in details.lower()
        self._failures += 1
        self._doubt = code == grpc.StatusCode.UNAVAILABLE and self._failures < _FAILURES
        if refused or self._failures >= _FAILURES:
            self._unreached("connection refused" if refused else f"health check: {code.name}")
        return False

    def _reached(self) -> None:
        self._failures = 0
        self._doubt = False
        self._up.set()
        self._up.clear()
        if self._fault:
            log.info("address is reachable again", extra={"address": self._address})
            self._fault = ""
            for service in self._services.values():
                self._index.probed(service.instances, service.fault)

    def _unreached(self, fault: str) -> None:
        if not self._fault:
            log.warning("address is unreachable", extra={"address": self._address, "why": fault})
            self._fault = fault
            for service in self._services.values():
                self._index.probed(service.instances, fault)

    def _tell(self, name: str, answer: bytes) -> None:
        status = health_pb2.HealthCheckResponse.FromString(answer).status
        said = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
        self._settle(name, "" if status == _SERVING else f"its health service says {said}")

    def _settle(self, name: str, fault: str) -> None:
        service = self._services.get(name)
        if service is not None and service.fault != fault:
            service.fault = fault
            self._index.probed(service.instances, self._fault or fault)

    async def _follow(self, name: str, service: _Service) -> None:
        """Keeps a Watch stream of a service open as long as the server offers it."""
        request = health_pb2.HealthCheckRequest(service=name).SerializeToString()
        while True:
            try:
                async for answer in self._watch(request):
                    service.watched = True
                    self._tell(name, answer)
            except grpc.aio.AioRpcError as failed:
                if failed.code() == grpc.StatusCode.UNIMPLEMENTED:
                    return
            finally:
                service.watched = False
            self._look.set()  # the stream broke: perhaps the server did too
            await self._up.wait()
