"""JSON-RPC messages that callers send, and what each must say of itself."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from weft.gateway.doors.mcp import protocol
from weft.gateway.doors.mcp.protocol import Json, ProtocolError
from weft.gateway.http.exchange import Exchange

VERSION = b"mcp-protocol-version"
"""Header that names the revision."""


class Message(NamedTuple):
    """A JSON-RPC request or notification."""

    id: bytes
    """As JSON; empty: a notification."""
    method: str
    params: Json
    meta: Json


def parse(body: bytes) -> Message | None:
    """The message of a body; None: it is an answer.

    Raises:
        ProtocolError: it is no message, or several.
    """
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as failed:
        raise ProtocolError(protocol.PARSE_ERROR, f"The body is no JSON: {failed}") from None
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise ProtocolError(protocol.INVALID_REQUEST, "The body must be one JSON-RPC 2.0 message")
    request_id = message.get("id")
    if "id" in message and (not isinstance(request_id, str | int) or isinstance(request_id, bool)):
        raise ProtocolError(protocol.INVALID_REQUEST, "id must be a string or an integer")
    shown = orjson.dumps(request_id) if "id" in message else b""
    method = message.get("method")
    if not isinstance(method, str):
        if "result" in message or "error" in message:
            return None
        raise ProtocolError(protocol.INVALID_REQUEST, "method must be a string", request_id=shown)
    params = message.get("params")
    if params is None:
        params = {}
    meta = params.get("_meta", {}) if isinstance(params, dict) else None
    if not isinstance(meta, dict):
        raise ProtocolError(
            protocol.INVALID_REQUEST, "params and _meta must be objects", request_id=shown
        )
    return Message(shown, method, params, meta)


def check_version(exchange: Exchange, message: Message) -> None:
    """Whether a request says what every request must say of itself.

    Raises:
        ProtocolError: it does not, or speaks another revision.
    """
    declared = message.meta.get(protocol.META_VERSION)
    if not isinstance(declared, str):
        raise protocol.invalid(f"_meta must have {protocol.META_VERSION}")
    header = exchange.header(VERSION).strip().decode("latin-1")
    if header != declared:
        raise ProtocolError(
            protocol.HEADER_MISMATCH,
            f"Header mismatch: MCP-Protocol-Version is {header!r}, the body says {declared!r}",
        )
    if declared != protocol.MODERN:
        raise unsupported(declared)
    if message.id and not isinstance(message.meta.get(protocol.META_CAPABILITIES), dict):
        raise protocol.invalid(f"_meta must have {protocol.META_CAPABILITIES}")
    level = message.meta.get(protocol.META_LOG_LEVEL)
    if level is not None and level not in protocol.LOG_LEVELS:
        raise protocol.invalid(f"{protocol.META_LOG_LEVEL} is no log level")


def unsupported(version: str) -> ProtocolError:
    """A revision that the door does not speak."""
    return ProtocolError(
        protocol.UNSUPPORTED_VERSION,
        "Unsupported protocol version",
        data={"supported": protocol.SUPPORTED, "requested": version},
    )


def unknown_method(method: str) -> ProtocolError:
    """A method that the revision does not have, or the door not offer."""
    return ProtocolError(protocol.METHOD_NOT_FOUND, f"Method not found: {method}")
