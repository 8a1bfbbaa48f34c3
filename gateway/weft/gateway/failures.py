"""Errors as each door shows them, and what an agent's failure is to a caller outside."""

from __future__ import annotations

import base64
import math
import re
from datetime import timedelta
from typing import Any

import orjson
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from weft import rpc
from weft.gateway.dataplane.errors import CallFailed

Headers = list[tuple[bytes, bytes]]

# Reasons of weft.rpc.signing.
_DISTRUST = frozenset({"IDENTITY_NOT_TRUSTED", "IDENTITY_EXPIRED"})
_SCOPES = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")  # RFC 6749, 3.3

_TYPE_PREFIX = "type.googleapis.com/"


class AgentUnknown(rpc.NotFound):
    """No agent of the mesh serves this. `weft agents` lists those that are there."""

    reason = "AGENT_UNKNOWN"


class AgentUnavailable(rpc.Unavailable):
    """No instance of the agent can be reached now; try again.

    Attributes:
        unsent: whether it is sure that no agent saw the call.
    """

    reason = "AGENT_UNAVAILABLE"
    unsent = False


class AgentPaused(AgentUnavailable):
    """An operator has paused the agent; try again later."""

    reason = "AGENT_PAUSED"
    unsent = True


class GatewayNotTrusted(rpc.Internal):
    """The agent does not believe whom this gateway says that calls: its identity_trust lacks this gateway's key."""

    reason = "GATEWAY_NOT_TRUSTED"


class NotServedHere(rpc.Unimplemented):
    """This door cannot carry a method of this kind."""

    reason = "STREAMING_NOT_SERVED"


def from_agent(failed: CallFailed, agent: str) -> rpc.Error:
    """What a caller is told of a failed call to an agent.

    What the gateway's own end says of the way to the agent is nothing to a caller outside.
    """
    error = rpc.error_from_call(failed)
    if error.reason in _DISTRUST:  # no fault of the caller, who proved who it is
        return GatewayNotTrusted(metadata={"agent": agent})
    if error.reason != type(error).reason or error.metadata or error.details:
        return error
    if isinstance(error, rpc.Unavailable):
        unavailable = AgentUnavailable(
            f"No instance of {agent} can be reached now; try again.",
            metadata={"agent": agent},
            retry_after=timedelta(seconds=1),
        )
        unavailable.unsent = failed.unseen
        return unavailable
    if isinstance(error, rpc.DeadlineExceeded):
        return rpc.DeadlineExceeded(f"{agent} did not answer in time.", metadata={"agent": agent})
    return error


def http_status(error: rpc.Error) -> int:
    """HTTP status of an error; some errors of HTTP itself have one of their own."""
    own = getattr(error, "http_status", None)
    if own is not None:
        return int(own)
    if getattr(error, "allow", None):
        return 405
    return rpc.HTTP_STATUS[error.code]


def http_headers(error: rpc.Error) -> Headers:
    """Headers an error brings along: Retry-After, Allow, Upgrade, WWW-Authenticate, Connection."""
    headers: Headers = []
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        seconds = max(1, math.ceil(retry_after.total_seconds()))
        headers.append((b"retry-after", str(seconds).encode()))
    if allow := getattr(error, "allow", None):
        headers.append((b"allow", ", ".join(allow).encode()))
    if upgrade := getattr(error, "upgrade", None):
        headers += [(b"upgrade", upgrade), (b"connection", b"upgrade")]
    if challenge := _challenge(error):
        headers.append((b"www-authenticate", challenge.encode()))
    if http_status(error) == 413:  # noqa: PLR2004 the rest of the body is not read
        headers.append((b"connection", b"close"))
    return headers


def _challenge(error: rpc.Error) -> str:
    """How a caller may come in (RFC 6750, 3): nothing more where it showed no credential."""
    bearer = 'Bearer realm="weft"'
    if isinstance(error, rpc.PermissionDenied):
        missing = error.metadata.get("missing_scopes", "")
        if error.reason != "SCOPE_MISSING" or _SCOPES.fullmatch(missing) is None:
            return ""
        return f'{bearer}, error="insufficient_scope", scope="{missing}"'
    if not isinstance(error, rpc.Unauthenticated):
        return ""
    if error.reason.endswith("_MISSING") and not error.reason.startswith("TOKEN_CLAIM"):
        return bearer
    described = error.reason if _SCOPES.fullmatch(error.reason) else "UNAUTHENTICATED"
    return f'{bearer}, error="invalid_token", error_description="{described}"'


def aip193(error: rpc.Error) -> bytes:
    """An error as a REST door shows it (AIP-193)."""
    status = rpc.status_proto(error)
    return orjson.dumps(
        {
            "error": {
                "code": http_status(error),
                "message": error.message,
                "status": error.code.name,
                "details": _details(status),
            }
        }
    )


def connect(error: rpc.Error) -> bytes:
    """An error as the Connect protocol shows it (connectrpc.com/docs/protocol#error-end-stream)."""
    return orjson.dumps(connect_object(error))


def connect_object(error: rpc.Error) -> dict[str, Any]:
    """The same, as a part of something larger."""
    status = rpc.status_proto(error)
    shown: dict[str, Any] = {"code": rpc.CONNECT_CODE[error.code], "message": error.message}
    shown["details"] = [
        {
            "type": packed.type_url.removeprefix(_TYPE_PREFIX),
            "value": base64.b64encode(packed.value).decode().rstrip("="),
            "debug": debug,
        }
        for packed, debug in zip(status.details, _details(status), strict=True)
    ]
    return shown


def _details(status: status_pb2.Status) -> list[dict[str, Any]]:
    assert error_details_pb2  # its types must be in the pool for Any to be shown as JSON
    return [json_format.MessageToDict(packed) for packed in status.details]
