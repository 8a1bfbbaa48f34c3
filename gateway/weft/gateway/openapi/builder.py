"""The OpenAPI 3.1 document of a set of methods (https://spec.openapis.org/oas/v3.1.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from weft.gateway.openapi import errors
from weft.gateway.openapi.operations import connect_operation, rest_operation
from weft.gateway.openapi.paths import PathBook
from weft.gateway.openapi.schemas import Components
from weft.gateway.transcoding.catalog import Method

_DESCRIPTION = (
    "Every skill of every agent of this mesh. Routes come from the contracts that agents register, so this "
    "document changes as agents come and go. The same calls can be made over gRPC."
)


def document(
    methods: Iterable[Method], *, title: str = "Weft", version: str = "1"
) -> dict[str, Any]:
    """Describes methods: their REST routes, and POST /package.Service/Method for each.

    Methods with streamed requests are left out: HTTP with JSON cannot carry them.
    """
    served = sorted(
        (method for method in methods if not method.client_streaming),
        key=lambda method: (method.agent.name, method.path),
    )
    components = Components()
    book = PathBook()
    paths: dict[str, dict[str, Any]] = {}
    for method in served:
        for number, binding in enumerate(method.bindings):
            route = book.route(binding.template)
            key = binding.http_method.lower()
            if key in _METHODS:  # "*" and methods of one's own have no place in OpenAPI
                operation = rest_operation(method, binding, route, number, components)
                paths.setdefault(route.path, {}).setdefault(key, operation)
    for method in served:
        paths.setdefault(method.path, {}).setdefault("post", connect_operation(method, components))
    _make_ids_unique(paths)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": _tags(served),
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": {**components.schemas, **errors.SCHEMAS},
            "responses": {**errors.RESPONSES},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, made by `weft keys create`, or a token (JWT) of the issuer "
                    "that this gateway trusts.",
                },
                "apiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "x-api-key",
                    "description": "The API key in a header of its own.",
                },
            },
        },
    }


_METHODS = frozenset(("get", "put", "post", "delete", "options", "head", "patch", "trace"))


def _make_ids_unique(paths: dict[str, dict[str, Any]]) -> None:
    """Services of two packages may have one name; the later ones are told apart by a number."""
    seen: dict[str, int] = {}
    for operations in paths.values():
        for operation in operations.values():
            name = operation["operationId"]
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                operation["operationId"] = f"{name}__{seen[name]}"


def _tags(methods: Iterable[Method]) -> list[dict[str, Any]]:
    tags: dict[str, dict[str, Any]] = {}
    for method in methods:
        tag = tags.setdefault(method.agent.name, {"name": method.agent.name})
        if method.agent.description:
            tag["description"] = method.agent.description
        if method.agent.tier:
            tag["x-weft-tier"] = method.agent.tier
    return list(tags.values())
