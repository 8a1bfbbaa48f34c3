"""Aggregated discovery (ADS) over gRPC, state of the world and incremental: subscriptions in, pushes out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Any

import grpc

from weft.registry.catalog import Catalog
from weft.registry.index import Index
from weft.registry.streams import Streams
from weft.registry.xds.delta import DeltaSubscription
from weft.registry.xds.drills import Drills
from weft.registry.xds.edge import EdgeOptions, names, node
from weft.registry.xds.resources import CLUSTER, ENDPOINTS
from weft.registry.xds.snapshot import TYPES, Snapshot, Viewer, sink_address
from weft.registry.xds.subscription import Subscription
from weft.telemetry import Telemetry
from weft.xds.v1 import discovery_pb2 as pb

log = logging.getLogger("weft.registry")

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
Context = grpc.aio.ServicerContext[Any, Any]
Request = pb.DiscoveryRequest | pb.DeltaDiscoveryRequest
# From the type of resource to what follows it on one stream.
Follow = Callable[[str], Subscription] | Callable[[str], DeltaSubscription]
_ENVOY = "envoy"


class ControlPlane:
    """Serves ADS streams from the index.

    Args:
        index: who is there.
        sets: which methods may be retried.
        streams: where open calls are kept.
        telemetry: where streams and rejections are counted; None: nowhere.
        own_id: SPIFFE id of the registry, where connections are encrypted.
        edge: how edges let callers in.
    """

    def __init__(
        self,
        *,
        index: Index,
        sets: Catalog,
        streams: Streams,
        telemetry: Telemetry | None = None,
        own_id: str = "",
        edge: EdgeOptions | None = None,
    ) -> None:
        self.address = ""
        self._index = index
        self._streams = streams
        self._metrics = None if telemetry is None else telemetry.metrics
        self._snapshot = Snapshot(index, sets, edge or EdgeOptions(), own_id)
        self._drills = Drills(index, self._changed)
        self._clients: dict[str, set[_Client]] = {}  # by subscribed name
        self._of_everything: set[_Client] = set()

    def add_to(self, _servicer: object, server: Any) -> None:
        """Adds the handler to a server; has the shape of generated `add_...Servicer_to_server` functions."""
        whole = grpc.stream_stream_rpc_method_handler(
            self._whole,
            request_deserializer=pb.DiscoveryRequest.FromString,
            response_serializer=pb.DiscoveryResponse.SerializeToString,
        )
        delta = grpc.stream_stream_rpc_method_handler(
            self._delta,
            request_deserializer=pb.DeltaDiscoveryRequest.FromString,
            response_serializer=pb.DeltaDiscoveryResponse.SerializeToString,
        )
        handlers = {"StreamAggregatedResources": whole, "DeltaAggregatedResources": delta}
        server.add_registered_method_handlers(SERVICE, handlers)

    async def run(self, cold_start: timedelta) -> None:
        """Follows the index for ever.

        Args:
            cold_start: how long the endpoints of unknown names are not answered.
        """
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._warm_up(cold_start.total_seconds()))
            stack.callback(self._drills.stop)
            revision = self._index.revision
            for agent in self._index.names():
                self._drills.follow(agent)
            while True:
                await self._index.changed.wait()
                agents = self._index.changes(revision)
                revision = self._index.revision
                for agent in self._index.names() if agents is None else agents:
                    self._changed(agent)
                    self._drills.follow(agent)

    def _changed(self, agent: str) -> None:
        self._snapshot.invalidate(agent)
        changed = (*self._snapshot.names(agent), names.ROUTES)
        for name in changed:
            for client in self._clients.get(name, ()):
                client.wake((name,))
        for client in self._of_everything:
            client.wake(changed)

    async def _warm_up(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._snapshot.warm_up()
        for name, clients in self._clients.items():
            for client in clients:
                client.wake((name,))
        for client in self._of_everything:
            client.wake(())

    async def _whole(self, requests: AsyncIterator[Request], context: Context) -> None:
        await self._serve(requests, context, Subscription)

    async def _delta(self, requests: AsyncIterator[Request], context: Context) -> None:
        await self._serve(requests, context, DeltaSubscription)

    async def _serve(
        self, requests: AsyncIterator[Request], context: Context, follow: Follow
    ) -> None:
        sink = sink_address(self.address, context.peer())
        client = _Client(self._snapshot, Viewer(sink=sink), follow)
        if self._metrics is not None:
            self._metrics.xds_streams.inc()
        try:
            async with self._streams.open(), asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(client.write(context))
                async for request in requests:
                    self._take(client, request)
                writer.cancel()
        finally:
            self._unsubscribe(client, client.names)
            self._of_everything.discard(client)
            if self._metrics is not None:
                self._metrics.xds_streams.dec()

    def _take(self, client: _Client, request: Request) -> None:
        before = client.names
        if not client.take(request) and self._metrics is not None:
            self._metrics.xds_nacks.labels(request.type_url).inc()
        for name in client.names - before:
            self._clients.setdefault(name, set()).add(client)
        self._unsubscribe(client, before - client.names)
        if client.everything:
            self._of_everything.add(client)

    def _unsubscribe(self, client: _Client, names: frozenset[str]) -> None:
        for name in names:
            clients = self._clients[name]
            clients.discard(client)
            if not clients:
                del self._clients[name]
                self._snapshot.forget(name.partition("/")[0])


class _Client:
    """One stream. Its writer has a pace of its own: one that reads slowly holds up nobody, and skips states."""

    def __init__(self, snapshot: Snapshot, viewer: Viewer, follow: Follow) -> None:
        self.names: frozenset[str] = frozenset()
        self.everything = False
        self._snapshot = snapshot
        self._viewer = viewer
        self._node = ""
        self._subscriptions = {type_url: follow(type_url) for type_url in TYPES}
        self._changed: set[str] = set()
        self._awake = asyncio.Event()

    def wake(self, changed: Iterable[str]) -> None:
        """Makes the writer look what the client does not have yet, among names that may have changed."""
        self._changed.update(changed)
        self._awake.set()

    def take(self, request: Request) -> bool:
        """Takes a request; False: it rejects what was sent."""
        if request.HasField("node"):
            self._node = f"{request.node.id} ({request.node.user_agent_name})"
            self._viewer = self._viewer._replace(
                zone=request.node.locality.zone,
                envoy=request.node.user_agent_name == _ENVOY,
                edge=node.read(request.node),
            )
            if self._snapshot.bars(self._viewer.edge):
                log.warning(
                    "an edge has no certificate in the mesh, and may call nobody: see weft edge bootstrap --help",
                    extra={"node": self._node},
                )
        subscription = self._subscriptions.get(request.type_url)
        if subscription is None:
            return True  # a type that is never published: the client's own time-out tells it so
        before, all_before = subscription.names, subscription.everything
        rejected = subscription.take(request)  # type: ignore[arg-type]  # as the method of the stream has it
        if subscription.names != before or isinstance(request, pb.DeltaDiscoveryRequest):
            self.names = frozenset().union(*(s.names for s in self._subscriptions.values()))
            again = getattr(request, "resource_names_subscribe", ())
            self.wake((subscription.names - before).union(again))
        if subscription.everything and not all_before:
            self.everything = True
            self.wake(())
        if rejected is None:
            return True
        log.error(
            "a client rejected xDS resources",
            extra={
                "node": self._node,
                "type_url": request.type_url,
                "names": list(rejected.names),
                "why": rejected.reason,
            },
        )
        return False

    async def write(self, context: Context) -> None:
        """Sends what is new, for ever."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            changed, self._changed = self._changed, set()
            for subscription in self._subscriptions.values():
                response = subscription.respond(self._get, self._catalogue, changed)
                if response is None:
                    continue
                await context.write(response)
                endpoints = self._subscriptions[ENDPOINTS]
                if (
                    subscription is self._subscriptions[CLUSTER]
                    and isinstance(subscription, DeltaSubscription)
                    and isinstance(endpoints, DeltaSubscription)
                ):
                    # Envoy goes on with the old cluster until endpoints come after the new one, or for 15 seconds.
                    endpoints.again(subscription.sent)
                    changed.update(subscription.sent)

    def _catalogue(self, type_url: str) -> AbstractSet[str] | None:
        return self._snapshot.catalogue(type_url, self._viewer)

    def _get(self, type_url: str, name: str) -> bytes | None:
        return self._snapshot.get(type_url, name, self._viewer)
