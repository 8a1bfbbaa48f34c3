"""weft.v1.RegistryService over the index."""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import grpc

from weft import rpc
from weft.registry import validate
from weft.registry.catalog import Catalog
from weft.registry.errors import NeverRegistered
from weft.registry.follower import Behind, Follower
from weft.registry.index import Index, Instance, State
from weft.registry.membership import Membership
from weft.registry.registrar import Registrar
from weft.registry.store import LOCAL
from weft.registry.streams import Streams
from weft.rpc import paging
from weft.v1 import registry_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]

_PAGE, _MAX_PAGE = 100, 1_000
_PATIENCE = 2.0  # seconds for this replica to learn what a watcher knows from another one


class RegistryService:
    """The servicer. Not derived from the generated class: its streaming methods are coroutines that write.

    A coroutine ends as soon as its call does, where a generator that is suspended in `yield` would be left
    to the garbage collector.
    """

    def __init__(
        self,
        *,
        replica: str,
        index: Index,
        sets: Catalog,
        registrar: Registrar,
        streams: Streams,
        follower: Follower,
        membership: Membership,
    ) -> None:
        self.watchers = 0
        self._replica = replica
        self._index = index
        self._sets = sets
        self._follower = follower
        self._membership = membership
        self._registrar = registrar
        self._streams = streams
        self._shared: tuple[tuple[int, int, tuple[str, ...]], pb.WatchResponse] | None = None

    async def Register(self, requests: AsyncIterator[pb.RegisterRequest], context: Context) -> None:
        """See registry.proto."""
        await self._registrar.serve(requests, context.write, context)

    async def Resolve(self, request: pb.ResolveRequest, _: Context) -> pb.ResolveResponse:
        """See registry.proto."""
        kind = request.WhichOneof("target")
        found: Sequence[Instance] | None
        match kind:
            case "agent":
                known = request.agent in self._index
                found = self._index.in_service(request.agent) if known else None
            case "service":
                found = self._index.serving(request.service)
            case "capability":
                found = self._index.capable(request.capability)
            case _:
                raise rpc.InvalidArgument(
                    "name an agent, a service or a capability", field="target"
                )
        if found is None:
            raise NeverRegistered(kind, getattr(request, kind))
        return pb.ResolveResponse(instances=found, revision=self._index.revision)

    async def Watch(self, request: pb.WatchRequest, context: Context) -> None:
        """See registry.proto."""
        wanted = tuple(sorted(set(request.agents)))
        if request.after_revision < 0:
            raise rpc.InvalidArgument("must not be negative", field="after_revision")
        self.watchers += 1
        try:
            async with self._streams.open():
                revision = await self._resumable(request.after_revision)
                while True:
                    response = self._news(revision, wanted)
                    # Taken now: the response may be shared, and while it is written the index moves on.
                    revision = self._index.revision
                    if response.agents or response.snapshot:
                        await context.write(response)
                    if revision == self._index.revision:
                        await self._index.changed.wait()
        finally:
            self.watchers -= 1

    async def _resumable(self, after: int) -> int:
        """The revision behind which a watcher resumes here; 0: with a snapshot."""
        if after % LOCAL:  # numbered by one replica alone, perhaps another one
            return 0
        if after > self._index.position:
            with contextlib.suppress(Behind):
                await self._follower.reached(after, _PATIENCE)
        return after

    def _news(self, after: int, wanted: tuple[str, ...]) -> pb.WatchResponse:
        """What a watcher does not know yet, the same object for all who know the same."""
        key = (after, self._index.revision, wanted)
        if self._shared is not None and self._shared[0] == key:
            return self._shared[1]
        changed = self._index.changes(after) if after else None
        names = self._index.names() if changed is None else sorted(changed)
        if wanted:
            names = sorted(set(names).intersection(wanted))
        response = pb.WatchResponse(
            snapshot=changed is None,
            agents=[agent for name in names if (agent := self._index.agent(name)) is not None],
            revision=self._index.revision,
        )
        self._shared = (key, response)
        return response

    async def ListAgents(self, request: pb.ListAgentsRequest, _: Context) -> pb.ListAgentsResponse:
        """See registry.proto."""
        size = paging.page_size(request.page_size, default=_PAGE, most=_MAX_PAGE)
        names = self._index.names()
        listed = f"agents {request.state}"
        behind = paging.page_begin(request.page_token, made_for=listed, like=("",))
        start = 0 if behind is None else bisect.bisect_right(names, str(behind[0]))
        response = pb.ListAgentsResponse(revision=self._index.revision)
        for name in names[start:]:
            agent = self._index.agent(name)
            assert agent is not None
            if request.state != State.INSTANCE_STATE_UNSPECIFIED and all(
                instance.state != request.state for instance in agent.instances
            ):
                continue
            if len(response.agents) == size:
                last = response.agents[-1].name
                response.next_page_token = paging.page_token((last,), made_for=listed)
                break
            response.agents.append(agent)
        return response

    async def ListReplicas(
        self, _request: pb.ListReplicasRequest, _: Context
    ) -> pb.ListReplicasResponse:
        """See registry.proto."""
        response = pb.ListReplicasResponse(answered_by=self._replica)
        for peer in self._membership.peers:
            shown = response.replicas.add(
                replica=peer.replica,
                address=peer.address,
                leases=peer.leases,
                revision=peer.position,
            )
            shown.start_time.FromDatetime(peer.start_time)
            shown.silence.FromTimedelta(peer.silence)
            if peer.replica == self._replica:
                shown.revision = self._index.position
                shown.lag.FromTimedelta(timedelta(seconds=self._follower.lag))
        return response

    async def GetDescriptors(
        self, request: pb.GetDescriptorsRequest, _: Context
    ) -> pb.GetDescriptorsResponse:
        """See registry.proto."""
        validate.check(validate.digests(request.digests))
        response = pb.GetDescriptorsResponse()
        for digest in request.digests:
            found = self._sets.get(digest)
            if found is None:
                raise rpc.NotFound(
                    f"There is no descriptor set {digest}.",
                    reason="DESCRIPTORS_UNKNOWN",
                    metadata={"digest": digest},
                )
            response.descriptors.sets[digest] = found
        return response
