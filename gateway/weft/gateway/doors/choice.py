"""Which door a request to /package.Service/Method came to: its HTTP method and content type say."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from weft.gateway.doors.connect import PROTO, Events, Get, NotAllowed, Unary, Unsupported, by_get
from weft.gateway.doors.connect_stream import ConnectStream
from weft.gateway.doors.door import Door
from weft.gateway.doors.grpc_web import GrpcWeb
from weft.gateway.http.exchange import JSON, Exchange
from weft.gateway.transcoding.catalog import Method

_GET = Get()
_NOT_ALLOWED = NotAllowed()
_UNSUPPORTED = Unsupported()
_PROTOCOLS = (b"application/connect+", b"application/grpc", b"application/proto")
# Of a type of no protocol the JSON doors say that it is not served, unless the body is empty.
_PLAIN = Unary(JSON)
_PLAIN_STREAM = Events()
_GRPC_WEB: Mapping[bytes, Door] = MappingProxyType(
    {
        base + suffix: GrpcWeb(base + suffix, json=suffix == b"+json")
        for base in (b"application/grpc-web", b"application/grpc-web-text")
        for suffix in (b"", b"+proto", b"+json")
    }
)
_UNARY: Mapping[bytes, Door] = MappingProxyType({**_GRPC_WEB, JSON: _PLAIN, PROTO: Unary(PROTO)})
_STREAMS: Mapping[bytes, Door] = MappingProxyType(
    {
        **_GRPC_WEB,
        b"application/connect+json": ConnectStream(b"application/connect+json", json=True),
        b"application/connect+proto": ConnectStream(b"application/connect+proto", json=False),
    }
)


def choose(exchange: Exchange, method: Method) -> Door:
    """The door that serves a request."""
    if exchange.method == "POST":
        kind = exchange.header(b"content-type").partition(b";")[0].strip().lower()
        streams = method.server_streaming or method.client_streaming
        door = (_STREAMS if streams else _UNARY).get(kind)
        if door is not None:
            return door
        if kind.startswith(_PROTOCOLS):
            return _UNSUPPORTED
        return _PLAIN_STREAM if streams else _PLAIN
    if exchange.method in {"GET", "HEAD"} and by_get(method):
        return _GET
    return _NOT_ALLOWED
