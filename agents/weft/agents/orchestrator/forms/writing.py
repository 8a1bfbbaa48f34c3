"""Workflows as YAML, in the form that `reading` takes, and as JSON."""

from __future__ import annotations

from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from weft.agents.orchestrator.forms.durations import shown
from weft.agents.orchestrator.forms.reading import enum_prefix
from weft.v1.workflow_pb2 import Fields, Join, WorkflowSpec

_WIDTH = 110


def to_yaml(spec: WorkflowSpec) -> str:
    """A workflow as YAML."""
    dumper = yaml.SafeDumper
    # A class of its own, so that no other user of the library is changed.
    own = type("_Dumper", (dumper,), {})
    own.add_representer(str, _text)  # type: ignore[attr-defined]  # a Dumper
    return str(
        yaml.dump(_plain(spec), Dumper=own, sort_keys=False, allow_unicode=True, width=_WIDTH)
    )


def to_json(spec: WorkflowSpec) -> str:
    """A workflow as ProtoJSON, with the names of the .proto."""
    return json_format.MessageToJson(spec, preserving_proto_field_name=True, ensure_ascii=False)


def _text(dumper: Any, text: str) -> Any:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _plain(message: Message) -> Any:
    if isinstance(message, Duration):
        return shown(message)
    if isinstance(message, Fields):
        return dict(message.by_path)
    if isinstance(message, Join) and message.WhichOneof("kind") not in {None, "first"}:
        return message.WhichOneof("kind")
    fields = sorted(message.ListFields(), key=lambda pair: pair[0].index)
    return {field.name: _value(field, value) for field, value in fields}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_single(field, each) for each in value]
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        name = field.enum_type.values_by_number[value].name
        return name.removeprefix(enum_prefix(field.enum_type)).lower()
    return _plain(value) if field.message_type is not None else value
