"""What a servicer's generated code says about the agent it is."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor

from weft.rpc.server import DEFAULT_MAX_CONCURRENCY
from weft.v1 import options_pb2


class ContractError(TypeError):
    """The class is not made from a .proto that the runtime can serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """The contract of an agent.

    Attributes:
        agent: name callers dial.
        service: full name of its gRPC service.
        max_concurrency: calls an instance works on at a time.
        descriptors: serialized FileDescriptorSet of the service's file and all it imports.
        digest: SHA-256 of `descriptors`, in hexadecimal.
        add_to_server: the generated function that adds a servicer to a server.
        descriptor: of the service.
    """

    agent: str
    service: str
    max_concurrency: int
    descriptors: bytes
    digest: str
    add_to_server: Callable[[Any, Any], None]
    descriptor: ServiceDescriptor


def contract_of(servicer: object) -> Contract:
    """Finds the contract of a servicer by the generated class it derives from.

    Raises:
        ContractError: it derives from no generated Servicer class.
    """
    for base in type(servicer).__mro__:
        module = sys.modules.get(base.__module__)
        adder = getattr(module, f"add_{base.__name__}_to_server", None)
        if adder is not None:
            service = service_of(base.__module__, base.__name__.removesuffix("Servicer"))
            return contract_for(service, adder)
    raise ContractError(
        f"{type(servicer).__name__} derives from no generated class; "
        "derive it from the ...Servicer class of your ..._pb2_grpc module"
    )


def agent_of(stub: type) -> str:
    """The agent whose service a generated Stub class calls.

    Raises:
        ContractError: `stub` is not a generated Stub class.
    """
    return agent_name(service_of(stub.__module__, stub.__name__.removesuffix("Stub")))


def service_of(grpc_module: str, name: str) -> ServiceDescriptor:
    """The descriptor of a service of a ..._pb2_grpc module."""
    messages = sys.modules.get(grpc_module.removesuffix("_grpc"))
    file = getattr(messages, "DESCRIPTOR", None)
    found = file.services_by_name.get(name) if isinstance(file, FileDescriptor) else None
    if found is None:
        raise ContractError(f"{grpc_module} is not a generated ..._pb2_grpc module with {name}")
    return found


def agent_name(service: ServiceDescriptor) -> str:
    """Name an agent's contract gives it; by default its service's name: GreeterService -> greeter."""
    declared = service.GetOptions().Extensions[options_pb2.agent].name
    if declared:
        return str(declared)
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", service.name.removesuffix("Service"))
    return "-".join(word.lower() for word in words) or service.name.lower()


def contract_for(service: ServiceDescriptor, adder: Callable[[Any, Any], None]) -> Contract:
    """The contract of a service, and what adds a servicer of it to a server."""
    options = service.GetOptions().Extensions[options_pb2.agent]
    descriptors = _file_descriptor_set(service.file)
    return Contract(
        agent=agent_name(service),
        service=service.full_name,
        max_concurrency=options.max_concurrency or DEFAULT_MAX_CONCURRENCY,
        descriptors=descriptors,
        digest=hashlib.sha256(descriptors).hexdigest(),
        add_to_server=adder,
        descriptor=service,
    )


def _file_descriptor_set(file: FileDescriptor) -> bytes:
    found: dict[str, FileDescriptor] = {}

    def visit(one: FileDescriptor) -> None:
        if one.name not in found:
            for dependency in one.dependencies:
                visit(dependency)
            found[one.name] = one

    visit(file)
    result = descriptor_pb2.FileDescriptorSet()
    for one in found.values():
        one.CopyToProto(result.file.add())
    return result.SerializeToString(deterministic=True)
