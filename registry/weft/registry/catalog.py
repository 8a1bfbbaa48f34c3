"""Descriptor sets by digest, and what the registry reads from them: agents' contracts, their methods, the messages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError, Message

from weft.v1 import agent_pb2, options_pb2

M = TypeVar("M", bound=Message)

MAX_SET_BYTES = 2 * 1024 * 1024
_RETRYABLE = frozenset(
    (
        descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS,
        descriptor_pb2.MethodOptions.IDEMPOTENT,
    )
)


class InvalidSetError(ValueError):
    """A descriptor set cannot be used; the text says why."""


# Type of message -> its fields that are messages, and of which type.
Messages = Mapping[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method as its descriptor set describes it.

    Attributes:
        path: "/package.Service/Method".
        request: full name of the type of message it takes.
        response: full name of the type of message it answers with.
        skill: what the contract says of it.
        retryable: whether it may run twice.
        bindings: its HTTP routes, each a method ("*": any) and a path template.
        streams: whether it answers with a stream.
    """

    path: str
    request: str
    response: str
    skill: options_pb2.SkillOptions
    retryable: bool
    bindings: tuple[tuple[str, str], ...] = ()
    streams: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A gRPC service as its descriptor set describes it.

    Attributes:
        options: what the contract says of the agent.
        methods: in the order of the contract.
        messages: all types of the set, the same object for all its services.
    """

    options: options_pb2.AgentOptions
    methods: tuple[Method, ...]
    messages: Messages


class Catalog:
    """All descriptor sets the registry has, in memory."""

    def __init__(self) -> None:
        self._sets: dict[str, bytes] = {}
        self._services: dict[str, Mapping[str, Service]] = {}
        self._types: set[str] = set()

    def __contains__(self, digest: str) -> bool:
        return digest in self._sets

    def get(self, digest: str) -> bytes | None:
        """A serialized google.protobuf.FileDescriptorSet."""
        return self._sets.get(digest)

    def add(self, digest: str, descriptor_set: bytes, services: Mapping[str, Service]) -> None:
        """Adds a set with what `read` found in it."""
        self._sets[digest] = descriptor_set
        self._services[digest] = services
        for service in services.values():
            self._types.update(service.messages)

    def has_type(self, name: str) -> bool:
        """Whether any set has this type of message."""
        return name in self._types

    def service(self, ref: agent_pb2.ServiceRef) -> Service | None:
        """A service by its name and set; None when the set is not here or does not have it."""
        return self._services.get(ref.descriptor_digest, {}).get(ref.name)

    def contract(self, agent: str, refs: Iterable[agent_pb2.ServiceRef]) -> agent_pb2.Agent:
        """The agent as its services describe it: the one that names the agent, else the first with options."""
        refs = list(refs)
        options = [found.options for ref in refs if (found := self.service(ref)) is not None]
        named = [said for said in options if said.name == agent] or [
            said for said in options if said.name
        ]
        said = named[0] if named else options_pb2.AgentOptions()
        return agent_pb2.Agent(
            name=agent,
            description=said.description,
            tags=said.tags,
            tier=said.tier,
            services=refs,
        )

    def retryable(self, refs: Iterable[agent_pb2.ServiceRef]) -> Iterator[str]:
        """Paths of the methods of services that may run twice."""
        for ref in refs:
            found = self.service(ref)
            if found is not None:
                yield from (method.path for method in found.methods if method.retryable)


def digest_of(descriptor_set: bytes) -> str:
    """SHA-256, 64 lower-case hexadecimal digits."""
    return hashlib.sha256(descriptor_set).hexdigest()


def read(descriptor_set: bytes) -> Mapping[str, Service]:
    """The services of a set, by full name.

    Raises:
        InvalidSetError: it is too large, damaged, lacks an import or does not build.
    """
    if len(descriptor_set) > MAX_SET_BYTES:
        raise InvalidSetError(f"is larger than {MAX_SET_BYTES:,} bytes")
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
    except DecodeError:
        raise InvalidSetError("is not a google.protobuf.FileDescriptorSet") from None
    _build(files)
    messages = {
        name: fields
        for file in files
        for message in file.message_type
        for name, fields in _messages(file.package, message)
    }
    return {
        full_name: _service(full_name, service, messages)
        for file in files
        for service in file.service
        for full_name in [f"{file.package}.{service.name}".lstrip(".")]
    }


def _service(
    full_name: str, service: descriptor_pb2.ServiceDescriptorProto, messages: Messages
) -> Service:
    return Service(
        options=_own(service.options.Extensions[options_pb2.agent]),
        methods=tuple(
            Method(
                path=f"/{full_name}/{method.name}",
                request=method.input_type.lstrip("."),
                response=method.output_type.lstrip("."),
                skill=_own(method.options.Extensions[options_pb2.skill]),
                retryable=method.options.idempotency_level in _RETRYABLE,
                bindings=tuple(_bindings(method.options.Extensions[annotations_pb2.http])),
                streams=method.server_streaming,
            )
            for method in service.method
        ),
        messages=messages,
    )


def _own(part: M) -> M:
    # A part of a parsed message keeps the whole of it in memory.
    copy = type(part)()
    copy.CopyFrom(part)
    return copy


def _bindings(rule: http_pb2.HttpRule) -> Iterator[tuple[str, str]]:
    for each in (rule, *rule.additional_bindings):
        kind = each.WhichOneof("pattern")
        if kind == "custom":
            yield each.custom.kind, each.custom.path
        elif kind is not None:
            yield kind.upper(), getattr(each, kind)


def _messages(
    scope: str, message: descriptor_pb2.DescriptorProto
) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    name = f"{scope}.{message.name}".lstrip(".")
    if not message.options.map_entry:
        entries = {
            f"{name}.{nested.name}": nested.field[1]
            for nested in message.nested_type
            if nested.options.map_entry
        }
        fields = [
            (field.name, entries.get(field.type_name.lstrip("."), field)) for field in message.field
        ]
        yield (
            name,
            tuple(
                (called, field.type_name.lstrip("."))
                for called, field in fields
                if field.type == descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
            ),
        )
    for nested in message.nested_type:
        yield from _messages(name, nested)


def _build(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> None:
    # What does not build here would break everyone who reads it later: gateway, command line, consoles.
    pool = descriptor_pool.DescriptorPool()
    by_name = {file.name: file for file in files}
    built: set[str] = set()
    pending = [iter(by_name)]
    stack: list[str] = []
    while pending:
        name = next(pending[-1], None)
        if name is None:
            pending.pop()
            if stack:
                _add(pool, by_name[done := stack.pop()])
                built.add(done)
        elif name in stack:
            raise InvalidSetError(f"holds {name}, which imports itself")
        elif name not in by_name:
            raise InvalidSetError(f"lacks {name}, which {stack[-1]} imports")
        elif name not in built:
            stack.append(name)
            pending.append(iter(by_name[name].dependency))


def _add(pool: descriptor_pool.DescriptorPool, file: descriptor_pb2.FileDescriptorProto) -> None:
    try:
        pool.Add(file)
    except TypeError as failed:
        raise InvalidSetError(f"does not build: {failed}") from None
