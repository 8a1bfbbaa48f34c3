"""A call by WebSocket: admitted with the first frame, made as at any other door, ended with a close code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from typing import ClassVar, NoReturn

from weft import rpc
from weft.gateway.doors.calls import Calls
from weft.gateway.doors.websocket.socket import Socket
from weft.gateway.failures import AgentUnknown
from weft.gateway.http.cors import Cors, OriginNotAllowed
from weft.gateway.metadata import Beside, from_headers
from weft.gateway.transcoding.catalog import Method

NAME = "websocket"
PREFIX = "/ws/"

FIRST_FRAME = timedelta(seconds=10).total_seconds()
"""Seconds in which the caller must say something."""

log = logging.getLogger("weft.gateway")


class UpgradeRequired(rpc.FailedPrecondition):
    """This path is served by WebSocket: ask for it with `Upgrade: websocket`."""

    reason = "UPGRADE_REQUIRED"
    http_status: ClassVar[int] = 426
    upgrade: ClassVar[bytes] = b"websocket"


class Stopping(rpc.Unavailable):
    """The gateway stops before the call has ended; connect again, another one may serve."""

    reason = "GATEWAY_STOPPING"


async def serve(
    calls: Calls, method: Method | None, cors: Cors, socket: Socket
) -> rpc.Error | None:
    """Serves a WebSocket and returns the error with which its call ended.

    Args:
        calls: the way to agents.
        method: what it calls; None: no agent serves that.
        cors: which pages of other origins may call.
        socket: the WebSocket, not accepted yet.
    """

    async def work() -> None:
        await socket.begin(FIRST_FRAME)
        await _call(calls, method, socket)

    return await answered(cors, socket, work)


async def answered(
    cors: Cors, socket: Socket, work: Callable[[], Awaitable[None]]
) -> rpc.Error | None:
    """Opens a WebSocket, does the work, and closes it as the work ended; returns the error."""
    if not cors.opens(socket.exchange):
        refused = OriginNotAllowed()
        await socket.refuse(refused)
        return refused
    failed: rpc.Error | None = None
    try:
        await socket.accept()
        await work()
    except rpc.Error as error:
        failed = error
    except asyncio.CancelledError:
        # By the watch over the caller, or because the server is at the end of its grace.
        failed = socket.wrong or Stopping()
    except Exception:
        log.exception("a WebSocket failed")
        failed = rpc.Internal()
    await socket.end(failed)
    return failed


def refuse_plain() -> NoReturn:
    """Answers a request that came without the upgrade.

    Raises:
        UpgradeRequired: always.
    """
    raise UpgradeRequired


async def _call(calls: Calls, method: Method | None, socket: Socket) -> None:
    if method is None:
        raise AgentUnknown
    exchange = socket.exchange
    await calls.admit(exchange, method, NAME)
    exchange.beside = Beside(from_headers(exchange.headers))
    if not (method.client_streaming or method.server_streaming):
        request = await socket.message(method.request_codec)
        reply = await calls.unary(exchange, method, request)
        await socket.write(reply, method.response_codec)
        return
    messages: AsyncGenerator[bytes, None]
    if method.client_streaming:
        messages = calls.converse(exchange, method, socket.messages(method.request_codec))
    else:
        request = await socket.message(method.request_codec)
        messages = calls.stream(exchange, method, request)
    async with contextlib.aclosing(messages):
        async for message in messages:
            await socket.write(message, method.response_codec)
