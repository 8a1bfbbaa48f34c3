"""One HTTP/1.1 connection: uvicorn's httptools protocol with the bounds that it lacks.

uvicorn 0.54 with httptools bounds nothing before the application runs: any number of headers, a header line
of any length (httptools joins it in memory), trailers added to the headers of a running request, thousands
of pipelined requests from one read; and a keep-alive timer that the first byte of a request switches off
and no other timer replaces, so that a head or body may take for ever. All of that is bounded here, in the
parser's callbacks and once per read, so that a request that arrives whole costs next to nothing extra.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections.abc import Callable
from datetime import timedelta

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from weft import rpc
from weft.gateway.guards import HeadersTooLarge
from weft.gateway.http import refusal
from weft.gateway.http.settings import HttpSettings

_CHUNK_FRAME = 32  # bytes an honest chunk of a chunked body may spend on its frame


class _Phase(enum.Enum):
    """What the connection is being sent."""

    IDLE = 0
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
        self._settings = settings
        self._lost = lost
        self._max_head = settings.head.total_bytes
        self._max_headers = settings.head.count
        self._phase = _Phase.HEAD  # a new connection owes a request
        self._timed = _Phase.IDLE  # phase the timer is for; IDLE: no timer
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # target, names and values of this request so far, trailers included
        self._unspoken = 0  # bytes of this request that reached no callback yet, or were framing
        self._refusal: rpc.Error | None = None
        self._deaf = False  # the connection is ending: what still comes is dropped

    # Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time of the first head."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self._settings.connections:
            self._refuse(refusal.TooManyConnections(retry_after=timedelta(seconds=1)))
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops every timer."""
        self._set_timer(_Phase.IDLE)
        self._stop_write_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Parses what came; whole requests begin, what is too much or not HTTP ends the connection."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._unspoken += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # no upgrade is offered: RFC 9110 7.8 lets the request stand as it is
        except httptools.HttpParserError:
            self._refuse(self._refusal or refusal.MalformedHttp())
            return
        if self._phase is not _Phase.IDLE or not self._answering():
            self._after_part()

    def pause_writing(self) -> None:
        """The caller reads too slowly: starts its time."""
        super().pause_writing()
        seconds = self._settings.write_time.total_seconds()
        self._write_timer = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller has caught up."""
        self._stop_write_timer()
        super().resume_writing()

    # Parser

    def on_message_begin(self) -> None:
        """A request begins."""
        self._phase = _Phase.HEAD
        self._head_bytes = 0
        self._unspoken = 0  # the rest of this read is free, whatever of it came before
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header or trailer."""
        self._count_head(len(name) + len(value))
        if self._phase is _Phase.BODY:
            return  # a trailer; RFC 9110 6.5.1: never merged into the headers without knowing it is safe
        if len(self.headers) >= self._max_headers:
            self._fail(HeadersTooLarge(f"The request has more than {self._max_headers} headers."))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete: the request is started or waits for its turn."""
        if len(self.pipeline) >= self._settings.pipeline:
            self._fail(rpc.ResourceExhausted("Too many requests wait on this connection."))
        super().on_headers_complete()
        self._phase = _Phase.BODY

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._unspoken = max(0, self._unspoken - len(body))
        super().on_body(body)

    def on_chunk_header(self) -> None:
        """Called by httptools for the size line of each chunk."""
        self._unspoken = max(0, self._unspoken - _CHUNK_FRAME)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._phase = _Phase.IDLE
        if self._timer is not None:
            self._set_timer(_Phase.IDLE)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is sent: the next request, or the rest of this one, is the caller's to send."""
        super().on_response_complete()
        if self._phase is not _Phase.IDLE and not self._deaf:
            self._watch()

    # Bounds

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._max_head:
            self._fail(self._head_too_large())

    def _head_too_large(self) -> rpc.Error:
        return HeadersTooLarge(f"The head of the request is larger than {self._max_head} bytes.")

    def _fail(self, error: rpc.Error) -> None:
        # httptools turns whatever a callback raises into its own error.
        self._refusal = error
        raise error

    def _answering(self) -> bool:
        """Whether the newest request still waits for its answer."""
        return self.cycle is not None and not self.cycle.response_complete

    def _after_part(self) -> None:
        """After a read that left a request unfinished."""
        if self._unspoken > self._max_head:
            self._refuse(self._head_too_large())
            return
        if self._phase is _Phase.IDLE and not self._answering():
            self._phase = _Phase.HEAD  # empty lines before a request: its time runs already
        if self._phase is _Phase.BODY and self.cycle.transport is self.transport:
            self.cycle.transport = _LingeringTransport(self.transport, self._end)
        self._watch()

    def _watch(self) -> None:
        """Runs the timer of the phase; none while the wait is ours: an earlier answer is still due."""
        due = self._phase
        if self.pipeline or (due is _Phase.HEAD and self._answering()):
            due = _Phase.IDLE
        if due is not self._timed:
            self._set_timer(due)

    def _set_timer(self, phase: _Phase) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timed = phase
        if phase is not _Phase.IDLE:
            settings = self._settings
            span = settings.head_time if phase is _Phase.HEAD else settings.body_time
            self._timer = self.loop.call_later(span.total_seconds(), self._too_slow)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _too_slow(self) -> None:
        if self._phase is _Phase.HEAD and not self._unspoken and not self._head_bytes:
            self.transport.close()  # nothing was ever asked
        else:
            self._refuse(refusal.RequestTooSlow())

    # The end

    def _refuse(self, error: rpc.Error) -> None:
        """Ends the connection: with this answer, or after the one that is still owed."""
        self._deaf = True
        self._set_timer(_Phase.IDLE)
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
        if self._phase is _Phase.BODY:
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
        self._set_timer(_Phase.IDLE)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        seconds = self._settings.linger.total_seconds()
        self._timer = self.loop.call_later(seconds, self._leave)

    def _leave(self) -> None:
        self.transport.close()  # which sends what is still to be sent, for as long as
        seconds = self._settings.write_time.total_seconds()
        self._timer = self.loop.call_later(seconds, self.transport.abort)


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
