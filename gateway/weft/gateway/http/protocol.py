"""One HTTP/1.1 connection: uvicorn's httptools protocol with the bounds that it lacks.

uvicorn 0.54 with httptools bounds nothing before the application runs: any number of headers, a header line
of any length (httptools joins it in memory), trailers added to the headers of a running request, thousands
of pipelined requests from one read; and a keep-alive timer that the first byte of a request switches off
and no other timer replaces, so that a head or body may take for ever. All of that is bounded here, once
per read and per request, so that a request that arrives whole costs next to nothing extra. What is kept
in memory of a head that is too large is at most its limit and one read (256 KB).
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from weft import rpc
from weft.gateway.guards import HeadersTooLarge
from weft.gateway.http import refusal
from weft.gateway.http.exchange import CERTIFICATE
from weft.gateway.http.settings import HttpSettings
from weft.gateway.http.unread import Unread
from weft.gateway.http.websocket import BoundedWebSocket
from weft.gateway.http.whole import EXTENSION, send_whole

if TYPE_CHECKING:
    from uvicorn._types import HTTPScope

# Bytes the kernel keeps of an answer beyond what is on its way. Left to itself it keeps up to 4 MB (tcp_wmem) for a
# caller that reads nothing, and whatever makes that many messages works to fill it.
_UNSENT = 131_072
_CHUNK_FRAME = 32  # bytes an honest chunk of a chunked body may spend on its frame


class _Due(enum.Enum):
    """What the caller is to send."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


