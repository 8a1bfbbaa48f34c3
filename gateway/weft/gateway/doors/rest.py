"""The REST door: routes by google.api.http, JSON both ways, AIP-193 errors."""

from __future__ import annotations

import contextlib

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors.calls import Calls
from weft.gateway.doors.sse import send_events
from weft.gateway.http.exchange import Exchange
from weft.gateway.transcoding.catalog import Endpoint
from weft.gateway.transcoding.router import Match

NAME = "rest"


async def serve(calls: Calls, exchange: Exchange, match: Match[Endpoint]) -> rpc.Error | None:
    """Serves a request and returns the error that was told, if one was, once the answer had begun.

    Raises:
        rpc.Error: nothing was sent yet.
    """
    method, binding = match.target.method, match.target.binding
    body = await calls.enter(exchange, method, NAME)
    exchange.require_json(body)
    request = binding.request(match.values, exchange.query, body)
    if method.server_streaming:
        messages = calls.stream(exchange, method, request)
        async with contextlib.aclosing(messages):
            return await send_events(exchange, messages, binding.response, failures.aip193)
    response = await calls.unary(exchange, method, request)
    await exchange.reply(200, binding.response(response))
    return None
