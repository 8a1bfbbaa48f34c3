"""The Connect protocol for unary methods (connectrpc.com/docs/protocol): POST and GET, JSON and binary.

A binary message passes as it is. A server-streaming method called with plain JSON, as from curl, answers with
server-sent events; `framed` has the protocol's own streams.
"""

from __future__ import annotations

import contextlib
from typing import NoReturn

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors import compression
from weft.gateway.doors.calls import Calls
from weft.gateway.doors.connect_get import read_query
from weft.gateway.doors.sse import send_events
from weft.gateway.http.exchange import JSON, Exchange, Headers, UnsupportedMediaType
from weft.gateway.metadata import Beside, from_headers, to_headers
from weft.gateway.transcoding.catalog import Idempotency, Method
from weft.gateway.transcoding.router import MethodNotAllowed

NAME = "connect"
PROTO = b"application/proto"

_ACCEPTS = (b"accept-encoding", compression.SUPPORTED)
_VARY = (b"vary", b"accept-encoding")
_PACKED = [(b"content-encoding", compression.GZIP), _VARY]


class VersionUnknown(rpc.InvalidArgument):
    """This is a version of the Connect protocol that is not served; version 1 is."""

    reason = "CONNECT_VERSION_UNKNOWN"


class _Connect:
    """What these doors have in common."""

    name = NAME

    async def fail(self, exchange: Exchange, error: rpc.Error) -> None:
        """Answers with an error as Connect has it; OPTIONS asks for the methods that are allowed."""
        if exchange.method == "OPTIONS" and isinstance(error, MethodNotAllowed):
            await exchange.allow(error.allow)
            return
        headers = failures.http_headers(error)
        if isinstance(error, compression.EncodingUnknown):
            headers.append(_ACCEPTS)
        await exchange.reply(
            failures.http_status(error),
            failures.connect(error),
            headers=headers + _metadata(exchange.beside),
        )


class Unary(_Connect):
    """Serves POST /package.Service/Method.

    Args:
        content_type: of requests and answers: application/json or application/proto.
    """

    def __init__(self, content_type: bytes) -> None:
        self._content_type = content_type

    async def serve(self, calls: Calls, exchange: Exchange, method: Method) -> rpc.Error | None:
        """See Door."""
        headers = dict(exchange.headers)
        body = await calls.enter(exchange, method, NAME)
        exchange.beside = Beside(from_headers(exchange.headers))
        if self._content_type is JSON:
            exchange.require_json(body)
        check_version(headers.get(b"connect-protocol-version", b""), b"1")
        if exchange.query:
            raise rpc.InvalidArgument(
                "a POST of the Connect protocol takes no query", field="query"
            )
        used = headers.get(b"content-encoding", b"")
        message = compression.unpack(body, used, calls.max_body) if used else body
        if self._content_type is JSON and message:
            message = method.request_codec.to_wire(message)
        await _answer(calls, exchange, method, message, self._content_type, used)
        return None


class Get(_Connect):
    """Serves GET /package.Service/Method, for methods without side effects."""

    async def serve(self, calls: Calls, exchange: Exchange, method: Method) -> rpc.Error | None:
        """See Door."""
        await calls.enter(exchange, method, NAME)
        exchange.beside = Beside(from_headers(exchange.headers))
        query = read_query(exchange.query)
        check_version(query.version, b"v1")
        content_type = {b"json": JSON, b"proto": PROTO}.get(query.encoding)
        if content_type is None:
            raise UnsupportedMediaType("The parameter encoding is json or proto.")
        message = compression.unpack(query.message, query.compression, calls.max_body)
        if content_type is JSON and message:
            message = method.request_codec.to_wire(message)
        await _answer(calls, exchange, method, message, content_type, query.compression)
        return None


class Events(_Connect):
    """Serves a server-streaming method to a plain JSON POST, with server-sent events."""

    async def serve(self, calls: Calls, exchange: Exchange, method: Method) -> rpc.Error | None:
        """See Door."""
        body = await calls.enter(exchange, method, NAME)
        exchange.require_json(body)
        if exchange.query:
            raise rpc.InvalidArgument(
                "a POST of the Connect protocol takes no query", field="query"
            )
        used = exchange.header(b"content-encoding")
        message = compression.unpack(body, used, calls.max_body) if used else body
        request = method.request_codec.to_wire(message) if message else b""
        if await calls.later(exchange, method, request):
            return None
        messages = calls.stream(exchange, method, request)
        async with contextlib.aclosing(messages):
            return await send_events(
                exchange, messages, method.response_codec.to_json, failures.connect
            )


class Unsupported(_Connect):
    """Refuses content types by which a method of its kind cannot be called."""

    async def serve(self, calls: Calls, exchange: Exchange, method: Method) -> NoReturn:
        """See Door."""
        await calls.enter(exchange, method, NAME)
        kind = "streams its answer" if method.server_streaming else "is unary"
        offered = "connect+proto, connect+json" if method.server_streaming else "proto"
        raise UnsupportedMediaType(
            f"{method.full_name} {kind}; send application/json, or one of application/{offered}, "
            "application/grpc-web. gRPC itself is served on a port of its own."
        )


class NotAllowed(_Connect):
    """Refuses the HTTP methods by which a method is not served."""

    async def serve(self, calls: Calls, exchange: Exchange, method: Method) -> NoReturn:
        """See Door."""
        del calls
        allow = ("GET", "HEAD", "OPTIONS", "POST") if by_get(method) else ("OPTIONS", "POST")
        raise MethodNotAllowed(exchange.method, exchange.path, allow)


def by_get(method: Method) -> bool:
    """Whether a method is served by GET as well."""
    return (
        method.idempotency is Idempotency.NO_SIDE_EFFECTS
        and not method.client_streaming
        and not method.server_streaming
    )


def check_version(given: bytes, known: bytes) -> None:
    """Refuses a version of the protocol other than the one that is known; none is as good.

    Raises:
        VersionUnknown: it is another.
    """
    if given and given.strip() != known:
        raise VersionUnknown


async def _answer(
    calls: Calls,
    exchange: Exchange,
    method: Method,
    request: bytes,
    content_type: bytes,
    used: bytes,
) -> None:
    """Makes the call and answers; a caller that names no encoding accepts the one it `used` (Connect)."""
    if await calls.later(exchange, method, request, content_type):
        return
    message = await calls.unary(exchange, method, request)
    if content_type is JSON:
        message = method.response_codec.to_json(message)
    headers = _metadata(exchange.beside)
    if compression.worth_it(message):
        if compression.accepts_gzip(exchange.header(b"accept-encoding"), used):
            message = await compression.pack(message)
            headers += _PACKED
        else:
            headers.append(_VARY)
    await exchange.reply(200, message, content_type, headers)


def _metadata(beside: Beside | None) -> Headers:
    if beside is None or not (beside.leading or beside.trailing):
        return []
    return [*to_headers(beside.leading), *to_headers(beside.trailing, b"trailer-")]
