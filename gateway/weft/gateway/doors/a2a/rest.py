"""The HTTP+JSON binding of A2A (specification, 11): the operation stands in method and path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

import orjson

from weft import rpc
from weft.gateway.doors.a2a import errors, protocol
from weft.gateway.doors.a2a.protocol import (
    MEDIA_TYPE,
    ContentTypeNotSupported,
    Json,
    Malformed,
    OperationUnknown,
)
from weft.gateway.doors.a2a.sending import Events, send
from weft.gateway.http.exchange import JSON, Exchange
from weft.gateway.transcoding import percent
from weft.gateway.transcoding.router import MethodNotAllowed

_STREAMS = frozenset({"SendStreamingMessage", "SubscribeToTask"})
_CONFIGS = "pushNotificationConfigs"
# By the form of the path, whose ids are *; then by HTTP method.
_ROUTES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "message:send": {"POST": "SendMessage"},
        "message:stream": {"POST": "SendStreamingMessage"},
        "tasks": {"GET": "ListTasks"},
        "tasks/*": {"GET": "GetTask"},
        "tasks/*:cancel": {"POST": "CancelTask"},
        # The text says POST, the proto GET.
        "tasks/*:subscribe": {"POST": "SubscribeToTask", "GET": "SubscribeToTask"},
        f"tasks/*/{_CONFIGS}": {
            "POST": "CreateTaskPushNotificationConfig",
            "GET": "ListTaskPushNotificationConfigs",
        },
        f"tasks/*/{_CONFIGS}/*": {
            "GET": "GetTaskPushNotificationConfig",
            "DELETE": "DeleteTaskPushNotificationConfig",
        },
        "extendedAgentCard": {"GET": "GetExtendedAgentCard"},
    }
)
_ROOTS = frozenset({"message:send", "message:stream", "tasks", "extendedAgentCard"})
_MOST_SEGMENTS = 4

_READ: Mapping[str, Callable[[str], Any]] = MappingProxyType(
    {
        "pageSize": int,
        "historyLength": int,
        "includeArtifacts": lambda text: {"true": True, "false": False}[text],
    }
)


class Rest:
    """One request by this binding.

    Args:
        exchange: the request.
        path: what follows the URL of the interface, without its slash; a tenant may stand first.

    Attributes:
        operation: what is asked for.
    """

    def __init__(self, exchange: Exchange, path: str) -> None:
        self._exchange = exchange
        self._path = path
        self.operation = ""

    def read(self, body: bytes) -> Json:
        """Reads the request; returns the operation's parameters.

        Raises:
            OperationUnknown, MethodNotAllowed: nothing is there, or not by this HTTP method.
            Malformed, rpc.InvalidArgument, ContentTypeNotSupported: see there.
        """
        params = self._route()
        if self._exchange.method in {"GET", "DELETE"}:
            return _query(self._exchange.query) | params
        media = self._exchange.header(b"content-type").partition(b";")[0].strip().lower()
        if body and media not in {b"", JSON, MEDIA_TYPE}:
            raise ContentTypeNotSupported("The body of a request is application/a2a+json.")
        return self._body(body) | params

    def _route(self) -> Json:
        segments = self._path.split("/")
        tenant = ""
        if segments[0] not in _ROOTS and len(segments) > 1:
            tenant = segments.pop(0)
        ids: list[str] = []
        form = segments[:1]
        for number, segment in enumerate(segments[1:], 1):
            name, colon, verb = segment.partition(":")
            if number % 2:
                ids.append(_decoded(name))
                form.append(f"*{colon}{verb}")
            else:
                form.append(segment)
        allowed = _ROUTES.get("/".join(form)) if len(segments) <= _MOST_SEGMENTS else None
        if allowed is None or not all(ids):
            raise OperationUnknown
        method = self._exchange.method
        if method not in allowed:
            raise MethodNotAllowed(method, self._exchange.path, {*allowed, "OPTIONS"})
        self.operation = allowed[method]
        params: Json = {"tenant": _decoded(tenant)} if tenant else {}
        names = ("taskId", "id") if _CONFIGS in form else ("id", "")
        return params | dict(zip(names, ids, strict=False))

    def _body(self, body: bytes) -> Json:
        if not body:
            return {}
        try:
            params: Any = orjson.loads(body)
        except orjson.JSONDecodeError as failed:
            raise Malformed(f"The body is not JSON: {failed}", protocol.PARSE_ERROR) from None
        if not isinstance(params, dict):
            raise Malformed("The body must be an object.")
        return params

    async def answer(self, result: bytes) -> None:
        """Answers with a result."""
        await self._exchange.reply(200, result, MEDIA_TYPE)

    async def stream(self, events: Events) -> rpc.Error | None:
        """Answers with events."""
        return await send(self._exchange, events, lambda event: event, errors.rest)

    async def fail(self, error: rpc.Error) -> None:
        """Answers with an error."""
        if self._exchange.method == "OPTIONS" and isinstance(error, MethodNotAllowed):
            await self._exchange.allow(error.allow)
        else:
            await self._exchange.fail(error, errors.rest)


def _query(query: str) -> Json:
    found: Json = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        try:
            found[name] = _READ[name](text) if name in _READ else text
        except (ValueError, KeyError):
            raise rpc.InvalidArgument("is malformed", field=name) from None
    return found


def _decoded(segment: str) -> str:
    try:
        return percent.decode(segment)
    except ValueError:
        raise OperationUnknown from None
