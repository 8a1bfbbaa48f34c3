"""Skills as messages: the method of a contract, named by its generated Servicer, is what a message is for."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from google.protobuf import message_factory
from google.protobuf.message import Message

from weft.agents.contract import ContractError, agent_name, service_of

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

# A method of a generated Servicer class, such as TriageServiceServicer.Classify: its types are those of the skill.
Method: TypeAlias = Callable[[Any, RequestT, Any], ResponseT | Awaitable[ResponseT]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """A method as a message knows it. `path`: gRPC path; `agent`: whose queue it goes to."""

    path: str
    agent: str
    request: type[Message]
    response: type[Message]


def stands_for_skill(function: Callable[..., Any]) -> bool:
    """Whether it is a method of a generated Servicer class, and no handler."""
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    return owner.endswith("Servicer") and function.__module__.endswith("_pb2_grpc")


def skill_of(method: Callable[..., Any]) -> Skill:
    """The skill that a method of a generated Servicer class stands for.

    Raises:
        ContractError: it is no unary method of a generated class.
    """
    owner, _, name = method.__qualname__.rpartition(".")
    module = sys.modules.get(method.__module__)
    if module is None or not owner.endswith("Servicer"):
        raise ContractError(
            f"{method.__qualname__} is no method of a generated ...Servicer class; "
            "name it as in TriageServiceServicer.Classify"
        )
    service = service_of(method.__module__, owner.removesuffix("Servicer"))
    descriptor = service.methods_by_name[name]
    if descriptor.client_streaming or descriptor.server_streaming:
        raise ContractError(f"{descriptor.full_name} streams, and a message is one request")
    return Skill(
        path=f"/{service.full_name}/{name}",
        agent=agent_name(service),
        request=message_factory.GetMessageClass(descriptor.input_type),
        response=message_factory.GetMessageClass(descriptor.output_type),
    )
