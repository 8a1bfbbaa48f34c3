"""The wire of MCP: versions, error codes, and the JSON-RPC messages that answer a request.

https://modelcontextprotocol.io/specification/2026-07-28 and /2025-11-25. Answers are put together from
bytes: what an agent said is JSON already, and is never parsed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any

import orjson

from weft import rpc

MODERN = "2026-07-28"
"""Every request says all about itself; no session."""
LEGACY = ("2025-11-25", "2025-06-18")
"""A session begun by `initialize`."""
SUPPORTED = (MODERN, *LEGACY)

META = "io.modelcontextprotocol/"
META_VERSION = META + "protocolVersion"
META_CAPABILITIES = META + "clientCapabilities"
META_LOG_LEVEL = META + "logLevel"
META_SUBSCRIPTION = META + "subscriptionId"
OWN_META = "dev.weft/"

LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022
LEGACY_RESOURCE_NOT_FOUND = -32002

_HTTP_STATUS = {INTERNAL_ERROR: 500, METHOD_NOT_FOUND: 404}

SERVER_INFO = {"name": "weft", "title": "Weft agent mesh", "version": metadata.version("weft")}
INSTRUCTIONS = (
    "Each tool is a skill of an agent; weft://agents/NAME describes the agent. Errors of an agent name the "
    "fields that are wrong: mend them and call again."
)
_MODERN_META = b'"' + META.encode() + b'serverInfo":' + orjson.dumps(SERVER_INFO)

Json = dict[str, Any]


class ProtocolError(Exception):
    """A request that is answered with a JSON-RPC error.

    Args:
        code: JSON-RPC error code.
        data: what else the caller is told.
        status: HTTP status; by default the one that goes with the code.
        allow: methods to name in the header Allow.
        request_id: of the request, as JSON, where only who refuses it knows it.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        data: Any = None,
        status: int | None = None,
        allow: str = "",
        request_id: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.status = status or _HTTP_STATUS.get(code, 400)
        self.allow = allow
        self.request_id = request_id

    def render(self, request_id: bytes) -> bytes:
        """The JSON-RPC message; empty id: the request's could not be read."""
        error: Json = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        shown = request_id or self.request_id
        head = b'{"jsonrpc":"2.0",' + (b'"id":' + shown + b"," if shown else b"")
        return head + b'"error":' + orjson.dumps(error) + b"}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a request."""

    body: bytes = b"{}"
    """Its members, as a JSON object."""
    meta: bytes = b""
    """Members of its `_meta`."""
    fresh: bytes = b""
    """Caching hints, as members; for versions that have them."""
    error: rpc.Error | None = None
    """What failed at the agent, if something did."""


def result(request_id: bytes, outcome: Outcome, *, modern: bool) -> bytes:
    """The JSON-RPC message of a result."""
    head = b'{"jsonrpc":"2.0","id":' + request_id + b',"result":' + outcome.body[:-1]
    comma = b"," if len(outcome.body) > 2 else b""  # noqa: PLR2004 the braces of an empty object
    if modern:
        fresh = outcome.fresh + b"," if outcome.fresh else b""
        meta = outcome.meta + b"," + _MODERN_META if outcome.meta else _MODERN_META
        return head + comma + fresh + b'"resultType":"complete","_meta":{' + meta + b"}}}"
    if outcome.meta:
        return head + comma + b'"_meta":{' + outcome.meta + b"}}}"
    return head + b"}}"


def notification(method: str, params: Json | None = None) -> bytes:
    """A JSON-RPC notification."""
    message: Json = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return orjson.dumps(message)


def invalid(message: str) -> ProtocolError:
    """A request whose parameters are not what its method takes."""
    return ProtocolError(INVALID_PARAMS, message)


def failure(error: rpc.Error) -> bytes:
    """What HTTP itself refuses, such as a caller without a key, as a JSON-RPC message."""
    data = {"status": error.code.name, "reason": error.reason}
    return ProtocolError(INVALID_REQUEST, error.message, data=data).render(b"")
