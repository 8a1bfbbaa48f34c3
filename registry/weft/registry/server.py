"""A registry in one process: database, index, leases, probes, service and xDS, put together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from weft import rpc
from weft.mtls import Credentials, Roles
from weft.postgres import Database
from weft.registry import catalog, gauges, leases
from weft.registry.health import Health, Pace
from weft.registry.index import Index
from weft.registry.registrar import Registrar
from weft.registry.service import RegistryService
from weft.registry.store import Restored, Store
from weft.registry.streams import Streams
from weft.registry.xds import ControlPlane, Sink
from weft.rpc.membership import Membership
from weft.telemetry import Telemetry
from weft.v1 import registry_pb2_grpc

log = logging.getLogger("weft.registry")

DEFAULT_ADDRESS = "127.0.0.1:7070"
_COLD_START = timedelta(seconds=3)
_STOP_GRACE = timedelta(seconds=1)
# Streams last for ever here: registrations, watches and three or more for each gRPC client process.
_MAX_CALLS = 1_000_000


class Registry:
    """A running registry: `async with Registry(database_url=...) as registry: registry.address`.

    Args:
        database_url: PostgreSQL; the registry keeps to its schema "registry".
        address: "host:port" to serve on; port 0 takes any.
        terms: what leases are granted.
        pace: how often instances are probed.
        cold_start: how long after a start clients keep what endpoints they have of agents that are unknown yet.
        telemetry: where calls and instances are counted; None: nowhere.
        beside: further servicers for the same port, each with its generated `add_...Servicer_to_server`.
        mtls: what it shows to clients and agents, and whom it believes; None: nothing is encrypted.
        roles: which agents ids may be that do not name them.
    """

    def __init__(
        self,
        *,
        database_url: str,
        address: str = DEFAULT_ADDRESS,
        terms: leases.Terms | None = None,
        pace: Pace | None = None,
        cold_start: timedelta = _COLD_START,
        telemetry: Telemetry | None = None,
        beside: Sequence[tuple[Callable[[Any, Any], None], object]] = (),
        mtls: Credentials | None = None,
        roles: Roles | None = None,
    ) -> None:
        self._mtls = mtls
        self._roles = roles
        self.address = address
        self._database_url = database_url
        self._terms = terms or leases.Terms()
        self._pace = pace or Pace()
        self._cold_start = cold_start
        self._telemetry = telemetry
        self._beside = tuple(beside)
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run(started), name="registry")
        await asyncio.wait((self._running, started), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            await self._running
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Ends open streams and calls, and returns when all is closed."""
        self._stop.set()
        await self.wait()

    async def wait(self) -> None:
        """Returns when the registry has stopped; raises what made it fail."""
        if self._running is not None:
            await asyncio.shield(self._running)

    async def _run(self, started: asyncio.Future[None]) -> None:
        database = await Database.connect(self._database_url, schema="registry")
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            store = Store(database, patience=self._terms.ttl / 2)
            members = Membership(self._mtls, self._roles) if self._mtls is not None else None
            parts = _Parts(store, await store.restore(), self._terms, members)
            stack.push_async_callback(store.flush)
            plane = ControlPlane(
                index=parts.index,
                sets=parts.sets,
                streams=parts.streams,
                cold_start=self._cold_start,
                telemetry=self._telemetry,
                own_id=str(self._mtls.who) if self._mtls is not None else "",
            )
            server = self._server(parts, plane)
            await server.start()
            stack.push_async_callback(server.stop, _STOP_GRACE)
            stack.callback(parts.streams.close)
            self.address = plane.address = server.address
            log.info("registry is serving", extra={"address": self.address})
            await self._work(parts, plane, started)

    async def _work(
        self, parts: _Parts, plane: ControlPlane, started: asyncio.Future[None]
    ) -> None:
        """Runs what goes on in the background until `stop`, or until a part of it fails."""
        background = [
            parts.leases.run(),
            parts.store.run(),
            plane.run(),
            Health(parts.index, self._pace, self._mtls).run(),
        ]
        if self._telemetry is not None:
            background.append(gauges.follow(parts.index, self._telemetry))
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(part) for part in background]
            started.set_result(None)
            await self._stop.wait()
            for task in running:
                task.cancel()

    def _server(self, parts: _Parts, plane: ControlPlane) -> rpc.Server:
        server = rpc.Server(
            self.address,
            telemetry=self._telemetry,
            max_concurrency=_MAX_CALLS,
            trace_roots=False,
            mtls=self._mtls,
        )
        served: list[str] = []
        for add, servicer in (
            (registry_pb2_grpc.add_RegistryServiceServicer_to_server, parts.service),
            (plane.add_to, plane),
            *self._beside,
        ):
            served += server.add(add, servicer)
        server.add_fallback(Sink(served))
        return server


class _Parts:
    """Index, leases and service of a run, with what the former run left."""

    def __init__(
        self, store: Store, restored: Restored, terms: leases.Terms, members: Membership | None
    ) -> None:
        self.store = store
        self.index = Index(restored.floor)
        self.sets = catalog.Catalog()
        self.streams = Streams()
        self.leases = leases.Leases(terms, self._expired)
        registrar = Registrar(
            index=self.index,
            sets=self.sets,
            store=store,
            table=self.leases,
            streams=self.streams,
            membership=members,
        )
        self.service = RegistryService(
            index=self.index, sets=self.sets, registrar=registrar, streams=self.streams
        )
        for found in restored.descriptors:
            try:
                self.sets.add(found.digest, found.content, catalog.read(found.content))
            except (
                catalog.InvalidSetError
            ):  # as after an upgrade; whoever needs it is asked to send it
                log.exception("a stored descriptor set is left out", extra={"digest": found.digest})
        self.index.restore(restored.agents, restored.services, restored.capabilities)
        for lease_id, instances in restored.leases.items():
            # One fresh ttl: the process that holds them comes back and takes them over.
            self.index.register(instances, {})
            self.leases.own(leases.Lease(lease_id=lease_id), [i.instance_id for i in instances])

    def _expired(self, lease: leases.Lease) -> None:
        ids = sorted(lease.instance_ids)
        log.warning("a lease ran out", extra={"lease_id": lease.lease_id, "instances": ids})
        self.index.remove(ids)
        self.store.forget(lease.lease_id, ids)
