"""Finds agents for calls that name none: by what they serve, what they are good at, and their labels."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from weft import rpc
from weft.agents.orchestrator.plan.model import CallAction
from weft.v1 import agent_pb2, options_pb2, registry_pb2, registry_pb2_grpc

_FRESH = 1.0  # seconds for which an answer of the registry is taken as true
_IN_SERVICE = (agent_pb2.INSTANCE_STATE_SERVING, agent_pb2.INSTANCE_STATE_DEGRADED)
_LOOK = 5.0  # seconds


class NobodyServes(rpc.Unavailable):
    """No agent in service does this now."""

    reason = "NO_AGENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    agent: str
    instance: agent_pb2.Instance
    digest: str


class Directory:
    """Asks the registry.

    Args:
        channel: to the registry.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._registry = registry_pb2_grpc.RegistryServiceStub(channel)
        self._offers: dict[str, tuple[float, list[_Offer]]] = {}
        self._tags: dict[tuple[str, str], frozenset[str]] = {}
        self._descriptors: dict[str, FileDescriptorSet] = {}

    async def find(self, action: CallAction) -> str:
        """The first agent by name that is in service, serves the method, and has all tags and labels.

        Raises:
            NobodyServes: there is none.
            rpc.Error: the registry does not say.
        """
        service, _, _ = action.path.lstrip("/").partition("/")
        for offer in await self._serving(service):
            if not _has(offer.instance.labels, action.labels):
                continue
            wanted = frozenset(action.tags) - frozenset(offer.instance.capabilities)
            if not wanted or wanted <= await self._good_at(offer.digest, action.path):
                return offer.agent
        raise NobodyServes(
            f"No agent in service serves {action.path.lstrip('/')} as it is asked for."
        )

    async def _serving(self, service: str) -> list[_Offer]:
        now = time.monotonic()
        known = self._offers.get(service)
        if known is not None and known[0] > now:
            return known[1]
        try:
            request = registry_pb2.ResolveRequest(service=service)
            answer = await self._registry.Resolve(request, timeout=_LOOK)
        except grpc.aio.AioRpcError as failed:
            if known is not None:
                return known[1]  # better than nothing: whoever is gone refuses the call
            raise rpc.error_from_call(failed) from None
        offers = [
            _Offer(agent=instance.agent, instance=instance, digest=served.descriptor_digest)
            for instance in answer.instances
            if instance.state in _IN_SERVICE
            for served in instance.services
            if served.name == service
        ]
        self._offers[service] = (now + _FRESH, offers)
        return offers

    async def _good_at(self, digest: str, path: str) -> frozenset[str]:
        """Tags of a method and of its agent, by the contract."""
        if (known := self._tags.get((digest, path))) is not None:
            return known
        if digest not in self._descriptors:
            request = registry_pb2.GetDescriptorsRequest(digests=[digest])
            try:
                answer = await self._registry.GetDescriptors(request, timeout=_LOOK)
            except grpc.aio.AioRpcError as failed:
                raise rpc.error_from_call(failed) from None
            raw = answer.descriptors.sets.get(digest, b"")
            self._descriptors[digest] = FileDescriptorSet.FromString(raw)
        found: set[str] = set()
        service, _, method = path.lstrip("/").partition("/")
        for file in self._descriptors[digest].file:
            found |= _tags_in(file, service, method)
        self._tags[digest, path] = frozenset(found)
        return self._tags[digest, path]


def _tags_in(file: FileDescriptorProto, service: str, method: str) -> set[str]:
    found: set[str] = set()
    for declared in file.service:
        if f"{file.package}.{declared.name}".lstrip(".") == service:
            found.update(declared.options.Extensions[options_pb2.agent].tags)
            for each in declared.method:
                if each.name == method:
                    found.update(each.options.Extensions[options_pb2.skill].tags)
    return found


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in wanted.items())
