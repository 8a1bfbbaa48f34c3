"""Envoy's own answers, in the form of the gateway's errors (AIP-193)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from google.protobuf import struct_pb2

from weft.rpc.errors import DOMAIN
from weft.xds.v1 import edge_pb2 as pb
from weft.xds.v1 import resources_pb2

_JSON = "application/json"
# As in all answers of the gateway.
ALWAYS: Mapping[str, str] = MappingProxyType(
    {
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
    }
)
# Status of HTTP: name of the code, reason.
_REASONS: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        400: ("INVALID_ARGUMENT", "MALFORMED_REQUEST"),
        401: ("UNAUTHENTICATED", "TOKEN_INVALID"),
        403: ("PERMISSION_DENIED", "GATEWAY_NEEDED"),
        404: ("NOT_FOUND", "ROUTE_NOT_FOUND"),
        408: ("DEADLINE_EXCEEDED", "REQUEST_TOO_SLOW"),
        413: ("RESOURCE_EXHAUSTED", "PAYLOAD_TOO_LARGE"),
        415: ("INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE"),
        429: ("RESOURCE_EXHAUSTED", "RATE_LIMITED"),
        431: ("RESOURCE_EXHAUSTED", "HEADERS_TOO_LARGE"),
        503: ("UNAVAILABLE", "AGENT_UNAVAILABLE"),
        504: ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
    }
)


def replies() -> pb.LocalReplies:
    """What Envoy's own answers become. gRPC has a form of its own, which they keep."""
    return pb.LocalReplies(mappers=[_reply(status) for status in _REASONS])


def _reply(status: int) -> pb.LocalReply:
    name, reason = _REASONS[status]
    told: dict[str, Any] = {
        "error": {
            "code": "%RESPONSE_CODE%",
            "message": "%LOCAL_REPLY_BODY%",
            "status": name,
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": reason,
                    "domain": DOMAIN,
                }
            ],
        }
    }
    form = pb.Format(content_type=_JSON)
    form.json_format.CopyFrom(as_struct(told))
    fits = pb.AccessLogFilter()
    equal = fits.and_filter.filters.add().status_code_filter.comparison.value
    equal.default_value, equal.runtime_key = status, "weft.never"
    no_grpc = fits.and_filter.filters.add().or_filter.filters
    no_grpc.add().header_filter.header.CopyFrom(
        resources_pb2.HeaderMatcher(
            name="content-type",
            string_match=resources_pb2.StringMatcher(prefix="application/grpc"),
            invert_match=True,
            treat_missing_header_as_empty=True,
        )
    )
    # What the transcoder has made gRPC of was none.
    no_grpc.add().header_filter.header.CopyFrom(
        resources_pb2.HeaderMatcher(name="x-envoy-original-path", present_match=True)
    )
    made = pb.LocalReply(filter=fits, body_format_override=form)
    for key, value in ALWAYS.items():
        made.headers_to_add.add(
            header=pb.HeaderValue(key=key, value=value), append_action=pb.APPEND_ACTION_OVERWRITE
        )
    return made


def as_struct(value: Mapping[str, Any]) -> struct_pb2.Struct:
    """A JSON object."""
    made = struct_pb2.Struct()
    made.update(value)
    return made
