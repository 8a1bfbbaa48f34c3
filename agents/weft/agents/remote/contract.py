"""The contract of a remote agent: a service whose methods are the skills of the remote, made while the process runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from google.api import annotations_pb2, field_behavior_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message

from weft.agents.contract import Contract
from weft.agents.remote.names import camel, clean, snake
from weft.agents.remote.schemas import Compiled
from weft.remote.v1 import content_pb2, conversation_pb2
from weft.rpc.server import DEFAULT_MAX_CONCURRENCY
from weft.v1 import options_pb2

NO_SIDE_EFFECTS = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
IDEMPOTENT = descriptor_pb2.MethodOptions.IDEMPOTENT
UNKNOWN = descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN

MOST_SKILLS = 256
_MOST_BYTES = 1_000_000  # of a file; the registry takes 2 MiB with all that it imports
_LONGEST_DESCRIPTION = 1_000
_IMPORTS = (
    struct_pb2.DESCRIPTOR,
    annotations_pb2.DESCRIPTOR,
    field_behavior_pb2.DESCRIPTOR,
    options_pb2.DESCRIPTOR,
    content_pb2.DESCRIPTOR,
    conversation_pb2.DESCRIPTOR,
)

Behaviour = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """A skill of the remote as a method.

    Attributes:
        name: of the method, valid and distinct.
        description: what it does, in the words of the remote.
        request: what it takes.
        response: what it gives.
        serve: handles a call: takes the message and gRPC's context, returns bytes, or yields them where it streams.
        streams: whether it answers with a stream.
        idempotency: what may be done with a call that perhaps was made.
        verb: what its path ends with after a colon; empty: nothing.
        tags: words to find it by.
    """

    name: str
    description: str
    request: Compiled
    response: Compiled
    serve: Behaviour
    streams: bool = False
    idempotency: descriptor_pb2.MethodOptions.IdempotencyLevel.ValueType = UNKNOWN
    verb: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the operator says of a remote agent.

    Attributes:
        agent: name callers dial.
        scopes: what callers of any of its skills need.
        timeout: how long a call may take whose caller names no deadline.
    """

    agent: str
    scopes: tuple[str, ...] = ()
    timeout: timedelta = timedelta(seconds=60)

    @property
    def package(self) -> str:
        """Package of its service."""
        return f"remote.{snake(self.agent)}.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A contract, the size of its own file, the message classes of its types by their full names, and what serves its methods."""

    contract: Contract
    size: int
    classes: Mapping[str, type[Message]] = field(repr=False)
    served: Mapping[str, Behaviour] = field(repr=False)


def make(terms: Terms, description: str, skills: Sequence[Skill]) -> Made:
    """The contract of a remote agent."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{terms.package.replace('.', '/')}/{snake(terms.agent)}.proto",
        package=terms.package,
        syntax="proto3",
        dependency=[each.name for each in _IMPORTS],
    )
    service = file.service.add(name=f"{camel(terms.agent)}Service")
    options = options_pb2.AgentOptions(
        name=terms.agent, description=clean(description, _LONGEST_DESCRIPTION), tags=["remote"]
    )
    service.options.Extensions[options_pb2.agent].CopyFrom(options)
    for skill in skills:
        file.message_type.extend(
            each.message
            for each in (skill.request, skill.response)
            if each.message is not None and each.message not in file.message_type
        )
        _add_method(service, skill, terms)
    return _made(file, service.name, skills)


def fits(made: Made) -> bool:
    """Whether a contract is small enough to be registered."""
    return made.size <= _MOST_BYTES


def has_room(made: Made, before: int, *, simple: bool) -> bool:
    """Whether a contract of one skill can be added to those before it.

    Args:
        made: the contract.
        before: size of the others.
        simple: whether it is one of few bytes, for which there is room left.
    """
    return before + made.size <= (_MOST_BYTES if simple else _MOST_BYTES // 2)


def _add_method(service: descriptor_pb2.ServiceDescriptorProto, skill: Skill, terms: Terms) -> None:
    method = service.method.add(
        name=skill.name,
        input_type=skill.request.type_name,
        output_type=skill.response.type_name,
        server_streaming=skill.streams,
    )
    method.options.idempotency_level = skill.idempotency
    said = options_pb2.SkillOptions(
        description=clean(skill.description, _LONGEST_DESCRIPTION),
        tags=skill.tags,
        required_scopes=terms.scopes,
    )
    said.default_timeout.FromTimedelta(terms.timeout)
    method.options.Extensions[options_pb2.skill].CopyFrom(said)
    name = snake(skill.name.removeprefix("Stream") if skill.verb else skill.name)
    path = f"/v1/remote/{terms.agent}/{name}" + (f":{skill.verb}" if skill.verb else "")
    method.options.Extensions[annotations_pb2.http].CopyFrom(http_pb2.HttpRule(post=path, body="*"))


def _made(file: descriptor_pb2.FileDescriptorProto, service: str, skills: Sequence[Skill]) -> Made:
    imported = _imported(_IMPORTS)
    pool = descriptor_pool.DescriptorPool()
    for each in imported:
        pool.Add(each)
    pool.Add(file)
    described = pool.FindServiceByName(f"{file.package}.{service}")
    # Of its own making, not of the pool's: that keeps no JSON names.
    serialized = descriptor_pb2.FileDescriptorSet(file=[*imported, file]).SerializeToString(
        deterministic=True
    )
    classes = {
        each.full_name: message_factory.GetMessageClass(each)
        for method in described.methods
        for each in (method.input_type, method.output_type)
    }
    handlers = {
        skill.name: _handler(skill, classes[skill.request.type_name.lstrip(".")])
        for skill in skills
    }

    def add_to_server(_: Any, server: Any) -> None:
        server.add_registered_method_handlers(described.full_name, handlers)

    contract = Contract(
        agent=described.GetOptions().Extensions[options_pb2.agent].name,
        service=described.full_name,
        max_concurrency=DEFAULT_MAX_CONCURRENCY,
        descriptors=serialized,
        digest=hashlib.sha256(serialized).hexdigest(),
        add_to_server=add_to_server,
        descriptor=described,
    )
    served = {skill.name: skill.serve for skill in skills}
    return Made(contract=contract, size=file.ByteSize(), classes=classes, served=served)


def _handler(skill: Skill, request: Any) -> grpc.RpcMethodHandler[Any, Any]:
    if skill.streams:
        return grpc.unary_stream_rpc_method_handler(
            skill.serve, request_deserializer=request.FromString
        )
    return grpc.unary_unary_rpc_method_handler(skill.serve, request_deserializer=request.FromString)


def _imported(files: Iterable[FileDescriptor]) -> list[descriptor_pb2.FileDescriptorProto]:
    """Files with all that they import, those that are imported first."""
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def visit(file: FileDescriptor) -> None:
        if file.name not in found:
            for each in file.dependencies:
                visit(each)
            copied = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(copied)
            found[file.name] = copied

    for file in files:
        visit(file)
    return list(found.values())
