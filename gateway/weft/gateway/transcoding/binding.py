"""One HTTP route of a method: how its path, query and body make a request, and what of the reply goes out.

The parts are written in wire form one after the other (query, body, path) and never parsed again: the
wire form merges, and of a single field the last value counts. So a path wins over a body that names the
same field, whatever its value; a query that does is refused (see `query`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import orjson
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from weft import rpc
from weft.gateway.transcoding import fields, raw_body, values, wire
from weft.gateway.transcoding.json_depth import too_deep
from weft.gateway.transcoding.query import QueryBinder
from weft.gateway.transcoding.schema import Schema
from weft.gateway.transcoding.template import Template, TemplateError, parse

_STANDARD = ("get", "put", "post", "delete", "patch")
_WITHOUT_BODY = ("GET", "HEAD")

ToWire = Callable[[bytes], bytes]
ToJson = Callable[[bytes], bytes]


class BindingError(ValueError):
    """An HTTP rule that cannot be served."""


class Binding:
    """One HTTP route of a method."""

    __slots__ = (
        "_body",
        "_path",
        "_query",
        "_reply",
        "_whole",
        "body",
        "body_field",
        "http_method",
        "path_fields",
        "raw_reply",
        "raw_request",
        "response_body",
        "response_field",
        "template",
    )

    def __init__(self, method: MethodDescriptor, rule: HttpRule, schema: Schema) -> None:
        """Compiles a rule. Its additional bindings are not looked at.

        Raises:
            BindingError: the rule cannot be served.
        """
        self.http_method, self.template = _pattern(rule)
        self.body: str = rule.body
        self.response_body: str = rule.response_body
        request, reply = method.input_type, method.output_type
        self.path_fields = tuple(_path_field(request, v.path) for v in self.template.variables)
        self.body_field = (
            _top_level(request, rule.body, "body") if rule.body not in ("", "*") else None
        )
        self.response_field = (
            _top_level(reply, rule.response_body, "response_body") if rule.response_body else None
        )
        if rule.body and self.http_method in _WITHOUT_BODY:
            raise BindingError(f"{self.http_method} has no body")
        self.raw_request = bool(rule.body) and raw_body.raw_of(request, self.body_field)
        self.raw_reply = raw_body.raw_of(reply, self.response_field)
        self._path = tuple(_path_encoder(each) for each in self.path_fields)
        self._body = self._body_parser(schema, request)
        plain = rule.body == "*" and not self._path and not self.raw_request
        self._whole = self._body if plain else None
        self._reply = self._reply_writer(schema, reply)
        self._query = QueryBinder(
            request,
            path=self.path_fields,
            body={"": None, "*": ()}.get(rule.body, (self.body_field,) if self.body_field else ()),
            parser=lambda kind: schema.codec(kind.full_name).parse,
        )

    def request(
        self, path: Sequence[str], query: str, body: bytes, content_type: str = ""
    ) -> bytes:
        """The request message in wire form.

        Args:
            path: Decoded values of the template's variables, in their order.
            query: The query of the request target, not decoded; empty: none.
            body: The body; empty stands for a message with nothing set.
            content_type: Of the body; it matters where the body is a google.api.HttpBody.

        Raises:
            rpc.InvalidArgument: names the field, parameter or place.
        """
        if self._whole is not None and body and not query:
            return self._whole(body)
        parts = [self._query.to_wire(query)] if query else []
        if self.raw_request:
            parts.append(raw_body.to_wire(content_type, body, self.body_field))
        elif body:
            if self._body is None:
                raise rpc.InvalidArgument("this method takes no body", field="body")
            parts.append(self._body(body))
        for variable, encode, text in zip(self.template.variables, self._path, path, strict=True):
            try:
                parts.append(encode(text))
            except ValueError as failed:
                raise rpc.InvalidArgument(
                    f"path variable {variable.name!r} {failed}",
                    violations=[(variable.name, str(failed))],
                ) from None
        return b"".join(parts)

    def response(self, wire: bytes) -> bytes:
        """The reply, or the field of it that the rule names, as JSON.

        Raises:
            rpc.Internal: the bytes are not such a message.
        """
        return self._reply(wire)

    def raw(self, wire: bytes) -> tuple[str, bytes]:
        """Content type and bytes of a reply that is a google.api.HttpBody (`raw_reply`).

        Raises:
            rpc.Internal: the bytes are not such a message.
        """
        return raw_body.from_wire(wire, self.response_field)

    def _body_parser(self, schema: Schema, request: Descriptor) -> ToWire | None:
        if not self.body:
            return None
        field = self.body_field
        if field is None:
            return schema.codec(request.full_name).to_wire
        if _is_message(field):
            assert field.message_type is not None
            return _part_parser(field, schema.codec(field.message_type.full_name).to_wire)
        return _value_parser(field, schema.codec(request.full_name).to_wire)

    def _reply_writer(self, schema: Schema, reply: Descriptor) -> ToJson:
        field = self.response_field
        if field is None:
            return schema.codec(reply.full_name).to_json
        if _is_message(field):
            assert field.message_type is not None
            return _part_writer(field, schema.codec(field.message_type.full_name).to_json)
        everything = replace(schema.options, emit_defaults=True, proto_names=False)
        return _value_writer(field, schema.codec(reply.full_name, everything).to_json)


def compile_rule(method: MethodDescriptor, rule: HttpRule, schema: Schema) -> list[Binding]:
    """All routes of a method: its rule's own, then its additional bindings.

    Raises:
        BindingError: the rule cannot be served.
    """
    if method.client_streaming:
        raise BindingError("a method with streamed requests has no HTTP route (AIP-127)")
    if any(each.additional_bindings for each in rule.additional_bindings):
        raise BindingError("additional_bindings may not be nested")
    return [Binding(method, each, schema) for each in (rule, *rule.additional_bindings)]


def _pattern(rule: HttpRule) -> tuple[str, Template]:
    kind = rule.WhichOneof("pattern")
    if kind is None:
        raise BindingError("the rule has no pattern")
    if kind == "custom":
        method, text = rule.custom.kind, rule.custom.path
    else:
        method, text = kind.upper(), getattr(rule, kind)
    if not method:
        raise BindingError("the custom pattern has no kind")
    try:
        return method, parse(text)
    except TemplateError as failed:
        raise BindingError(str(failed)) from None


def _path_field(request: Descriptor, path: tuple[str, ...]) -> tuple[FieldDescriptor, ...]:
    name = ".".join(path)
    try:
        found = fields.resolve(request, path)
    except LookupError as failed:
        raise BindingError(f"path variable {name!r}: {failed.args[0]}") from None
    if found[-1].is_repeated or found[-1].message_type is not None:
        raise BindingError(f"path variable {name!r} must be a single field that is no message")
    return found


def _path_encoder(path: tuple[FieldDescriptor, ...]) -> values.Encode:
    encode = values.scalar_encoder(path[-1])
    parents = path[:-1]
    return (lambda text: wire.nested(parents, encode(text))) if parents else encode


def _top_level(message: Descriptor, name: str, what: str) -> FieldDescriptor:
    field = message.fields_by_name.get(name)
    if field is None:
        raise BindingError(f"{what}: {message.full_name} has no field {name!r}")
    return field


def _is_message(field: FieldDescriptor) -> bool:
    return fields.is_plain_message(field) and field.type == FieldDescriptor.TYPE_MESSAGE


def _part_parser(field: FieldDescriptor, to_wire: ToWire) -> ToWire:
    """The body is the message in a field."""

    def parse_part(body: bytes) -> bytes:
        try:
            return wire.delimited(field, to_wire(body))
        except rpc.InvalidArgument as failed:
            raise _inside(field.name, failed) from None

    return parse_part


def _value_parser(field: FieldDescriptor, to_wire: ToWire) -> ToWire:
    """The body is a list, a map or a single value: it is parsed as the one member of an object."""
    head = b'{"%s":' % field.name.encode()

    def parse_value(body: bytes) -> bytes:
        if not too_deep(body):
            try:
                orjson.loads(body)  # else a body could close the object and add members of its own
            except orjson.JSONDecodeError as bad:
                raise rpc.InvalidArgument(
                    f"malformed JSON at line {bad.lineno}, column {bad.colno}: {bad.msg}"
                ) from None
        return to_wire(head + body + b"}")

    return parse_value


def _part_writer(field: FieldDescriptor, to_json: ToJson) -> ToJson:
    """The reply is the message in a field; not set: an empty one."""
    number = field.number

    def write_part(reply: bytes) -> bytes:
        try:
            part = wire.submessage(reply, number)
        except ValueError:
            raise rpc.Internal("The reply is not a valid message.", reason="BAD_REPLY") from None
        return to_json(part)

    return write_part


def _value_writer(field: FieldDescriptor, to_json: ToJson) -> ToJson:
    """The reply is a list, a map or a single value; not set: null."""
    name = field.json_name

    def write_value(reply: bytes) -> bytes:
        return orjson.dumps(orjson.loads(to_json(reply)).get(name))

    return write_value


def _inside(name: str, failed: rpc.InvalidArgument) -> rpc.InvalidArgument:
    """The same error with its paths led from the request."""
    if not failed.violations:
        return failed
    violations = [(f"{name}.{path}", problem) for path, problem in failed.violations]
    return rpc.InvalidArgument(f"{name}.{failed.message}", violations=violations)
