"""Errors as the bindings of A2A show them (specification, 5.4, 9.5 and 11.6)."""

from __future__ import annotations

from typing import Any

import orjson
from google.rpc.error_details_pb2 import ErrorInfo

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors.a2a import protocol
from weft.gateway.doors.a2a.protocol import A2aError, Json

# What HTTP itself has an answer for is told by its status, at JSON-RPC too; all other errors of JSON-RPC are 200.
_OF_HTTP = (rpc.Unauthenticated, rpc.PermissionDenied, rpc.ResourceExhausted, rpc.Unavailable)


def number(error: rpc.Error) -> int:
    """The JSON-RPC error code."""
    own = getattr(error, "number", None)
    if own is not None:
        return int(own)
    if isinstance(error, rpc.InvalidArgument | rpc.NotFound | rpc.OutOfRange):
        return protocol.INVALID_PARAMS
    return protocol.INTERNAL_ERROR


def details(error: rpc.Error) -> list[Json]:
    """google.rpc.ErrorInfo first, then what else is told."""
    status: Json = orjson.loads(failures.aip193(error))["error"]
    found: list[Json] = status["details"]
    if isinstance(error, A2aError):
        for each in found:
            if each.get("reason") == error.reason:
                each["domain"] = error.domain
    return found


def status(error: rpc.Error) -> bytes:
    """A google.rpc.Status, serialized, for gRPC."""
    made = rpc.status_proto(error)
    made.message = words(error)
    if isinstance(error, A2aError):
        info = ErrorInfo()
        made.details[0].Unpack(info)
        info.domain = error.domain
        made.details[0].Pack(info)
    serialized: bytes = made.SerializeToString()
    return serialized


def words(error: rpc.Error) -> str:
    """The message, with the fields that are wrong: not every caller reads the details."""
    if isinstance(error, rpc.InvalidArgument) and error.violations:
        return "; ".join(f"{field}: {text}" for field, text in error.violations)
    return error.message


def rest(error: rpc.Error) -> bytes:
    """The body of an answer of the HTTP binding."""
    shown: Json = orjson.loads(failures.aip193(error))
    shown["error"]["details"] = details(error)
    shown["error"]["message"] = words(error)
    return orjson.dumps(shown)


def json_rpc(error: rpc.Error, request_id: bytes) -> bytes:
    """The JSON-RPC message; empty id: the request's could not be read."""
    told: dict[str, Any] = {
        "code": number(error),
        "message": words(error),
        "data": details(error),
    }
    head = b'{"jsonrpc":"2.0","id":' + (request_id or b"null")
    return head + b',"error":' + orjson.dumps(told) + b"}"


def json_rpc_status(error: rpc.Error) -> int:
    """HTTP status that goes with it."""
    own = getattr(error, "http_status", 0)
    if isinstance(error, _OF_HTTP) or own in {405, 413, 431}:
        return failures.http_status(error)
    return 200


def as_metadata(error: rpc.Error) -> Json:
    """An error as the metadata of a message that tells it."""
    return {protocol.EXTENSION: orjson.loads(failures.aip193(error))}
