"""The skills of agents, read from the descriptors that the registry keeps: no generated code is needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message

from weft.cli import failures
from weft.v1 import agent_pb2, options_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """A method of an agent.

    Attributes:
        method: its descriptor.
        pool: where the types of its messages, and of what they embed, are found.
    """

    method: MethodDescriptor
    pool: descriptor_pool.DescriptorPool

    @property
    def path(self) -> str:
        """The gRPC path: "/package.Service/Method"."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def options(self) -> options_pb2.SkillOptions:
        """What the contract says about it."""
        found: options_pb2.SkillOptions = self.method.GetOptions().Extensions[options_pb2.skill]
        return found

    @property
    def streams(self) -> tuple[bool, bool]:
        """Whether requests and responses are streams."""
        return bool(self.method.client_streaming), bool(self.method.server_streaming)

    @property
    def request_class(self) -> type[Message]:
        """The class of its request."""
        return _class_of(self.method.input_type)

    @property
    def response_class(self) -> type[Message]:
        """The class of its response."""
        return _class_of(self.method.output_type)


def _class_of(descriptor: Descriptor) -> type[Message]:
    return message_factory.GetMessageClass(descriptor)


def digests(services: Iterable[agent_pb2.ServiceRef]) -> list[str]:
    """The digests that describe these services, each once."""
    return list(dict.fromkeys(service.descriptor_digest for service in services))


def skills(services: Iterable[agent_pb2.ServiceRef], sets: dict[str, bytes]) -> list[Skill]:
    """The skills of these services, in the order of their contracts."""
    found = []
    pools: dict[str, Any] = {}
    for service in services:
        digest = service.descriptor_digest
        if digest not in pools:
            pools[digest] = _pool(sets[digest])
        described = pools[digest].FindServiceByName(service.name)
        found += [Skill(method=method, pool=pools[digest]) for method in described.methods]
    return found


def find(known: list[Skill], name: str, agent: str) -> Skill:
    """The skill called `name`: "Classify", or "package.Service/Classify" where two services have one.

    Raises:
        Failure: there is none or more than one.
    """
    matching = [skill for skill in known if name in (skill.method.name, skill.path.lstrip("/"))]
    if len(matching) == 1:
        return matching[0]
    if matching:
        paths = ", ".join(skill.path.lstrip("/") for skill in matching)
        raise failures.Failure(f"{agent} has several skills {name!r}; name one of {paths}.")
    names = [skill.method.name for skill in known]
    raise failures.Failure(
        f"{agent} has no skill {name!r}.{failures.nearest(name, names)} It has {', '.join(names)}."
    )


def _pool(serialized: bytes) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(serialized).file:
        pool.Add(file)
    return pool
