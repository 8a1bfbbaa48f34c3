"""One connection to an agent: the calls on it, and their windows (RFC 9113)."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import grpc

from weft.gateway.dataplane import frames, headers, hpack
from weft.gateway.dataplane.call import WINDOW, Call
from weft.gateway.dataplane.errors import (
    CANCEL,
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    ProtocolError,
    StreamError,
)
from weft.gateway.dataplane.tally import Tally

C = grpc.StatusCode
log = logging.getLogger("weft.gateway")

_KEEPALIVE = 10.0  # seconds of silence, while calls wait, after which the agent is pinged
_PONG = 2.0  # seconds it has to answer, and to acknowledge what is sent
_PINGS = 2  # without headers or data of the agent in between; after that they are rare
_RARE = 310.0  # by default servers take one in 5 minutes, bear with two that come sooner, and then end all calls (gRFC A8)
_LONGEST_BLOCK = 512 * 1024  # bytes of a header block, in all its frames; calls end at less
_OWED = 2**30  # bytes of the connection's window that are granted again at a time
_ANSWERS = 1000  # to pings and settings, that may wait for an agent that reads slowly; beyond that it is a flood
_TURN = 4  # frames a call may send before the next has its turn
_OPENING = (
    frames.PREFACE
    + frames.settings(
        {
            frames.HEADER_TABLE_SIZE: 0,  # see hpack.py
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: WINDOW,
            frames.MAX_HEADER_LIST_SIZE: 16 * 1024,
        }
    )
    # The windows of the calls are the bound; that of the connection must not be in their way.
    + frames.window_update(0, frames.LARGEST - frames.DEFAULT_WINDOW)
)


class Connection(asyncio.Protocol):
    """An HTTP/2 connection as a client of gRPC has it.

    Args:
        connections: where it is kept as long as it is open.

    Attributes:
        settled: done when the agent has told its settings.
        gone: done when it takes no more calls.
        ended: done when it is closed.
        tally: where its calls are counted.
    """

    def __init__(self, connections: set[Connection]) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._connections = connections
        self.tally = Tally()
        self.settled: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport
        self._calls: dict[int, Call] = {}
        self._queue: deque[Call] = deque()  # calls beyond MAX_CONCURRENT_STREAMS
        self._stalled: dict[int, Call] = {}  # calls that have more to send than there is room for
        self._next = 1
        self._most = frames.LARGEST  # calls at a time
        self._frame = frames.DEFAULT_FRAME
        self._initial = frames.DEFAULT_WINDOW
        self._room = frames.DEFAULT_WINDOW  # of the connection
        self._full = False  # the transport has enough
        self._answers = 0  # written while it had
        self._turns = False  # whether the next turn is due
        self._unwritten: list[bytes] = []
        self._owed = 0
        self._rest = bytearray()  # of a frame that is not complete
        self._needed = 0  # length at which it is
        self._block: bytearray | None = None  # a header block that is not complete
        self._block_of = (0, 0)  # its stream and flags
        self._heard = 0.0
        self._pings = _PINGS
        self._pinged = 0.0
        self._watch: asyncio.TimerHandle | None = None

    # The caller's side

    @property
    def usable(self) -> bool:
        """Whether it takes calls."""
        return not self.gone.done()

    @property
    def has_room(self) -> bool:
        """Whether a call would begin at once."""
        return len(self._calls) < self._most

    def begin(self, call: Call) -> None:
        """Begins a call, with what it has to send already; later if the agent takes no more calls now."""
        call.carried(self)
        self.tally.begun += 1
        if self.has_room:
            self._open(call)
        else:
            self._queue.append(call)

    def retire(self) -> None:
        """Takes no more calls, and ends with the last."""
        self._leave()
        self._close_if_idle()

    def close(self) -> None:
        """Ends it at once, and all its calls with it."""
        self._transport.abort()

    def send(self, call: Call) -> None:
        """Sends what the call has to send, as far as there is room."""
        if not call.stream or call.done:
            return
        self._stalled.pop(call.stream, None)
        for _ in range(_TURN):
            left = len(call.unsent)
            if call.closed or not (left or call.closing):
                break
            # A window may be below zero (RFC 9113, 6.9.2), and the end of a call needs none.
            size = max(0, min(left, self._room, call.room, self._frame))
            if self._full or (left and not size):
                self._stalled[call.stream] = call
                return
            call.closed = call.closing and size == left
            self._write(self._data(call, size))
        if call.unsent:  # the turn of others
            self._stalled[call.stream] = call
            if not self._turns:
                self._turns = True
                self._loop.call_soon(self._next_turn)
        else:
            call.room_made()

    def grant(self, call: Call, size: int) -> None:
        """Lets the agent send more of a call."""
        self._write(frames.window_update(call.stream, size))

    def give_up(self, call: Call) -> None:
        """Ends a call that nobody waits for."""
        if not call.stream:
            self._queue.remove(call)
        elif self._calls.get(call.stream) is call:
            self._write(frames.reset(call.stream, CANCEL))
            self._forget(call)

    def _open(self, call: Call) -> None:
        stream, self._next = self._next, self._next + 2
        if self._next > frames.LARGEST:
            self._leave()
            self._fail_queue("The connection has had as many calls as it can.")
        if not self._calls:
            self._watch_over()
        self._calls[stream] = call
        call.stream = stream
        call.room = self._initial
        block = call.head() if stream > 1 else hpack.NO_TABLE + call.head()
        head = frames.headers(stream, block, self._frame)
        size = len(call.unsent)
        if call.closing and 0 < size <= min(self._room, call.room, self._frame):
            call.closed = True  # a small request, as most are: one write
            self._write(head + self._data(call, size))
            call.room_made()
        else:
            self._write(head)
            self.send(call)

    def _data(self, call: Call, size: int) -> bytes:
        payload = call.unsent[:size]
        call.unsent = call.unsent[size:]
        call.room -= size
        self._room -= size
        flags = frames.END_STREAM if call.closed else 0
        return frames.frame(frames.DATA, flags, call.stream, payload)

    def _next_turn(self) -> None:
        self._turns = False
        self._go_on()

    def _go_on(self) -> None:
        """Gives each call that has something to send its turn."""
        for call in list(self._stalled.values()):
            if self._full:
                return
            if self._room or not call.unsent:  # the end of a call needs no room
                self.send(call)

    def _write(self, octets: bytes) -> None:
        """Writes with everything else of this turn of the loop: a write is a system call, the dearest part of a call."""
        if not self._unwritten:
            self._loop.call_soon(self._flush)
        self._unwritten.append(octets)

    def _flush(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        if unwritten and not self._transport.is_closing():
            self._transport.write(b"".join(unwritten))

    def _forget(self, call: Call) -> None:
        """A call is over: another may begin."""
        del self._calls[call.stream]
        self._stalled.pop(call.stream, None)
        self._begin_queued()
        if not self.usable:
            self._close_if_idle()

    def _begin_queued(self) -> None:
        while self._queue and self.has_room:
            self._open(self._queue.popleft())

    def _leave(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)

    def _close_if_idle(self) -> None:
        if not (self._calls or self._queue):
            self._flush()
            self._transport.close()

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Opens the conversation."""
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop is no subclass
        self._connections.add(self)
        connected = transport.get_extra_info("socket")
        if connected is not None and connected.family != socket.AF_UNIX:
            option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
            if option is not None:  # what a machine that is gone never acknowledges
                connected.setsockopt(socket.IPPROTO_TCP, option, int(_PONG * 1e3))
        self._write(_OPENING)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails all calls."""
        del exc
        self._connections.discard(self)
        self.ended.set_result(None)
        self._leave()
        if self._watch is not None:
            self._watch.cancel()
        if not self.settled.done():
            self.settled.set_exception(ConnectionResetError("it closed the connection"))
        self._fail_all("The connection to the agent was lost.")

    def _fail_all(self, why: str) -> None:
        calls, self._calls = self._calls, {}
        self._stalled.clear()
        self._fail_queue(why)
        for call in calls.values():
            call.fail(C.UNAVAILABLE, why)

    def _fail_queue(self, why: str) -> None:
        queue, self._queue = self._queue, deque()
        for call in queue:
            call.fail(C.UNAVAILABLE, why, unseen=True)

    def pause_writing(self) -> None:
        """The agent reads too slowly."""
        self._full = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._full = False
        self._answers = 0
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Takes the frames that are complete."""
        self._heard = self._loop.time()
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        try:
            self._read(data)
        except ProtocolError as broken:
            self._break(broken)

    def _read(self, data: bytes) -> None:
        at, size, head = 0, len(data), frames.HEAD.size
        self._needed = head
        while size - at >= head:
            high, low, kind, flags, stream = frames.HEAD.unpack_from(data, at)
            length = high << 16 | low
            if length > frames.DEFAULT_FRAME:
                raise ProtocolError(FRAME_SIZE_ERROR, "a frame larger than allowed")
            end = at + head + length
            if end > size:
                self._needed = head + length
                break
            self._take(kind, flags, stream & frames.LARGEST, data[at + head : end])
            at = end
        self._rest += data[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise ProtocolError(PROTOCOL_ERROR, "a header block that is not continued")
        if not self.settled.done() and kind != frames.SETTINGS:
            raise ProtocolError(PROTOCOL_ERROR, "a connection that does not begin with SETTINGS")
        if stream and kind in _OF_CONNECTION:
            raise ProtocolError(PROTOCOL_ERROR, "a stream where there is none")
        take = _TAKES.get(kind)
        if take is not None:  # all others have no meaning here, or none at all (4.1, 5.3.2)
            take(self, stream, flags, payload)

    def _call(self, stream: int) -> Call | None:
        """The call of a stream; None: it is over."""
        call = self._calls.get(stream)
        if call is None and (not stream & 1 or stream >= self._next):
            raise ProtocolError(PROTOCOL_ERROR, "a stream that nobody opened")
        return call

    # Frames of a stream

    def _take_data(self, stream: int, flags: int, payload: bytes) -> None:
        size = len(payload)
        self._owed += size
        if self._owed >= _OWED:
            self._write(frames.window_update(0, self._owed))
            self._owed = 0
        self._pings = _PINGS
        call = self._call(stream)
        if flags & frames.PADDED:
            payload = _unpadded(payload)
        if call is None:
            return
        try:
            call.on_data(payload, size, end=bool(flags & frames.END_STREAM))
        except StreamError as wrong:
            self._refuse(call, wrong)

    def _take_headers(self, stream: int, flags: int, payload: bytes) -> None:
        self._pings = _PINGS
        if flags & frames.PADDED:
            payload = _unpadded(payload)
        if flags & frames.PRIORITIZED:
            payload = payload[5:]
        if flags & frames.END_HEADERS:
            self._take_block(stream, flags, payload)
        else:
            self._block, self._block_of = bytearray(payload), (stream, flags)

    def _take_continuation(self, stream: int, flags: int, payload: bytes) -> None:
        block = self._block
        if block is None or stream != self._block_of[0]:
            raise ProtocolError(PROTOCOL_ERROR, "CONTINUATION of nothing")
        block += payload
        last = flags & frames.END_HEADERS
        if len(block) > _LONGEST_BLOCK or not (payload or last):
            raise ProtocolError(ENHANCE_YOUR_CALM, "a header block without end")
        if last:
            self._block = None
            self._take_block(*self._block_of, bytes(block))

    def _take_block(self, stream: int, flags: int, block: bytes) -> None:
        call = self._call(stream)
        if call is None:
            return  # with no dynamic table nothing is missed
        try:
            head = headers.read(block)
            over = call.on_head(head, end=bool(flags & frames.END_STREAM))
        except hpack.HpackError as damaged:
            raise ProtocolError(COMPRESSION_ERROR, str(damaged)) from None
        except hpack.TooLargeError:
            self._refuse(
                call, StreamError(C.RESOURCE_EXHAUSTED, "The metadata of the agent is too large.")
            )
        except StreamError as wrong:
            self._refuse(call, wrong)
        else:
            if over:
                if not call.closed:  # what is still to be sent is of no use to the agent (8.1)
                    self._write(frames.reset(stream, NO_ERROR))
                self._forget(call)

    def _refuse(self, call: Call, wrong: StreamError) -> None:
        call.fail(wrong.code, str(wrong))
        self._write(frames.reset(call.stream, CANCEL))
        self._forget(call)

    def _take_reset(self, stream: int, _: int, payload: bytes) -> None:
        if len(payload) != 4:  # noqa: PLR2004 of RFC 9113, as all sizes here
            raise ProtocolError(FRAME_SIZE_ERROR, "RST_STREAM")
        call = self._call(stream)
        if call is not None:
            call.on_reset(frames.number(payload))
            self._forget(call)

    def _take_window(self, stream: int, _: int, payload: bytes) -> None:
        granted = frames.number(payload) & frames.LARGEST
        if len(payload) != 4:  # noqa: PLR2004
            raise ProtocolError(FRAME_SIZE_ERROR, "WINDOW_UPDATE")
        if not granted:
            raise ProtocolError(PROTOCOL_ERROR, "a window that grows by nothing")
        if not stream:
            self._room = _bounded(self._room + granted)
            self._go_on()
        elif (call := self._call(stream)) is not None:
            call.room = _bounded(call.room + granted)
            if stream in self._stalled:
                self.send(call)

    # Frames of the connection

    def _take_settings(self, _: int, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            return
        if len(payload) % 6:
            raise ProtocolError(FRAME_SIZE_ERROR, "SETTINGS")
        for name, value in frames.read_settings(payload):
            self._set(name, value)
        self._answer(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if not self.settled.done():
            self.settled.set_result(None)
        self._begin_queued()
        self._go_on()

    def _set(self, name: int, value: int) -> None:
        if name == frames.MAX_CONCURRENT_STREAMS:
            self._most = value
        elif name == frames.INITIAL_WINDOW_SIZE:
            grown = _bounded(value) - self._initial
            self._initial = value
            for call in self._calls.values():
                call.room = _bounded(call.room + grown)
        elif name == frames.MAX_FRAME_SIZE:
            if not frames.DEFAULT_FRAME <= value <= frames.LARGEST_FRAME:
                raise ProtocolError(PROTOCOL_ERROR, "MAX_FRAME_SIZE")
            self._frame = value
        elif name == frames.ENABLE_PUSH and value:
            raise ProtocolError(PROTOCOL_ERROR, "ENABLE_PUSH")

    def _take_ping(self, _: int, flags: int, payload: bytes) -> None:
        if len(payload) != 8:  # noqa: PLR2004
            raise ProtocolError(FRAME_SIZE_ERROR, "PING")
        if not flags & frames.ACK:
            self._answer(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _take_goaway(self, _: int, __: int, payload: bytes) -> None:
        """The agent takes no more calls; those beyond the last it names it never saw (6.8)."""
        if len(payload) < 8:  # noqa: PLR2004
            raise ProtocolError(FRAME_SIZE_ERROR, "GOAWAY")
        last = frames.number(payload) & frames.LARGEST
        self._leave()
        self._fail_queue("The agent is going away.")
        for call in [call for stream, call in self._calls.items() if stream > last]:
            self._forget(call)
            call.fail(C.UNAVAILABLE, "The agent is going away.", unseen=True)
        self._close_if_idle()

    def _answer(self, frame: bytes) -> None:
        if self._full:  # servers ping amid large requests, to measure the bandwidth (BDP): that alone is no fault
            self._answers += 1
            if self._answers > _ANSWERS:  # it asks, and reads no answers
                raise ProtocolError(ENHANCE_YOUR_CALM, "a flood")
        self._write(frame)

    def _break(self, broken: ProtocolError) -> None:
        """Ends the connection with a peer that does not keep to HTTP/2."""
        log.warning(
            "an agent broke the rules of HTTP/2",
            extra={"address": self._transport.get_extra_info("peername"), "why": str(broken)},
        )
        self._leave()
        self._fail_all("The agent broke the rules of HTTP/2.")
        self._write(frames.goaway(broken.code))
        self._flush()
        self._transport.close()
        self._loop.call_later(_PONG, self._transport.abort)  # if it does not read that

    # Keep-alive (gRFC A8)

    def _watch_over(self) -> None:
        """Looks after calls that begin where there were none."""
        self._heard = self._loop.time()
        if self._watch is None:
            self._watch = self._loop.call_later(_KEEPALIVE, self._look)

    def _look(self) -> None:
        self._watch = None
        if not self._calls:
            return
        now = self._loop.time()
        silent = now - self._heard
        if silent < _KEEPALIVE:
            self._watch = self._loop.call_later(_KEEPALIVE - silent, self._look)
        elif self._pings or now - self._pinged >= _RARE:
            self._pings = max(0, self._pings - 1)
            self._pinged = now
            self._write(frames.frame(frames.PING, 0, 0, bytes(8)))
            self._watch = self._loop.call_later(_PONG, self._expect, now)
        else:
            self._watch = self._loop.call_later(_KEEPALIVE, self._look)

    def _expect(self, pinged: float) -> None:
        if self._heard < pinged:
            self._transport.abort()
        else:
            self._watch = self._loop.call_later(_KEEPALIVE, self._look)


def _refuse_push(_: Connection, __: int, ___: int, ____: bytes) -> None:
    raise ProtocolError(PROTOCOL_ERROR, "PUSH_PROMISE")


_OF_CONNECTION = frozenset((frames.SETTINGS, frames.PING, frames.GOAWAY))
_TAKES: Mapping[int, Callable[[Connection, int, int, bytes], None]] = MappingProxyType(
    {  # all of them its own
        frames.DATA: Connection._take_data,  # noqa: SLF001
        frames.HEADERS: Connection._take_headers,  # noqa: SLF001
        frames.CONTINUATION: Connection._take_continuation,  # noqa: SLF001
        frames.RST_STREAM: Connection._take_reset,  # noqa: SLF001
        frames.WINDOW_UPDATE: Connection._take_window,  # noqa: SLF001
        frames.SETTINGS: Connection._take_settings,  # noqa: SLF001
        frames.PING: Connection._take_ping,  # noqa: SLF001
        frames.GOAWAY: Connection._take_goaway,  # noqa: SLF001
        frames.PUSH_PROMISE: _refuse_push,
    }
)


def _bounded(window: int) -> int:
    if window > frames.LARGEST:
        raise ProtocolError(FLOW_CONTROL_ERROR, "a window without end")
    return window


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise ProtocolError(PROTOCOL_ERROR, "more padding than there is frame")
    return payload[1 : len(payload) - payload[0]]
