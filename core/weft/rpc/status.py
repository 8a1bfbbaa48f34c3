"""Canonical status codes and what they are called at each door: the one table.

HTTP: google.rpc.code.proto. Connect: connectrpc.com/docs/protocol#error-codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import grpc

C = grpc.StatusCode

HTTP_STATUS: Mapping[grpc.StatusCode, int] = MappingProxyType(
    {
        C.OK: 200,
        C.CANCELLED: 499,
        C.UNKNOWN: 500,
        C.INVALID_ARGUMENT: 400,
        C.DEADLINE_EXCEEDED: 504,
        C.NOT_FOUND: 404,
        C.ALREADY_EXISTS: 409,
        C.PERMISSION_DENIED: 403,
        C.RESOURCE_EXHAUSTED: 429,
        C.FAILED_PRECONDITION: 400,
        C.ABORTED: 409,
        C.OUT_OF_RANGE: 400,
        C.UNIMPLEMENTED: 501,
        C.INTERNAL: 500,
        C.UNAVAILABLE: 503,
        C.DATA_LOSS: 500,
        C.UNAUTHENTICATED: 401,
    }
)

CONNECT_CODE: Mapping[grpc.StatusCode, str] = MappingProxyType(
    {
        code: "canceled" if code is C.CANCELLED else code.name.lower()
        for code in C
        if code is not C.OK
    }
)

# The instance's fault, as opposed to its caller's.
SERVER_FAULTS: frozenset[grpc.StatusCode] = frozenset(
    {C.UNKNOWN, C.INTERNAL, C.UNAVAILABLE, C.DATA_LOSS, C.DEADLINE_EXCEEDED}
)

# Of these, what no other process can be blamed for: a bug, or an error nobody thought of.
OWN_FAULTS: frozenset[grpc.StatusCode] = frozenset({C.UNKNOWN, C.INTERNAL, C.DATA_LOSS})

BY_NUMBER: Mapping[int, grpc.StatusCode] = MappingProxyType({code.value[0]: code for code in C})
