"""The Connect door in its JSON form: POST /package.Service/Method (connectrpc.com/docs/protocol).

Unary methods answer as Connect clients expect; server-streaming ones answer with server-sent events.
"""

from __future__ import annotations

import contextlib

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors.calls import Calls
from weft.gateway.doors.sse import send_events
from weft.gateway.http.exchange import Exchange
from weft.gateway.transcoding.catalog import Method

NAME = "connect"


async def serve(calls: Calls, exchange: Exchange, method: Method) -> rpc.Error | None:
    """Serves a request and returns the error that was told, if one was, once the answer had begun.

    Raises:
        rpc.Error: nothing was sent yet.
    """
    body = await calls.enter(exchange, method, NAME)
    exchange.require_json(body)
    if exchange.query:
        raise rpc.InvalidArgument("a POST of the Connect protocol takes no query", field="query")
    request = method.request_codec.to_wire(body) if body else b""
    if method.server_streaming:
        messages = calls.stream(exchange, method, request)
        async with contextlib.aclosing(messages):
            return await send_events(
                exchange, messages, method.response_codec.to_json, failures.connect
            )
    response = await calls.unary(exchange, method, request)
    await exchange.reply(200, method.response_codec.to_json(response))
    return None
