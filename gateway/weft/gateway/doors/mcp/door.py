"""The MCP door: streamable HTTP at one path, in the revision without sessions and in those with.

A request that carries `_meta` with a protocol version is answered by what it says itself; one without belongs
to a session that `initialize` began.
"""

from __future__ import annotations

import asyncio

import orjson

from weft import rpc
from weft.gateway.doors.calls import Calls
from weft.gateway.doors.mcp import headers, methods, protocol
from weft.gateway.doors.mcp.changes import Changes
from weft.gateway.doors.mcp.events import Events, pass_on
from weft.gateway.doors.mcp.listening import listen
from weft.gateway.doors.mcp.listing import PAGE
from weft.gateway.doors.mcp.messages import (
    VERSION,
    Message,
    check_version,
    parse,
    unknown_method,
    unsupported,
)
from weft.gateway.doors.mcp.methods import Handler, Request
from weft.gateway.doors.mcp.origins import Origins
from weft.gateway.doors.mcp.protocol import Outcome, ProtocolError
from weft.gateway.doors.mcp.sessions import Session, Sessions
from weft.gateway.doors.mcp.shelf import PROMPTS, RESOURCES, TOOLS, Shelf
from weft.gateway.doors.mcp.visibility import Scopes
from weft.gateway.http.exchange import JSON, Exchange
from weft.gateway.transcoding.catalog import Catalog
from weft.rpc.subjects import subject_of

PATH = "/mcp"

_SESSION = b"mcp-session-id"
_EVENTS = b"text/event-stream"


class McpDoor:
    """Serves what agents offer to MCP hosts.

    Args:
        calls: the way to agents.
        origins: which Host and Origin headers are accepted.
        page: entries in one page of a list.
    """

    def __init__(self, calls: Calls, origins: Origins, *, page: int = PAGE) -> None:
        self._calls = calls
        self._origins = origins
        self._page = page
        self._shelf = Shelf(Catalog(), page=page)
        self._sessions = Sessions()
        self._changes = Changes()

    def use(self, catalog: Catalog) -> None:
        """Takes the methods to serve, and tells who listens what changed."""
        before = self._shelf
        self._shelf = Shelf(catalog, previous=before, page=self._page)
        self._changes.publish(self._shelf, before)

    def close(self) -> None:
        """Ends the streams that have no end of their own."""
        self._changes.close()

    async def serve(self, exchange: Exchange) -> rpc.Error | None:
        """Serves a request and returns the error that was told, if one was.

        Raises:
            rpc.Error: nothing was sent yet; for what HTTP itself refuses.
        """
        try:
            self._check_origin(exchange)
            if exchange.method == "POST":
                return await self._post(exchange)
            await self._attend(exchange)
        except ProtocolError as refused:
            return await _refuse(exchange, refused, b"", refused.status)
        return None

    def name_of(self, exchange: Exchange) -> str:
        """What a request was for, to count it: the skill it called, or the door itself."""
        called = exchange.call.method if exchange.call is not None else PATH
        return called.lstrip("/")

    def _check_origin(self, exchange: Exchange) -> None:
        if not self._origins.accept(exchange.header(b"host"), exchange.header(b"origin")):
            raise ProtocolError(
                protocol.INVALID_REQUEST, "Host or Origin is not one of this server", status=403
            )

    async def _attend(self, exchange: Exchange) -> None:
        """Opens the stream of a session, or ends the session."""
        if exchange.method not in {"GET", "DELETE"} or not exchange.header(_SESSION):
            raise ProtocolError(
                protocol.INVALID_REQUEST,
                f"{exchange.method} is for sessions; send messages by POST",
                status=405,
                allow="POST, GET, DELETE",
            )
        await self._calls.visit(exchange)
        session = self._session(exchange)
        if exchange.method == "DELETE":
            self._sessions.end(session)
            await exchange.reply(204, b"", b"text/plain")
        else:
            await self._stream(exchange, session)

    async def _post(self, exchange: Exchange) -> rpc.Error | None:
        accepted = exchange.header(b"accept")
        if accepted and not any(
            each in accepted for each in (JSON, _EVENTS, b"*/*", b"application/*")
        ):
            raise ProtocolError(
                protocol.INVALID_REQUEST,
                "accept application/json and text/event-stream",
                status=406,
            )
        scopes = await self._calls.visit(exchange)
        body = await self._calls.read(exchange)
        exchange.require_json(body)
        message = parse(body)
        if message is None:  # an answer to a request: none was sent
            await exchange.reply(202, b"")
            return None
        stream = Events(exchange)
        request = self._request(exchange, message, scopes, stream if _EVENTS in accepted else None)
        try:
            if protocol.META_VERSION in message.meta or (
                exchange.header(VERSION).strip() == protocol.MODERN.encode()
            ):
                return await self._modern(request, message)
            return await self._legacy(request, message)
        except ProtocolError as refused:
            return await _refuse(exchange, refused, message.id, refused.status)
        finally:
            await stream.stop()

    # The revision without sessions

    async def _modern(self, request: Request, message: Message) -> rpc.Error | None:
        exchange = request.exchange
        check_version(exchange, message)
        headers.check_standard(exchange, message.method, message.params)
        if not message.id:
            await exchange.reply(202, b"")
            return None
        if message.method == "subscriptions/listen":
            await listen(request, message.id, self._changes)
            return None
        handler = methods.MODERN.get(message.method)
        if handler is None:
            raise unknown_method(message.method)
        outcome = await handler(request)
        await _answer(exchange, protocol.result(message.id, outcome, modern=True))
        return outcome.error

    # The revisions with sessions

    async def _legacy(self, request: Request, message: Message) -> rpc.Error | None:
        exchange = request.exchange
        if message.method == "initialize" and message.id:
            await self._initialize(exchange, message)
            return None
        session = request.session = self._session(exchange)
        if not message.id:
            if message.method == "notifications/cancelled":
                session.cancel(orjson.dumps(message.params.get("requestId")))
            await exchange.reply(202, b"")
            return None
        try:
            handler = methods.LEGACY.get(message.method)
            if handler is None:
                raise unknown_method(message.method)
            outcome = await _run(handler, request, session, message.id)
        except ProtocolError as refused:
            # Of the same shape as any other answer: clients of these revisions read no other.
            return await _refuse(exchange, refused, message.id, 200)
        if outcome is None:
            # Nobody waits for an answer; a stream that ends keeps nobody waiting for the connection either.
            await (request.events or Events(exchange)).end()
            return rpc.Cancelled("The caller called it back.")
        await _answer(exchange, protocol.result(message.id, outcome, modern=False))
        return outcome.error

    async def _initialize(self, exchange: Exchange, message: Message) -> None:
        asked = message.params.get("protocolVersion")
        version = asked if asked in protocol.LEGACY else protocol.LEGACY[0]
        session = self._sessions.begin(version, _subject(exchange))
        body = orjson.dumps(
            {
                "protocolVersion": version,
                "capabilities": dict(methods.CAPABILITIES),
                "serverInfo": protocol.SERVER_INFO,
                "instructions": protocol.INSTRUCTIONS,
            }
        )
        reply = protocol.result(message.id, Outcome(body=body), modern=False)
        await exchange.reply(200, reply, headers=[(_SESSION, session.id.encode())])

    def _session(self, exchange: Exchange) -> Session:
        version = exchange.header(VERSION).strip().decode("latin-1")
        if version and version not in protocol.LEGACY:
            raise unsupported(version)
        session_id = exchange.header(_SESSION).decode("latin-1")
        if not session_id:
            raise ProtocolError(
                protocol.INVALID_REQUEST,
                "Begin with initialize and send Mcp-Session-Id, or send _meta with a protocol version",
            )
        session = self._sessions.find(session_id, _subject(exchange))
        if session is None:
            raise ProtocolError(protocol.INVALID_REQUEST, "There is no such session", status=404)
        return session

    async def _stream(self, exchange: Exchange, session: Session) -> None:
        """Tells a session of changes until it ends; a second stream takes the place of the first."""
        if _EVENTS not in exchange.header(b"accept"):
            raise ProtocolError(protocol.INVALID_REQUEST, "accept text/event-stream", status=406)
        if session.stream is not None:
            session.stream.close()
        lists = frozenset({TOOLS, PROMPTS, RESOURCES})
        with self._changes.listening(lists, lambda: frozenset(session.watched)) as listener:
            session.stream = listener
            stream = Events(exchange)
            try:
                await stream.begin()
                if await pass_on(exchange, stream, listener, None):
                    await stream.end()
            finally:
                await stream.stop()
                if session.stream is listener:
                    session.stream = None

    def _request(
        self, exchange: Exchange, message: Message, scopes: Scopes | None, stream: Events | None
    ) -> Request:
        traceparent = message.meta.get("traceparent")
        if isinstance(traceparent, str) and not exchange.header(b"traceparent"):
            exchange.headers.append((b"traceparent", traceparent.encode()))
        return Request(
            exchange=exchange,
            shelf=self._shelf,
            calls=self._calls,
            params=message.params,
            meta=message.meta,
            scopes=scopes,
            session=None,
            events=stream,
        )


