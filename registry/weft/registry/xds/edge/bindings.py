"""Which HTTP routes of a contract Envoy's transcoder takes. One that it does not take makes it refuse all routes at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from google.api import http_pb2
from google.protobuf import descriptor_pb2

Field = descriptor_pb2.FieldDescriptorProto
Types = Mapping[str, Mapping[str, Field]]

_SEGMENT = r"(?:\*|[A-Za-z0-9_.~%@!$&'()+,;=-]+)"
_PATTERN = rf"{_SEGMENT}(?:/{_SEGMENT})*(?:/\*\*)?"
_VARIABLE = rf"\{{[A-Za-z_][A-Za-z0-9_.]*(?:=(?:{_PATTERN}|\*\*))?\}}"
_TEMPLATE = re.compile(rf"(?:/(?:{_SEGMENT}|\*\*|{_VARIABLE}))+(?::[A-Za-z0-9_.~-]+)?")
_NAME = re.compile(r"\{([A-Za-z0-9_.]+)")
_ANYTHING = re.compile(
    r"\*\*\}?(?=/)"
)  # what stands for several segments may stand at the end only
_BODY = ".google.api.HttpBody"


def types(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> Types:
    """The fields of all messages, by the messages' full names with a dot before, and by their own names."""
    return {
        name: {field.name: field for field in message.field}
        for file in files
        for name, message in _messages(f".{file.package}".rstrip("."), file.message_type)
    }


def taken(
    rule: http_pb2.HttpRule, method: descriptor_pb2.MethodDescriptorProto, known: Types
) -> Iterator[http_pb2.HttpRule]:
    """The bindings of a method that the transcoder takes, none of which has others in it."""
    for each in (rule, *rule.additional_bindings):
        if _fits(each, method, known):
            alone = http_pb2.HttpRule()
            alone.CopyFrom(each)
            del alone.additional_bindings[:]
            yield alone


def route(rule: http_pb2.HttpRule) -> tuple[str, str]:
    """HTTP method and path template of a binding; empty where it has none."""
    kind = rule.WhichOneof("pattern")
    if kind == "custom":
        return rule.custom.kind, rule.custom.path
    return ("", "") if kind is None else (kind.upper(), getattr(rule, kind))


def _fits(
    rule: http_pb2.HttpRule, method: descriptor_pb2.MethodDescriptorProto, known: Types
) -> bool:
    template = route(rule)[1]
    if not _TEMPLATE.fullmatch(template) or _ANYTHING.search(template):
        return False
    request, response = known.get(method.input_type, {}), known.get(method.output_type, {})
    if rule.body not in {"", "*"} and rule.body not in request:
        return False
    if rule.response_body:
        answer = response.get(rule.response_body)
        if answer is None or answer.type_name != _BODY:
            return False
    return all(_is_scalar(name, request, known) for name in _NAME.findall(template))


def _is_scalar(path: str, fields: Mapping[str, Field], known: Types) -> bool:
    *outer, last = path.split(".")
    for name in outer:
        field = fields.get(name)
        if field is None or field.label == Field.LABEL_REPEATED:
            return False
        fields = known.get(field.type_name, {})
    found = fields.get(last)
    return (
        found is not None
        and found.label != Field.LABEL_REPEATED
        and found.type not in {Field.TYPE_MESSAGE, Field.TYPE_GROUP}
    )


def _messages(
    scope: str, found: Iterable[descriptor_pb2.DescriptorProto]
) -> Iterator[tuple[str, descriptor_pb2.DescriptorProto]]:
    for message in found:
        name = f"{scope}.{message.name}"
        yield name, message
        yield from _messages(name, message.nested_type)
