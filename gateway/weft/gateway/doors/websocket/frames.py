"""What stands in the frames of a WebSocket: messages of the call, and what is said beside them.

A text frame holds a message as JSON, a binary frame one in wire form; a call uses one of the two. Beside messages
there are, always as text, `{"@start": {...}}` (first, at will) and `{"@end": {}}` from the caller, and
`{"@error": {...}}` to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

import orjson

from weft import rpc
from weft.gateway import failures
from weft.gateway.http.exchange import Headers

_CONTROL = re.compile(r'\s*\{\s*"@(?:start|end)"\s*:')
_NAME = re.compile(r"[0-9a-z!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x20-\x7e\x80-\xff]*")
# What a browser says of a page is not the page's to say.
_BROWSER = ("sec-", "proxy-", "connection", "cookie", "host", "origin", "upgrade")
_MOST_HEADERS = 64


class FrameMalformed(rpc.InvalidArgument):
    """A frame of the WebSocket is not what is expected there."""

    reason = "FRAME_MALFORMED"


class Encoding(Enum):
    """How messages are written."""

    JSON = "json"
    PROTO = "proto"


SUBPROTOCOLS: Mapping[str, Encoding] = MappingProxyType(
    {"weft.v1.json": Encoding.JSON, "weft.v1.proto": Encoding.PROTO}
)
BEARER = "weft.bearer."


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The caller's first words.

    Attributes:
        headers: what a browser cannot set: credentials, deadline, metadata.
        encoding: how messages are written; None: the first message shows it.
    """

    headers: Headers = field(default_factory=list, repr=False)
    encoding: Encoding | None = None


class End:
    """No further message comes from the caller."""


def control(text: str) -> Start | End | None:
    """What a text frame says beside messages; None: it is a message.

    Raises:
        FrameMalformed: it says nothing that is known.
    """
    if not _CONTROL.match(text):
        return None
    try:
        said = orjson.loads(text)
    except ValueError:
        raise FrameMalformed("A frame that begins as @start or @end is not JSON.") from None
    if said == {"@end": {}}:
        return End()
    if set(said) != {"@start"} or not isinstance(said["@start"], dict):
        raise FrameMalformed('Say {"@start": {...}} or {"@end": {}}, and nothing beside it.')
    return _start(said["@start"])


def error(failed: rpc.Error) -> str:
    """The text frame that tells an error, with the object of AIP-193."""
    return '{"@error"' + failures.aip193(failed).decode().removeprefix('{"error"')


def _start(said: dict[str, Any]) -> Start:
    if unknown := set(said) - {"headers", "encoding"}:
        raise FrameMalformed(f"@start has no {min(unknown)!r}: it has headers and encoding.")
    encoding = said.get("encoding")
    if encoding not in {None, "json", "proto"}:
        raise FrameMalformed('The encoding of @start is "json" or "proto".')
    headers = said.get("headers", {})
    if not isinstance(headers, dict) or len(headers) > _MOST_HEADERS:
        raise FrameMalformed(f"The headers of @start are an object of at most {_MOST_HEADERS}.")
    return Start(
        headers=[_header(name.lower(), value) for name, value in headers.items()],
        encoding=None if encoding is None else Encoding(encoding),
    )


def _header(name: str, value: Any) -> tuple[bytes, bytes]:
    fits = isinstance(value, str) and _VALUE.fullmatch(value) and _NAME.fullmatch(name)
    if not fits or name.startswith(_BROWSER):
        raise FrameMalformed(f"@start cannot set the header {name!r} so.")
    return name.encode(), value.encode("latin-1")
