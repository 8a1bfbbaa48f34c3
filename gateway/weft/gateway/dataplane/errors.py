"""How a call fails, and what the errors of HTTP/2 and of HTTP are in gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import grpc

from weft.rpc.call import Metadata

C = grpc.StatusCode

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 6, 7, 8, 9
ENHANCE_YOUR_CALM = 11

# Of RST_STREAM (PROTOCOL-HTTP2.md, "HTTP2 Transport Mapping"); all others are INTERNAL.
BY_RESET: Mapping[int, grpc.StatusCode] = MappingProxyType(
    {
        REFUSED_STREAM: C.UNAVAILABLE,
        CANCEL: C.CANCELLED,
        ENHANCE_YOUR_CALM: C.RESOURCE_EXHAUSTED,
        12: C.PERMISSION_DENIED,  # INADEQUATE_SECURITY
    }
)
# Of answers that are not gRPC's (http-grpc-status-mapping.md); all others are UNKNOWN.
BY_HTTP_STATUS: Mapping[int, grpc.StatusCode] = MappingProxyType(
    {
        400: C.INTERNAL,
        401: C.UNAUTHENTICATED,
        403: C.PERMISSION_DENIED,
        404: C.UNIMPLEMENTED,
        429: C.UNAVAILABLE,
        502: C.UNAVAILABLE,
        503: C.UNAVAILABLE,
        504: C.UNAVAILABLE,
    }
)


class CallFailed(grpc.aio.AioRpcError):
    """A call of an agent failed; to whoever reads errors of grpc.aio it is one.

    Attributes:
        leading: metadata that came before the messages.
        trailing: metadata that came at the end.
        unseen: whether it is sure that no agent worked on it.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str,
        *,
        leading: Metadata = (),
        trailing: Metadata = (),
        unseen: bool = False,
    ) -> None:
        super().__init__(
            code, grpc.aio.Metadata(*leading), grpc.aio.Metadata(*trailing), details=details
        )
        self.leading = leading
        self.trailing = trailing
        self.unseen = unseen


class ProtocolError(Exception):
    """The peer broke a rule of HTTP/2: the connection is of no more use.

    Attributes:
        code: of RFC 9113, section 7.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamError(Exception):
    """The peer broke a rule of gRPC within one call.

    Attributes:
        code: what the call fails with.
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
