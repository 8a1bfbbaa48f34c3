"""A mesh made for trials: agents with all kinds of methods, as a registry would give them, and handlers for these."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pb2, empty_pb2, json_format, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, MethodOptions

from weft.agents.orchestrator.plan.world import DescriptorWorld, StoredWorkflow
from weft.v1 import agent_pb2, options_pb2, workflow_pb2
from weft.v1.workflow_pb2 import WorkflowSpec

_TYPES = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "bool": FieldDescriptorProto.TYPE_BOOL,
}
_MESSAGES = {
    "Customer": {"id": "string", "vip": "bool"},
    "Item": {"name": "string", "n": "int32"},
    "Order": {
        "text": "string",
        "n": "int32",
        "customer": ".lab.v1.Customer",
        "items": "*.lab.v1.Item",
        "notes": "*string",
        "more": ".google.protobuf.Struct",
        "due": ".google.protobuf.Timestamp",
        "say": "string|choice",
        "number": "int64|choice",
    },
    "Result": {"text": "string", "n": "int32", "score": "double", "items": "*.lab.v1.Item"},
    "Other": {"word": "string"},
}
_METHODS: dict[str, dict[str, tuple[str, str, dict[str, Any]]]] = {
    "LabService": {
        "Work": ("Order", "Result", {"idempotency": MethodOptions.IDEMPOTENT}),
        "Once": ("Order", "Result", {}),
        "Read": ("Order", "Other", {"idempotency": MethodOptions.NO_SIDE_EFFECTS}),
        "Follow": ("Order", "Result", {"streams": True}),
        "Upload": ("Order", "Result", {"uploads": True}),
        "Mail": ("Order", "Result", {"delivery": options_pb2.DELIVERY_MESSAGE}),
        "Refund": ("Order", "Result", {"scopes": ["refunds", "money"]}),
        "Think": ("Order", ".weft.v1.Opinion", {"tags": ["clever"], "seconds": 7}),
    },
    "TwinService": {"Work": ("Order", "Result", {})},
}
AGENTS = {
    "lab": (["LabService"], ["fast"], [{"zone": "a"}]),
    "twin-a": (["TwinService"], ["left"], [{"zone": "a", "size": "big"}]),
    "twin-b": (["TwinService"], ["right"], [{"zone": "b"}, {"zone": "c"}]),
}


def descriptor_set() -> bytes:
    file = descriptor_pb2.FileDescriptorProto(
        name="lab/v1/lab.proto", package="lab.v1", syntax="proto3"
    )
    needed = [struct_pb2, timestamp_pb2, empty_pb2, options_pb2, workflow_pb2]
    file.dependency.extend(module.DESCRIPTOR.name for module in needed)
    for name, fields in _MESSAGES.items():
        _message(file.message_type.add(name=name), fields)
    for service, methods in _METHODS.items():
        made = file.service.add(name=service)
        for method, (request, reply, options) in methods.items():
            _method(made.method.add(name=method), request, reply, options)
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString(deterministic=True)


def _message(message: descriptor_pb2.DescriptorProto, fields: dict[str, str]) -> None:
    for number, (name, kind) in enumerate(fields.items(), 1):
        field = message.field.add(name=name, number=number)
        of, _, oneof = kind.partition("|")
        many = of.startswith("*")
        of = of.removeprefix("*")
        field.label = field.LABEL_REPEATED if many else field.LABEL_OPTIONAL
        if oneof:
            if not message.oneof_decl:
                message.oneof_decl.add(name=oneof)
            field.oneof_index = 0
        if of.startswith("."):
            field.type, field.type_name = field.TYPE_MESSAGE, of
        else:
            field.type = _TYPES[of]


def _method(
    method: descriptor_pb2.MethodDescriptorProto, request: str, reply: str, options: dict[str, Any]
) -> None:
    method.input_type = f".lab.v1.{request}"
    method.output_type = reply if reply.startswith(".") else f".lab.v1.{reply}"
    method.client_streaming = options.get("uploads", False)
    method.server_streaming = options.get("streams", False)
    method.options.idempotency_level = options.get("idempotency", MethodOptions.IDEMPOTENCY_UNKNOWN)
    skill = method.options.Extensions[options_pb2.skill]
    skill.required_scopes.extend(options.get("scopes", []))
    skill.tags.extend(options.get("tags", []))
    skill.delivery = options.get("delivery", options_pb2.DELIVERY_UNSPECIFIED)
    if "seconds" in options:
        skill.default_timeout.seconds = options["seconds"]


WORKFLOWS = (
    StoredWorkflow(name="child", version=1, input_type="lab.v1.Order", output_type="lab.v1.Other"),
    StoredWorkflow(name="child", version=2, input_type="lab.v1.Order", output_type="lab.v1.Result"),
    StoredWorkflow(
        name="uncle",
        version=1,
        input_type="lab.v1.Order",
        output_type="lab.v1.Result",
        contains=frozenset({"trial", "child"}),
    ),
)


def world(workflows: Iterable[StoredWorkflow] = WORKFLOWS) -> DescriptorWorld:
    serialized = descriptor_set()
    digest = hashlib.sha256(serialized).hexdigest()
    agents = [
        agent_pb2.Agent(
            name=name,
            tags=tags,
            services=[
                agent_pb2.ServiceRef(name=f"lab.v1.{service}", descriptor_digest=digest)
                for service in services
            ],
            instances=[agent_pb2.Instance(labels=each) for each in labels],
        )
        for name, (services, tags, labels) in AGENTS.items()
    ]
    return DescriptorWorld(agents, {digest: serialized}, workflows)


def spec(**fields: Any) -> WorkflowSpec:
    """A workflow in the form of ProtoJSON with the names of the .proto; named "trial", on a lab.v1.Order."""
    made = WorkflowSpec()
    json_format.ParseDict({"name": "trial", "input_type": "lab.v1.Order", **fields}, made)
    return made


def call(**more: Any) -> dict[str, Any]:
    """Calls lab.v1.LabService/Work with the text of the input."""
    return {
        "method": "lab.v1.LabService/Work",
        "fields": {"by_path": {"text": "input.text"}},
        **more,
    }


def step(id_: str, **more: Any) -> dict[str, Any]:
    """A node that calls lab.v1.LabService/Work, where it does nothing else."""
    kinds = {field.name for field in workflow_pb2.Node.DESCRIPTOR.oneofs_by_name["kind"].fields}
    return {"id": id_, **more} if kinds & more.keys() else {"id": id_, "call": call(), **more}


def way(source: str, target: str, **condition: Any) -> dict[str, Any]:
    return {"from": source, "to": target, **condition}
