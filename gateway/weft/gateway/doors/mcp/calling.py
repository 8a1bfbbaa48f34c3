"""Calls of agents on behalf of tools and resources."""

from __future__ import annotations

import contextlib
from collections.abc import MutableMapping
from typing import Any

from weft import rpc
from weft.gateway.doors.calls import Calls
from weft.gateway.doors.mcp import protocol
from weft.gateway.doors.mcp.content import Content, failed
from weft.gateway.doors.mcp.events import Events
from weft.gateway.doors.mcp.protocol import LOG_LEVELS, Json, Outcome
from weft.gateway.doors.mcp.tools import Tool
from weft.gateway.http.exchange import Exchange, Receive

NAME = "mcp"

_MOST_COLLECTED = 4 * 1024 * 1024  # bytes of a stream's messages that one result may hold


class Asked:
    """How a caller wants to hear of a call while it runs.

    Args:
        token: its progress token; None: it gave none.
        log_level: the least severe log message it wants; empty: none.
        events: where it hears it; None: it takes no events.
    """

    __slots__ = ("_count", "_events", "_logger", "_logs", "_token")

    def __init__(self, token: object, log_level: str, logger: str, events: Events | None) -> None:
        self._token = token
        self._logs = bool(log_level) and LOG_LEVELS.index(log_level) <= LOG_LEVELS.index("info")
        self._logger = logger
        self._events = events
        self._count = 0

    async def tell(self, content: Content, message: bytes) -> None:
        """A message of a stream has come: progress for who gave a token, a log message for who wants those."""
        if self._events is None or (self._token is None and not self._logs):
            return
        self._count += 1
        brief = content.brief(message)
        if self._token is not None:
            params: Json = {"progressToken": self._token, "progress": self._count}
            params["message"] = brief
            await self._events.send(protocol.notification("notifications/progress", params))
        if self._logs:
            params = {"level": "info", "logger": self._logger, "data": brief}
            await self._events.send(protocol.notification("notifications/message", params))


async def call_tool(
    calls: Calls, exchange: Exchange, tool: Tool, arguments: Json, asked: Asked
) -> Outcome:
    """Calls the skill behind a tool.

    What the skill refuses, and what is wrong with the arguments, is a result too: a model can mend it.
    """
    try:
        request = await _enter(calls, exchange, tool, arguments)
        if not tool.method.server_streaming:
            return tool.content.one(await calls.unary(exchange, tool.method, request))
        return tool.content.many(await _collect(calls, exchange, tool, request, asked))
    except rpc.Error as error:
        return failed(error)


async def answers(
    calls: Calls, exchange: Exchange, tool: Tool, arguments: dict[str, str]
) -> list[bytes]:
    """Calls the skill behind a resource or a prompt, and returns the messages that it answers with.

    Raises:
        rpc.Error: as the agent answered.
    """
    request = await _enter(calls, exchange, tool, arguments)
    if not tool.method.server_streaming:
        return [await calls.unary(exchange, tool.method, request)]
    return await _collect(calls, exchange, tool, request, Asked(None, "", "", None))


async def _enter(calls: Calls, exchange: Exchange, tool: Tool, arguments: Json) -> bytes:
    """Admits a call of a caller that was let in; its body is what every other door would have been sent."""
    exchange.receive = _again(tool.request(arguments), exchange.receive)
    body = await calls.enter(exchange, tool.method, NAME)
    return tool.method.request_codec.to_wire(body) if body else b""


async def _collect(
    calls: Calls, exchange: Exchange, tool: Tool, request: bytes, asked: Asked
) -> list[bytes]:
    found: list[bytes] = []
    size = 0
    stream = calls.stream(exchange, tool.method, request)
    async with contextlib.aclosing(stream):
        async for message in stream:
            size += len(message)
            if size > _MOST_COLLECTED:
                raise rpc.OutOfRange(
                    f"{tool.name} answers with more than {_MOST_COLLECTED} bytes; ask for less.",
                    reason="RESULT_TOO_LARGE",
                )
            found.append(message)
            await asked.tell(tool.content, message)
    return found


def _again(body: bytes, receive: Receive) -> Receive:
    """What a request receives whose body was read before: this body, then what comes."""
    told = False

    async def receive_again() -> MutableMapping[str, Any]:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
