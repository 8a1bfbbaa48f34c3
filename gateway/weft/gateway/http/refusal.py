"""Answers given before there is a request to give to a door: what came is too much, too slow or not HTTP."""

from __future__ import annotations

import http
import math
from typing import ClassVar

import orjson

from weft import rpc


class MalformedHttp(rpc.InvalidArgument):
    """This is not a valid HTTP/1.1 request."""

    reason = "MALFORMED_HTTP"


class RequestTooSlow(rpc.DeadlineExceeded):
    """The request did not arrive in time."""

    reason = "REQUEST_TOO_SLOW"
    http_status: ClassVar[int] = 408  # 504 would blame the agent


class TooManyConnections(rpc.Unavailable):
    """There are too many connections to this server; try again."""

    reason = "TOO_MANY_CONNECTIONS"


def response(error: rpc.Error) -> bytes:
    """The whole HTTP response for an error, AIP-193 in JSON, after which the connection ends."""
    status = getattr(error, "http_status", None) or rpc.HTTP_STATUS[error.code]
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": error.reason,
        "domain": "weft.dev",
    }
    described = {
        "code": status,
        "message": error.message,
        "status": error.code.name,
        "details": [info],
    }
    body = orjson.dumps({"error": described})
    retry_after = getattr(error, "retry_after", None)
    lines = [
        f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}",
        "content-type: application/json",
        "x-content-type-options: nosniff",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    if retry_after is not None:
        lines.append(f"retry-after: {math.ceil(retry_after.total_seconds())}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body
