"""Headers that repeat what the body says, for proxies that do not read bodies (revision 2026-07-28).

A proxy may have let the request pass because of them, so one that differs from the body is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weft.gateway.doors.mcp import protocol
from weft.gateway.doors.mcp.protocol import ProtocolError
from weft.gateway.http.exchange import Exchange

_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_ENCODED = re.compile(rb"=\?base64\?(.*)\?=", re.DOTALL)
_VISIBLE = re.compile(rb"[\x20-\x7e\t]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """An argument of a tool that its callers repeat in a header."""

    header: bytes
    """Name, lower case."""
    names: tuple[str, ...]
    """Of the argument: in JSON and in the .proto."""
    integer: bool


def check_standard(exchange: Exchange, method: str, params: Mapping[str, Any]) -> None:
    """Compares Mcp-Method and Mcp-Name with the body.

    Raises:
        ProtocolError: HeaderMismatch.
    """
    given = exchange.header(b"mcp-method").strip()
    if given != method.encode():
        raise _mismatch("Mcp-Method", given, method)
    key = _NAMED.get(method)
    if key is None:
        return
    name = params.get(key)
    given = exchange.header(b"mcp-name").strip()
    if isinstance(name, str) and given != name.encode() and _decode("Mcp-Name", given) != name:
        raise _mismatch("Mcp-Name", given, name)


def check_arguments(
    exchange: Exchange, mirrored: Sequence[Mirrored], arguments: Mapping[str, Any]
) -> None:
    """Compares Mcp-Param-* with the arguments of a tool call.

    Raises:
        ProtocolError: HeaderMismatch.
    """
    for each in mirrored:
        value = next((arguments[name] for name in each.names if name in arguments), None)
        shown = each.header.decode()
        present = any(name == each.header for name, _ in exchange.headers)
        if value is None:
            if present:
                raise _mismatch(shown, exchange.header(each.header), "nothing")
            continue
        if not present:
            raise _mismatch(shown, b"", value)
        given = _decode(shown, exchange.header(each.header).strip())
        if not _same(given, value, integer=each.integer):
            raise _mismatch(shown, exchange.header(each.header), value)


def _same(given: str, value: Any, *, integer: bool) -> bool:
    if isinstance(value, bool):
        return given == ("true" if value else "false")
    if integer:
        try:
            return float(given) == float(value)
        except (TypeError, ValueError):
            return False
    return bool(given == value)


def _decode(name: str, given: bytes) -> str:
    encoded = _ENCODED.fullmatch(given)
    try:
        if encoded is not None:
            return base64.b64decode(encoded[1], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise _mismatch(name, given, "valid base64") from None
    if not _VISIBLE.fullmatch(given):
        raise _mismatch(name, given, "visible ASCII")
    return given.decode("ascii")


def _mismatch(name: str, given: bytes, wanted: object) -> ProtocolError:
    shown = given.decode("latin-1")
    text = f"Header mismatch: {name} is {shown!r}" if given else f"Header mismatch: no {name}"
    return ProtocolError(protocol.HEADER_MISMATCH, f"{text}, the body says {wanted!r}")
