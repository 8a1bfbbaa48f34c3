"""One operation of a document: a REST route of a method, or its Connect path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from weft import rpc
from weft.gateway.openapi.paths import OpenApiPath, PathParameter
from weft.gateway.openapi.schemas import Components, Json, is_required
from weft.gateway.transcoding.binding import Binding
from weft.gateway.transcoding.catalog import Idempotency, Method
from weft.gateway.transcoding.fields import is_map, is_plain_message
from weft.gateway.transcoding.values import has_text_form
from weft.v1 import jobs_pb2

Path = tuple[FieldDescriptor, ...]
_RAW: Json = {"type": "string", "format": "binary"}  # google.api.HttpBody
_DEEPEST_PARAMETER = (
    3  # names in a query parameter; deeper ones work, but a list of them helps nobody
)


def rest_operation(
    method: Method, binding: Binding, route: OpenApiPath, number: int, components: Components
) -> Json:
    """A route of a method. `number` is its place among the method's routes."""
    example: Any = next(iter(_examples(method)), None)
    operation = _operation(method, f"_{number + 1}" if number else "")
    parameters = [
        *(_path_parameter(each, binding, components, example) for each in route.parameters),
        *(_query_parameter(path, components, example) for path in _query_paths(method, binding)),
        *_headers(method),
    ]
    if parameters:
        operation["parameters"] = parameters
    if binding.body:
        operation["requestBody"] = _request_body(method, binding, components)
    field = binding.response_field
    schema = components.field(field) if field else components.of(method.output)
    operation["responses"] = _responses(method, schema, "Error") | _accepted(method, components)
    content: Json = operation["responses"]["200"]["content"]
    if binding.raw_reply:
        content.clear()
        content["*/*"] = {"schema": dict(_RAW)}
    elif method.server_streaming:
        error = {"$ref": "#/components/schemas/Error"}
        content["application/x-ndjson"] = {"schema": schema}
        content["application/json"] = {
            "schema": {"type": "array", "items": {"anyOf": [schema, error]}}
        }
    return operation


def connect_operation(method: Method, components: Components) -> Json:
    """POST /package.Service/Method."""
    operation = _operation(method, "_Connect")
    operation["x-weft-connect"] = True
    if headers := [*_headers(method)]:
        operation["parameters"] = headers
    required = any(map(is_required, method.input.fields))
    operation["requestBody"] = _body(
        components.of(method.input), _examples(method), required=required
    )
    operation["responses"] = _responses(
        method, components.of(method.output), "ConnectError"
    ) | _accepted(method, components)
    return operation


def _operation(method: Method, suffix: str) -> Json:
    service = method.service.rpartition(".")[2]
    skill = method.skill
    operation: Json = {
        "operationId": f"{service}_{method.name}{suffix}",
        "tags": [method.agent.name],
        "summary": _words(method.name),
        "x-weft-method": method.full_name,
        "x-weft-timeout-seconds": skill.default_timeout.total_seconds(),
        "x-weft-idempotency": method.idempotency.name,
    }
    if skill.description:
        operation["description"] = skill.description
    if skill.tags:
        operation["x-weft-tags"] = list(skill.tags)
    if skill.required_scopes:
        scopes = list(skill.required_scopes)
        operation["security"] = [{"bearer": scopes}, {"apiKey": scopes}]
    return operation


def _headers(method: Method) -> Iterator[Json]:
    if method.idempotency is not Idempotency.NO_SIDE_EFFECTS and not method.server_streaming:
        yield {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "A call with the same key is made once, and answered the same from then on.",
            "schema": {"type": "string", "pattern": '^("[!-~]{1,255}"|[!#-~]{1,255})$'},
        }


def _words(name: str) -> str:
    """Makes "Get conversation" of "GetConversation"."""
    spaced = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)
    return spaced.strip().capitalize()


def _path_parameter(
    parameter: PathParameter, binding: Binding, components: Components, example: Any
) -> Json:
    described: Json = {"name": parameter.name, "in": "path", "required": True}
    schema: Json = {"type": "string"}
    if parameter.variable is not None:
        path = binding.path_fields[parameter.index]
        if parameter.whole:
            schema = components.field(path[-1])
            if (value := _value_at(example, path)) is not None:
                described["example"] = value
        described["description"] = schema.pop("description", "") or (
            f"`{parameter.variable.name}`"
            if parameter.whole
            else f"Part of `{parameter.variable.name}`."
        )
    if parameter.many:
        described["description"] = f"{described.get('description', '')} May hold slashes.".strip()
        described["x-weft-slashes"] = True
    return described | {"schema": schema}


