"""One HTTP route of a method: how its path, query and body make a request, and what of the reply goes out.

The parts are written in wire form one after the other (query, body, path) and never parsed again: the
wire form merges, and of a single field the last value counts. So a path wins over a body that names the
same field, whatever its value; a query that does is refused (see `query`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import orjson
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from weft import rpc
from weft.gateway.transcoding import fields, values
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
        self.body_field = _top_level(request, rule.body, "body") if rule.body not in ("", "*") else None
        self.response_field = (
            _top_level(reply, rule.response_body, "response_body") if rule.response_body else None
        )
        if rule.body and self.http_method in _WITHOUT_BODY:
            raise BindingError(f"{self.http_method} has no body")
        self._path = tuple(_path_encoder(each) for each in self.path_fields)
        self._body = self._body_parser(schema, request)
        self._whole = self._body if rule.body == "*" and not self._path else None
        self._reply = self._reply_writer(schema, reply)
        self._query = QueryBinder(
            request,
            path=self.path_fields,
            body={"": None, "*": ()}.get(rule.body, (self.body_field,) if self.body_field else ()),
            parser=lambda kind: schema.codec(kind.full_name).parse,
        )

    def request(self, path: Sequence[str], query: str, body: bytes) -> bytes:
        """The request message in wire form.

        Args:
            path: Decoded values of the template's variables, in their order.
            query: The query of the request target, not decoded; empty: none.
            body: The body; empty stands for a message with nothing set.

        Raises:
            rpc.InvalidArgument: names the field, parameter or place.
        """
        if self._whole is not None and body and not query:
            return self._whole(body)
        parts = [self._query.to_wire(query)] if query else []
        if body:
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

    def _body_parser(self, schema: Schema, request: Descriptor) -> ToWire | None:
        if not self.body:
            return None
        field = self.body_field
        if field is None:
            return schema.codec(request.full_name).to_wire
        if fields.is_plain_message(field) and field.type == FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type is not None
            return _field_parser(field, schema.codec(field.message_type.full_name).to_wire)
        return _wrapping_parser(field, schema.codec(request.full_name).to_wire)

    def _reply_writer(self, schema: Schema, reply: Descriptor) -> ToJson:
        codec = schema.codec(reply.full_name)
        if self.response_field is None:
            return codec.to_json
        return schema.field_codec(reply, self.response_field)


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
