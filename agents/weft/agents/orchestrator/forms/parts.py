"""What steps of workflows are made of, from the classes of generated code."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from weft.agents.contract import agent_name, service_of
from weft.v1.workflow_pb2 import Call, Capability, Compute, Fields, Participant, Retry

Skill = Callable[..., Any] | str
"""A method of a generated Servicer class, such as `TriageServiceServicer.Classify`; or "package.Service/Method"."""


def skill(
    method: Skill,
    *,
    agent: str | None = None,
    tags: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    message: str | None = None,
    **fields: str,
) -> Call:
    """A call of a skill.

    Args:
        method: what to call.
        agent: whom; None: the agent that the method's contract names, or where it is a text, any.
        tags: what the agent has to be good at, instead of its name.
        labels: labels its instances need.
        message: expression of the whole request, instead of `fields`.
        fields: expressions by field of the request; `__` stands for the dot of "customer.id".

    Raises:
        ValueError: the request has no such field, or both `message` and fields are given.
    """
    described = None if isinstance(method, str) else method_of(method)
    made = Call(method=path_of(method))
    if tags or labels:
        made.capability.CopyFrom(Capability(tags=tags, labels=labels))
    elif agent is not None or described is not None:
        made.agent = agent or agent_name(described.containing_service)  # type: ignore[union-attr]  # one of them is
    request = described.input_type if described is not None else None
    fill(made, "message", message, fields, request)
    return made


def compute(kind: type[Message], *, message: str | None = None, **fields: str) -> Compute:
    """A message that is computed; see `skill` for its fields.

    Raises:
        ValueError: as `skill`.
    """
    made = Compute(type=kind.DESCRIPTOR.full_name)
    fill(made, "message", message, fields, cast("Descriptor", kind.DESCRIPTOR))
    return made


def participant(
    name: str,
    method: Skill,
    *,
    opinion: str = "",
    agent: str | None = None,
    message: str | None = None,
    **fields: str,
) -> Participant:
    """An agent in a pattern; see weft.v1.Participant, and `skill`.

    Raises:
        ValueError: as `skill`.
    """
    call = skill(method, agent=agent, tags=(), labels=None, message=message, **fields)
    return Participant(name=name, call=call, opinion=opinion)


def retry(
    attempts: int,
    *,
    first_pause: timedelta | None = None,
    max_pause: timedelta | None = None,
    codes: Sequence[str] = (),
) -> Retry:
    """When a step is tried again; see weft.v1.Retry."""
    made = Retry(attempts=attempts, codes=codes)
    set_span(made.first_pause, first_pause)
    set_span(made.max_pause, max_pause)
    return made


def path_of(method: Skill) -> str:
    """The method of a skill: "package.Service/Method"."""
    if isinstance(method, str):
        return method
    found = method_of(method)
    return f"{found.containing_service.full_name}/{found.name}"


def method_of(method: Callable[..., Any]) -> MethodDescriptor:
    """The descriptor of a method of a generated class.

    Raises:
        ValueError: it is none.
    """
    class_name, _, name = getattr(method, "__qualname__", "").partition(".")
    module = getattr(method, "__module__", "")
    service_name = class_name.removesuffix("Servicer")
    if name and module in sys.modules and module.endswith("_pb2_grpc"):
        found = service_of(module, service_name).methods_by_name.get(name)
        if found is not None:
            return found
    raise ValueError(
        f"{method!r} is no method of a generated class, such as TriageServiceServicer.Classify"
    )


def fill(
    into: Any, whole: str, message: str | None, fields: Mapping[str, str], kind: Descriptor | None
) -> None:
    """Sets the expression of a whole message, or those of its fields.

    Raises:
        ValueError: both are given, or there is no such field.
    """
    if message is not None and fields:
        raise ValueError("a message is given as a whole, or by its fields")
    if message is not None:
        setattr(into, whole, message)
        return
    by_path = {name.replace("__", "."): text for name, text in fields.items()}
    for path in by_path:
        _check(path, kind)
    into.fields.CopyFrom(Fields(by_path=by_path))


def set_span(into: Duration, span: timedelta | None) -> None:
    """Sets a span, where there is one."""
    if span is not None:
        into.FromTimedelta(span)


def _check(path: str, kind: Descriptor | None) -> None:
    for name in path.split("."):
        if kind is None:
            return
        field = kind.fields_by_name.get(name)
        if field is None:
            near = difflib.get_close_matches(name, list(kind.fields_by_name), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{kind.full_name} has no field {name!r}{hint}")
        is_message = field.type == FieldDescriptor.TYPE_MESSAGE and not field.is_repeated
        kind = field.message_type if is_message else None