class BoundedProtocol(HttpToolsProtocol):
    """A connection within the bounds of `settings`.

    Args:
        lost: told when the connection is gone.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        settings: HttpSettings,
        lost: Callable[[], None],
    ) -> None:
        super().__init__(config, server_state, app_state={})
        # The gateway has its own (weft.gateway.records), whatever handlers uvicorn's logger has.
        self.access_log = False
        self._settings = settings
        self._lost = lost
        self._max_head = settings.head.total_bytes
        self._max_headers = settings.head.count
        self._sockets = settings.sockets.encode()
        # uvicorn makes a new scope when a request begins: which one it is tells requests apart.
        self._begun: HTTPScope | None = (
            None  # of the request that was unfinished after the last read
        )
        self._complete: HTTPScope | None = None  # of the last request that was read to its end
        self._upgrades = False  # whether the request at work is to become a WebSocket
        self._read = 0  # bytes of the read at work
        self._unspoken = 0  # bytes of this request that reached no callback yet, or were framing
        self._timed = _Due.NOTHING  # what the timer is for
        self._timer: asyncio.TimerHandle | None = None
        self._unread = Unread(settings.write_time)
        self._refusal: rpc.Error | None = None
        self._deaf = False  # the connection is ending: what still comes is dropped

    # Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time of the first head."""
        super().connection_made(transport)
        encrypted = transport.get_extra_info("ssl_object")
        if encrypted is not None and (shown := encrypted.getpeercert(binary_form=True)):
            self.app_state[CERTIFICATE] = shown
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        if len(self.connections) > self._settings.connections:
            self._refuse(refusal.TooManyConnections(retry_after=timedelta(seconds=1)))
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops every timer."""
        self._set_timer(_Due.NOTHING)
        self._unread.end()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Parses what came; whole requests begin, what is too much or not HTTP ends the connection."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._read = len(data)
        self._unspoken += self._read
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._become_websocket(data[upgrade.args[0] :])
                return
            # No other upgrade is offered: RFC 9110 7.8 lets the request stand as it is.
        except httptools.HttpParserError:
            self._refuse(self._refusal or refusal.MalformedHttp())
            return
        if self.scope is self._complete and self._answering():
            self._unspoken = 0  # the usual case: the read ended with a request
        else:
            self._after_part()

    def pause_writing(self) -> None:
        """The caller reads too slowly: starts its time."""
        super().pause_writing()
        self._unread.begin(self.transport.abort)

    def resume_writing(self) -> None:
        """The caller has caught up."""
        self._unread.end()
        super().resume_writing()

    # Parser. Headers are not counted one by one: that would be the dearest part of a small request.

    def on_headers_complete(self) -> None:
        """The head is complete: the request is started or waits for its turn."""
        whole = self._read <= self._max_head and self.scope is not self._begun
        if len(self.headers) > self._max_headers or not (whole or self._head_fits()):
            self._fail(self._head_too_large())
        if len(self.pipeline) >= self._settings.pipeline:
            self._fail(rpc.ResourceExhausted("Too many requests wait on this connection."))
        self._upgrades = self._is_handshake()
        super().on_headers_complete()
        if not self._upgrades:
            self.cycle.transport = _JoiningTransport(self.transport, self.loop)
            answers = partial(send_whole, self.cycle, self.transport)
            self.scope["extensions"] = {EXTENSION: answers}  # type: ignore[dict-item]
        # What the parser calls a header from here on is a trailer, and never joins the request's
        # headers, which decided its fate already (RFC 9110 6.5.1).
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._unspoken = max(0, self._unspoken - len(body))
        super().on_body(body)

    def on_chunk_header(self) -> None:
        """The size line of a chunk."""
        self._unspoken = max(0, self._unspoken - _CHUNK_FRAME)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._complete = self.scope
        if self._timer is not None:
            self._set_timer(_Due.NOTHING)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is sent: the next request, or the rest of this one, is the caller's to send."""
        super().on_response_complete()
        if self.scope is not self._complete and not self._deaf:
            self._watch()

    # WebSocket

    def _should_upgrade(self) -> bool:
        return self._upgrades

    def _is_handshake(self) -> bool:
        """Whether the request is a handshake (RFC 6455, 4.1) that nothing stands before on this connection."""
        return (
            self.parser.should_upgrade()
            and self.url.startswith(self._sockets)
            and self._get_upgrade() == b"websocket"
            and self.parser.get_method() == b"GET"
            and not self._answering()
        )

    def _become_websocket(self, rest: bytes) -> None:
        """Hands the connection over; `rest` is what came behind the head."""
        self._set_timer(_Due.NOTHING)
        self._unread.end()
        self.connections.discard(self)
        lines = [b"GET ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.scope["headers"]:
            lines += [name, b": ", value, b"\r\n"]
        socket = BoundedWebSocket(self.config, self.server_state, self._settings, self._lost)
        self.transport.set_protocol(socket)
        socket.connection_made(self.transport)
        socket.app_state.update(self.app_state)
        socket.data_received(b"".join([*lines, b"\r\n", rest]))

    # Bounds

    def _answering(self) -> bool:
        """Whether the newest request still waits for its answer."""
        return self.cycle is not None and not self.cycle.response_complete

    def _due(self) -> _Due:
        """What the caller is to send next."""
        if self.scope is self._complete:
            return _Due.NOTHING if self._answering() else _Due.HEAD
        begun = self.cycle is not None and self.cycle.scope is self.scope
        return _Due.BODY if begun else _Due.HEAD

    def _after_part(self) -> None:
        """After a read that ended within a request, or was nothing but blank lines."""
        if self.scope is not self._begun:
            self._begun = self.scope
            self._unspoken = 0  # of the first read some may be another request's, so it is free
        if self._unspoken > self._max_head or len(self.headers or ()) > self._max_headers:
            self._refuse(self._head_too_large())
            return
        if self._due() is _Due.BODY and isinstance(self.cycle.transport, _JoiningTransport):
            self.cycle.transport = _LingeringTransport(self.cycle.transport, self._end)
        self._watch()

    def _head_fits(self) -> bool:
        size = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.url) + size <= self._max_head

    def _head_too_large(self) -> rpc.Error:
        limits = f"{self._max_head} bytes or {self._max_headers} headers"
        return HeadersTooLarge(f"The head of the request has more than {limits}.")

    def _fail(self, error: rpc.Error) -> NoReturn:
        # httptools turns whatever a callback raises into its own error.
        self._refusal = error
        raise error

    # Times

    def _watch(self) -> None:
        """Runs the timer of what is due; none while the wait is ours: an earlier answer is owed."""
        due = self._due()
        if self.pipeline or (due is _Due.HEAD and self._answering()):
            due = _Due.NOTHING
        if due is not self._timed:
            self._set_timer(due)

    def _set_timer(self, due: _Due) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timed = due
        if due is not _Due.NOTHING:
            settings = self._settings
            span = settings.head_time if due is _Due.HEAD else settings.body_time
            self._timer = self.loop.call_later(span.total_seconds(), self._too_slow)

    def _too_slow(self) -> None:
        if self.scope is self._complete:
            self.transport.close()  # nothing was asked
        else:
            self._refuse(refusal.RequestTooSlow())

    # The end

    def _refuse(self, error: rpc.Error) -> None:
        """Ends the connection: with this answer, or after the one that is still owed."""
        self._deaf = True
        self._set_timer(_Due.NOTHING)
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._answer(error)
        elif not cycle.more_body:
            cycle.keep_alive = False
        elif cycle.response_started or self.pipeline:
            self.transport.close()
        else:
            cycle.disconnected = True
            cycle.message_event.set()
            self._answer(error)

    def _answer(self, error: rpc.Error) -> None:
        if not self.transport.is_closing():
            self.transport.write(refusal.response(error))
            self._linger()

    def _end(self) -> None:
        """The application ends the connection after an answer it gave before the request was complete."""
        if self._due() is _Due.BODY:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Ends our side and drops what still comes for a while.

        To close with unread data is to reset the connection, and a reset takes the answer back from the
        caller's receive buffer (RFC 9112 9.6).
        """
        if self.transport.is_closing():
            return
        self._deaf = True
        self._set_timer(_Due.NOTHING)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        seconds = self._settings.linger.total_seconds()
        self._timer = self.loop.call_later(seconds, self._leave)

    def _leave(self) -> None:
        self.transport.close()  # which sends what is still to be sent, for as long as
        seconds = self._settings.write_time.total_seconds()
        self._timer = self.loop.call_later(seconds, self.transport.abort)


class _JoiningTransport(asyncio.Transport):
    """What a cycle writes to: the head of an answer waits for the body that follows at once.

    uvicorn writes each by itself, and a write is a system call: the dearest part of a small answer.
    """

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: bytes | None = b""  # empty: nothing was written; None: the head is sent

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends `data`; the first piece with the next, or when this turn of the loop is over."""
        held = self._held
        if held is None:
            self._transport.write(data)
        elif held:
            self._held = None
            self._transport.write(held + data)
        else:
            self._held = bytes(data)
            self._loop.call_soon(self._flush)

    def is_closing(self) -> bool:
        """Whether the connection is ending."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Ends the connection."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, None
        if held and not self._transport.is_closing():
            self._transport.write(held)


class _LingeringTransport(asyncio.Transport):
    """What the cycle of an unfinished request writes to: to close it is to linger."""

    def __init__(self, transport: asyncio.Transport, end: Callable[[], None]) -> None:
        super().__init__()
        self._transport = transport
        self._end = end

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends `data`."""
        self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether the connection is ending."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Ends the connection, not before the caller could read its answer."""
        self._end()
