"""The query of a GET of the Connect protocol (connectrpc.com/docs/protocol#unary-get-request)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from weft import rpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What the query says; parameters of other names are none of its business."""

    message: bytes
    encoding: bytes
    compression: bytes
    version: bytes


def read_query(query: str) -> Query:
    """Reads a query as it stands in the request target.

    Raises:
        rpc.InvalidArgument: a parameter is missing, there twice, or malformed.
    """
    given: dict[str, bytes] = {}
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name not in {"message", "encoding", "base64", "compression", "connect"}:
            continue
        if name in given:
            raise rpc.InvalidArgument("is there twice", field=name)
        given[name] = unquote_to_bytes(value.replace("+", " "))
    for name in ("encoding", "message"):
        if name not in given:
            raise rpc.InvalidArgument(f"the query lacks the parameter {name}", field=name)
    message = given["message"]
    return Query(
        message=_from_base64(message) if given.get("base64") == b"1" else message,
        encoding=given["encoding"],
        compression=given.get("compression", b""),
        version=given.get("connect", b""),
    )


def _from_base64(text: bytes) -> bytes:
    """URL-safe base64, padded or not."""
    text = text.rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise rpc.InvalidArgument("is not base64 of the URL-safe kind", field="message") from None