async def _run(
    handler: Handler, request: Request, session: Session, request_id: bytes
) -> Outcome | None:
    """Runs a handler in its session; None: the caller called it back."""
    if request_id in session.running:
        raise ProtocolError(protocol.INVALID_REQUEST, "A request with this id still runs")
    task = asyncio.current_task()
    assert task is not None
    session.running[request_id] = task
    try:
        return await handler(request)
    except asyncio.CancelledError:
        if request_id not in session.cancelled:
            raise
        task.uncancel()
        return None
    finally:
        del session.running[request_id]
        session.cancelled.discard(request_id)


def _subject(exchange: Exchange) -> str:
    return subject_of(exchange.call.identity if exchange.call is not None else None)


async def _answer(exchange: Exchange, message: bytes) -> None:
    """Sends the last message of an exchange, in the form that it began in."""
    if exchange.started:
        await exchange.write(b"event: message\ndata: " + message + b"\n\n", more=False)
    else:
        await exchange.reply(200, message)


async def _refuse(
    exchange: Exchange, refused: ProtocolError, request_id: bytes, status: int
) -> rpc.Error:
    message = refused.render(request_id)
    if exchange.started:
        await _answer(exchange, message)
    else:
        allow = [(b"allow", refused.allow.encode())] if refused.allow else []
        await exchange.reply(status, message, headers=allow)
    kind = rpc.NotFound if refused.code == protocol.METHOD_NOT_FOUND else rpc.InvalidArgument
    return kind(refused.message)


async def fail(exchange: Exchange, error: rpc.Error) -> None:
    """Answers with what HTTP itself refuses, as a JSON-RPC message."""
    await exchange.fail(error, protocol.failure)
