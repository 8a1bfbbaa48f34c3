"""A replica of the registry: database, index, leases, probes, service and xDS, put together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from weft import rpc
from weft.mtls import Credentials, Roles
from weft.postgres import Database
from weft.registry import catalog, discovery, gauges, leases, lifecycle, targets
from weft.registry.follower import Follower
from weft.registry.health import Health, Pace
from weft.registry.index import Index
from weft.registry.loads import Loads
from weft.registry.membership import Membership
from weft.registry.reachable import reachable
from weft.registry.registrar import Registrar
from weft.registry.service import RegistryService
from weft.registry.store import APPLICATION, SCHEMA, Store
from weft.registry.streams import Streams
from weft.registry.writer import Writer
from weft.registry.xds import ControlPlane, EdgeOptions, Sink
from weft.rpc.membership import Membership as Members
from weft.telemetry import Telemetry, probe
from weft.v1 import discovery_pb2_grpc, lifecycle_pb2_grpc, registry_pb2_grpc

log = logging.getLogger("weft.registry")

DEFAULT_ADDRESS = "127.0.0.1:7070"
_COLD_START = timedelta(seconds=3)
_STOP_GRACE = timedelta(seconds=1)
# Streams last for ever here: registrations, watches and three or more for each gRPC client process.
_MAX_CALLS = 1_000_000


class Registry:
    """A running registry: `async with Registry(database_url=...) as registry: registry.address`.

    Several on one database are one registry: each answers for all of it, and takes over the leases of one that dies.

    Args:
        database_url: PostgreSQL; the registry keeps to its schema "registry".
        address: "host:port" to serve on, which other replicas must reach; port 0 takes any.
        terms: what leases are granted.
        pace: how often instances are probed.
        cold_start: how long after the start of a first replica clients keep what endpoints they have of agents that
            are unknown yet.
        telemetry: where calls and instances are counted; None: nowhere.
        edge: how edges let callers in (docs/edge.md).
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
        edge: EdgeOptions | None = None,
        beside: Sequence[tuple[Callable[[Any, Any], None], object]] = (),
        mtls: Credentials | None = None,
        roles: Roles | None = None,
    ) -> None:
        self._mtls = mtls
        self._roles = roles
        self._edge = edge
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
        database = await Database.connect(self._database_url, SCHEMA, application=APPLICATION)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            patience = self._terms.ttl / 2  # a stream waits with its next heartbeats unread
            store = Store(database, uuid.uuid4().hex, patience)
            parts = _Parts(
                store, self._terms, self._pace, self._cold_start, self._mtls, self._roles
            )
            await parts.store.open()
            await database.migrate(discovery.SQL)
            words = discovery.Words(database, parts.index, parts.sets, patience=self._terms.ttl / 2)
            await parts.membership.join()
            stack.push_async_callback(parts.membership.leave)
            await parts.follower.load()
            stack.push_async_callback(parts.writer.flush)
            plane = ControlPlane(
                index=parts.index,
                sets=parts.sets,
                streams=parts.streams,
                telemetry=self._telemetry,
                own_id=str(self._mtls.who) if self._mtls is not None else "",
                edge=self._edge,
            )
            found = discovery.DiscoveryService(index=parts.index, sets=parts.sets, words=words)
            server = self._server(parts, plane, found)
            await server.start()
            stack.push_async_callback(server.stop, _STOP_GRACE)
            stack.callback(parts.streams.close)
            self.address = plane.address = server.address
            cold = await parts.membership.serve_at(reachable(server.address, self._database_url))
            log.info("registry is serving", extra={"address": self.address})
            await self._work(parts, [plane.run(cold), words.run()], started)

    async def _work(
        self,
        parts: _Parts,
        further: Sequence[Coroutine[None, None, None]],
        started: asyncio.Future[None],
    ) -> None:
        """Runs what goes on in the background until `stop`, or until a part of it fails."""
        background = [
            parts.leases.run(),
            parts.follower.run(self._database_url),
            parts.writer.run(),
            parts.membership.run(),
            parts.loads.run(),
            parts.health.run(),
            *further,
        ]
        if self._telemetry is not None:
            self._telemetry.pages[targets.PATH] = targets.page(parts.index)
            background.append(gauges.follow(parts.index, self._telemetry))
            background.append(gauges.replica(parts.seen, self._telemetry))
            background.append(probe(self._telemetry.metrics, "postgres", parts.store.ping))
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(part) for part in background]
            started.set_result(None)
            await self._stop.wait()
            for task in running:
                task.cancel()

    def _server(
        self, parts: _Parts, plane: ControlPlane, found: discovery.DiscoveryService
    ) -> rpc.Server:
        server = rpc.Server(
            self.address,
            telemetry=self._telemetry,
            max_concurrency=_MAX_CALLS,
            trace_roots=False,
            mtls=self._mtls,
        )
        servicers: list[tuple[Callable[[Any, Any], None], object]] = [
            (registry_pb2_grpc.add_RegistryServiceServicer_to_server, parts.service),
            (lifecycle_pb2_grpc.add_LifecycleServiceServicer_to_server, parts.lifecycle),
            (discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server, found),
            (plane.add_to, plane),
            *self._beside,
        ]
        served = [name for add, servicer in servicers for name in server.add(add, servicer)]
        server.add_fallback(Sink(served))
        return server


class _Parts:
    """What a replica is made of."""

    def __init__(
        self,
        store: Store,
        terms: leases.Terms,
        pace: Pace,
        cold_start: timedelta,
        mtls: Credentials | None,
        roles: Roles | None,
    ) -> None:
        members = Members(mtls, roles) if mtls is not None else None
        self.store = store
        self.index = Index()
        self.sets = catalog.Catalog()
        self.streams = Streams()
        self.leases = leases.Leases(terms, self._expired)
        self.health = Health(pace, self._probed, mtls)
        self.follower = Follower(store, self.index, self.sets, self.leases, self.health)
        self.writer = Writer(store, self.index, self.follower, terms.ttl / 2)
        self.membership = Membership(store, self.index, self.leases, cold_start, mtls)
        self.loads = Loads(store, self.index, self.membership)
        self.lifecycle = lifecycle.LifecycleService(
            store=store,
            index=self.index,
            sets=self.sets,
            follower=self.follower,
            patience=terms.ttl / 2,
            members=members,
        )
        self.service = RegistryService(
            replica=store.replica,
            index=self.index,
            sets=self.sets,
            registrar=Registrar(
                index=self.index,
                sets=self.sets,
                writer=self.writer,
                table=self.leases,
                loads=self.loads,
                streams=self.streams,
                members=members,
            ),
            streams=self.streams,
            follower=self.follower,
            membership=self.membership,
        )

    def _expired(self, lease: leases.Lease) -> asyncio.Future[None]:
        ids = sorted(lease.instance_ids)
        log.warning("a lease ran out", extra={"lease_id": lease.lease_id, "instances": ids})
        return self.writer.forget(lease.lease_id, ids)

    def _probed(self, faults: Mapping[str, str]) -> None:
        self.writer.probed(faults)

    def seen(self) -> gauges.Seen:
        """This replica, as metrics show it."""
        return gauges.Seen(
            revision=self.index.revision,
            lag=self.follower.lag,
            leases=len(self.leases),
            adopted=self.leases.adopted,
            watchers=self.service.watchers,
        )
