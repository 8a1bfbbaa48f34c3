"""What the contract says about a method, where the process has the contract."""

from __future__ import annotations

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from weft.v1 import options_pb2

DEFAULT_TIMEOUT = 30.0  # seconds, of a unary skill that names none (weft.v1.SkillOptions)


def find(method: str, contract: ServiceDescriptor | None = None) -> MethodDescriptor | None:
    """The descriptor of "/package.Service/Method"; None when this process has not loaded it.

    Args:
        method: the path.
        contract: its service, where that is of no generated code.
    """
    if contract is not None:
        return contract.methods_by_name.get(method.rpartition("/")[2])
    service, _, name = method.lstrip("/").rpartition("/")
    try:
        return descriptor_pool.Default().FindServiceByName(service).methods_by_name.get(name)
    except KeyError:
        return None


def default_timeout(
    method: str, *, streaming: bool, service: ServiceDescriptor | None = None
) -> float | None:
    """Seconds a call may take when its caller names no deadline; None: a stream with no declared limit."""
    descriptor = find(method, service)
    if descriptor is not None:
        declared = descriptor.GetOptions().Extensions[options_pb2.skill].default_timeout
        if seconds := declared.ToTimedelta().total_seconds():
            return seconds
    return None if streaming else DEFAULT_TIMEOUT