def _query_paths(method: Method, binding: Binding) -> Iterator[Path]:
    """The fields that the query can set."""
    if binding.body == "*":
        return
    bound = {_numbers(path) for path in binding.path_fields}
    if binding.body_field is not None:
        bound.add((binding.body_field.number,))
    yield from _leaves(method.input, (), bound)


def _leaves(message: Descriptor, above: Path, bound: set[tuple[int, ...]]) -> Iterator[Path]:
    for field in message.fields:
        path = (*above, field)
        kind = field.message_type
        if _numbers(path) in bound or is_map(field):
            continue
        if kind is None or (has_text_form(kind) and not field.is_repeated):
            yield path
        elif is_plain_message(field) and len(path) < _DEEPEST_PARAMETER:
            yield from _leaves(kind, path, bound)


def _numbers(path: Path) -> tuple[int, ...]:
    return tuple(field.number for field in path)


def _query_parameter(path: Path, components: Components, example: Any) -> Json:
    schema = components.field(path[-1])
    described: Json = {"name": ".".join(field.json_name for field in path), "in": "query"}
    if "description" in schema:
        described["description"] = schema.pop("description")
    if is_required(path[-1]) and len(path) == 1:
        described["required"] = True
    described["schema"] = schema
    if (value := _value_at(example, path)) is not None:
        described["example"] = value
    return described


def _value_at(example: Any, path: Path) -> Any:
    for field in path:
        example = example.get(field.json_name) if isinstance(example, dict) else None
    return example


def _request_body(method: Method, binding: Binding, components: Components) -> Json:
    field = binding.body_field
    if binding.raw_request:
        return {"required": False, "content": {"*/*": {"schema": dict(_RAW)}}}
    if field is not None:
        examples = [each[field.json_name] for each in _examples(method) if field.json_name in each]
        return _body(components.field(field), examples, required=is_required(field))
    whole = {path[0] for path in binding.path_fields if len(path) == 1}
    required = any(is_required(field) for field in method.input.fields if field not in whole)
    if not binding.path_fields:
        return _body(components.of(method.input), _examples(method), required=required)
    names = {field.json_name for field in whole}
    examples = [
        {name: value for name, value in each.items() if name not in names}
        for each in _examples(method)
    ]
    schema = components.object(method.input, lambda each: each not in whole)
    return _body(schema, examples, required=required)


def _body(schema: Json, examples: list[Any], *, required: bool) -> Json:
    content: Json = {"schema": schema}
    if examples:
        content["examples"] = {
            f"example{number}": {"value": value} for number, value in enumerate(examples, 1)
        }
    # No body is as good as an empty message.
    return {"required": required, "content": {"application/json": content}}


def _examples(method: Method) -> list[Any]:
    """The examples of a contract that are valid, as the gateway writes JSON."""
    valid: list[Any] = []
    for text in method.skill.examples:
        try:
            wire = method.request_codec.to_wire(text.encode())
        except rpc.InvalidArgument:
            continue  # a problem of the catalog
        codec = method.schema.codec(method.input.full_name)
        valid.append(json.loads(codec.to_json(wire)))
    return valid


def _responses(method: Method, schema: Json, error: str) -> Json:
    kind, text = "application/json", "The reply."
    if method.server_streaming:
        kind, schema = "text/event-stream", _event(schema)
        text = (
            "A stream of events. Each message is the `data` of one event; `event: end` closes the "
            "stream, `event: error` carries what went wrong on the way. A REST route also streams a message "
            "a line, or one array, as `Accept` says."
        )
    return {
        "200": {"description": text, "content": {kind: {"schema": schema}}},
        "default": {"$ref": f"#/components/responses/{error}"},
    }


def _accepted(method: Method, components: Components) -> Json:
    """Where every call becomes a job, the job is what comes back."""
    if not method.skill.as_job:
        return {}
    content = {"application/json": {"schema": components.of(jobs_pb2.Job.DESCRIPTOR)}}
    return {"202": {"description": "The job that the call became.", "content": content}}


def _event(schema: Json) -> Json:
    """A server-sent event, as the OpenAPI Initiative describes one (OpenAPI 3.2, 4.14.4)."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
    kinds = ["message", "end", "error"]  # "message" where the event does not say
    return {
        "type": "object",
        "properties": {"data": data, "event": {"type": "string", "enum": kinds}},
        "required": ["data"],
    }
