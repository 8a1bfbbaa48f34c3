"""gRPC-Web (github.com/grpc/grpc, doc/PROTOCOL-WEB.md): unary and server-streaming, binary and text.

In the text form the body is base64, padded wherever a part of it was written.
"""

from __future__ import annotations

import base64
import string
from urllib.parse import quote

from weft import rpc
from weft.gateway.doors import compression
from weft.gateway.doors.envelope import frame
from weft.gateway.doors.framed import Framed, from_base64
from weft.gateway.http.exchange import Exchange
from weft.gateway.metadata import Beside, to_headers, unpadded

_TRAILERS = 0x80
_TEXT = b"application/grpc-web-text"
_BINARY = b"application/grpc-web"
# grpc-message: printable ASCII but for the percent sign stays as it is (PROTOCOL-HTTP2.md).
_PLAIN = "".join(sorted(set(string.printable[:95]) - {"%"}))


class GrpcWeb(Framed):
    """Serves application/grpc-web and its text form, each with +proto, +json, or neither."""

    name = "grpc-web"
    encoding = b"grpc-encoding"
    accepts = b"grpc-accept-encoding"

    def decoded(self, body: bytes, headers: dict[bytes, bytes], limit: int) -> bytes:
        """The frames in a body; the body as a whole may be compressed as well."""
        body = compression.unpack(body, headers.get(b"content-encoding", b""), limit)
        return from_base64(body) if self._content_type.startswith(_TEXT) else body

    def encoded(self, exchange: Exchange, frames: bytes) -> bytes:
        """The part of a body that stands for frames."""
        return base64.b64encode(frames) if self.answers_as(exchange).startswith(_TEXT) else frames

    def answers_as(self, exchange: Exchange) -> bytes:
        """As the request; text or not as the caller says it accepts."""
        accepted = exchange.header(b"accept")
        if _BINARY not in accepted:
            return self._content_type
        suffix = self._content_type.removeprefix(_TEXT).removeprefix(_BINARY)
        return (_TEXT if _TEXT in accepted else _BINARY) + suffix

    def end(self, error: rpc.Error | None, beside: Beside | None) -> bytes:
        """The trailers."""
        lines = [b"grpc-status: 0\r\n"]
        if error is not None:
            details = unpadded(rpc.status_proto(error).SerializeToString())
            lines = [
                b"grpc-status: %d\r\n" % error.code.value[0],
                b"grpc-message: %s\r\n" % quote(error.message, safe=_PLAIN).encode(),
                b"grpc-status-details-bin: %s\r\n" % details,
            ]
        if beside is not None and beside.trailing:
            lines += [b"%s: %s\r\n" % entry for entry in to_headers(beside.trailing)]
        return frame(_TRAILERS, b"".join(lines))
