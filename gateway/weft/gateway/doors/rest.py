"""The REST door: routes by google.api.http, JSON both ways, AIP-193 errors.

A server-streaming method answers as the caller's Accept says: server-sent events (also where it says nothing
of the kind), a message a line, or one array. google.api.HttpBody passes as it is, both ways.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from urllib.parse import unquote_plus

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors import compression
from weft.gateway.doors.accept import preferred
from weft.gateway.doors.calls import Calls
from weft.gateway.doors.lines import ARRAY, LINES, Layout, send_lines
from weft.gateway.doors.raw import send_bodies, send_body
from weft.gateway.doors.sse import send_events
from weft.gateway.http.exchange import JSON, Exchange, UnsupportedMediaType
from weft.gateway.transcoding.binding import Binding
from weft.gateway.transcoding.catalog import Endpoint, Method
from weft.gateway.transcoding.masks import Mask
from weft.gateway.transcoding.router import Match, MethodNotAllowed, Router

NAME = "rest"

_EVENTS = b"text/event-stream"
_LAYOUTS: Mapping[bytes, Layout] = MappingProxyType(
    {
        b"application/x-ndjson": LINES,
        b"application/ndjson": LINES,
        b"application/jsonl": LINES,
        JSON: ARRAY,
    }
)
_STREAMS = (_EVENTS, *_LAYOUTS)
_FIELDS = ("$fields=", "%24fields=")


def resolve(router: Router[Endpoint], exchange: Exchange) -> Match[Endpoint]:
    """What serves a request; HEAD is served where GET is.

    Raises:
        MethodNotAllowed: the path is served by other methods.
        rpc.NotFound: it is not served.
        rpc.InvalidArgument: it is malformed.
    """
    try:
        return router.match(exchange.method, exchange.path)
    except MethodNotAllowed as refused:
        allow = {*refused.allow, "OPTIONS"}
        if "GET" in allow:
            allow.add("HEAD")
            if exchange.method == "HEAD":
                return router.match("GET", exchange.path)
        raise MethodNotAllowed(exchange.method, exchange.path, allow) from None


async def serve(calls: Calls, exchange: Exchange, match: Match[Endpoint]) -> rpc.Error | None:
    """Serves a request and returns the error that was told, if one was, once the answer had begun.

    Raises:
        rpc.Error: nothing was sent yet.
    """
    method, binding = match.target.method, match.target.binding
    body = await calls.enter(exchange, method, NAME)
    if encoding := exchange.header(b"content-encoding"):
        body = _unpacked(body, encoding, calls.max_body)
    if not binding.raw_request:
        exchange.require_json(body)
    query, render = _rendering(exchange, method, binding)
    content_type = exchange.header(b"content-type").decode("latin-1") if binding.raw_request else ""
    request = binding.request(match.values, query, body, content_type)
    if await calls.later(exchange, method, request):
        return None
    if method.server_streaming:
        if exchange.method == "HEAD":  # a stream would be made for nobody
            await exchange.reply(200, b"", _stream_type(exchange))
            return None
        return await _stream(calls, exchange, match.target, request, render)
    response = await calls.unary(exchange, method, request)
    if binding.raw_reply:
        await send_body(exchange, response, binding.raw)
    else:
        await exchange.reply(200, render(response))
    return None


async def fail(exchange: Exchange, error: rpc.Error) -> None:
    """Answers with an error; OPTIONS asks for nothing else than what `MethodNotAllowed` says."""
    if exchange.method == "OPTIONS" and isinstance(error, MethodNotAllowed):
        await exchange.allow(error.allow)
    else:
        await exchange.fail(error, failures.aip193)


async def _stream(
    calls: Calls,
    exchange: Exchange,
    endpoint: Endpoint,
    request: bytes,
    render: Callable[[bytes], bytes],
) -> rpc.Error | None:
    messages = calls.stream(exchange, endpoint.method, request)
    async with contextlib.aclosing(messages):
        if endpoint.binding.raw_reply:
            return await send_bodies(exchange, messages, endpoint.binding.raw)
        kind = _stream_type(exchange)
        if kind == _EVENTS:
            return await send_events(exchange, messages, render, failures.aip193)
        return await send_lines(exchange, messages, render, kind, _LAYOUTS[kind])


def _unpacked(body: bytes, encoding: bytes, limit: int) -> bytes:
    try:
        return compression.unpack(body, encoding, limit)
    except compression.EncodingUnknown as unknown:
        raise UnsupportedMediaType(unknown.message) from None


def _stream_type(exchange: Exchange) -> bytes:
    return preferred(exchange.header(b"accept"), _STREAMS)


def _rendering(
    exchange: Exchange, method: Method, binding: Binding
) -> tuple[str, Callable[[bytes], bytes]]:
    """The query without the field mask, and what makes a reply JSON."""
    query, mask = exchange.query, exchange.header(b"x-goog-fieldmask").decode("latin-1")
    if "fields=" in query:
        parts = query.split("&")
        masks = [part for part in parts if part.startswith(_FIELDS)]
        if masks:
            query = "&".join(part for part in parts if not part.startswith(_FIELDS))
            mask = unquote_plus(masks[-1].partition("=")[2])
    if not mask or binding.raw_reply:
        return query, binding.response
    field = binding.response_field
    if field is not None and field.message_type is None:
        raise rpc.InvalidArgument("the reply has no fields to choose from", field="$fields")
    shown = method.output if field is None else field.message_type
    assert shown is not None
    applied = Mask(mask, shown)
    return query, lambda wire: applied.apply(binding.response(wire))
