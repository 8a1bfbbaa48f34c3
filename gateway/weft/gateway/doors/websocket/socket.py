"""A WebSocket as the door sees it: a beginning, messages of the caller, messages to it, an end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors.websocket import closing, frames
from weft.gateway.doors.websocket.frames import BEARER, SUBPROTOCOLS, Encoding, End, Start
from weft.gateway.http.exchange import ALWAYS, Exchange, Receive, Scope, Send
from weft.gateway.transcoding.json_codec import Codec


class CallerGone(rpc.Cancelled):
    """The caller closed the WebSocket before its call had ended."""

    reason = "CALLER_GONE"


class NothingSaid(rpc.DeadlineExceeded):
    """A WebSocket was opened, and no frame came: send {"@start": {}} when the first message comes later."""

    reason = "NOTHING_SAID"


class SurplusMessage(rpc.InvalidArgument):
    """A message came after the last one that the method takes."""

    reason = "SURPLUS_MESSAGE"


class Socket:
    """A WebSocket.

    Attributes:
        exchange: the request that opened it, for the guards.
        wrong: what the caller did while its answer was under way; None: nothing.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.exchange = Exchange({**scope, "method": "GET"}, self._after, send)
        self.wrong: rpc.Error | None = None
        self._offered: list[str] = scope["subprotocols"]
        self._receive = receive
        self._send = send
        self._encoding: Encoding | None = None
        self._first: str | bytes | None = None
        self._ended = False
        self._open = False

    async def refuse(self, error: rpc.Error) -> None:
        """Answers the handshake with an error instead of a WebSocket."""
        exchange = self.exchange
        exchange.send = self._as_denial
        await exchange.fail(error, failures.aip193)

    async def accept(self) -> None:
        """Opens it. What the handshake's subprotocols say is taken over."""
        await self._receive()  # websocket.connect
        chosen = next((name for name in self._offered if name in SUBPROTOCOLS), None)
        if chosen is not None:
            self._encoding = SUBPROTOCOLS[chosen]
        for name in self._offered:
            if name.startswith(BEARER):
                credential = b"Bearer " + name.removeprefix(BEARER).encode("latin-1")
                self.exchange.headers.append((b"authorization", credential))
        await self._say({"type": "websocket.accept", "subprotocol": chosen})
        self._open = True

    async def begin(self, seconds: float) -> None:
        """Waits for the first frame; what @start says counts as if it stood in the handshake's headers.

        Raises:
            NothingSaid: no frame came in time.
            CallerGone: the caller left.
            FrameMalformed: the frame is none that can come first.
        """
        try:
            async with asyncio.timeout(seconds):
                first = await self._frame()
        except TimeoutError:
            raise NothingSaid from None
        said = frames.control(first) if isinstance(first, str) else None
        if isinstance(said, Start):
            self._start(said)
        elif isinstance(said, End):
            self._ended = True
        else:
            self._first = first

    async def message(self, codec: Codec) -> bytes:
        """The one message of a method that takes one.

        Raises:
            rpc.InvalidArgument: it is malformed, or there is none.
            CallerGone: the caller left.
        """
        async for message in self.messages(codec):
            return message
        raise frames.FrameMalformed("The method takes a message, and none came.")

    async def messages(self, codec: Codec) -> AsyncIterator[bytes]:
        """The caller's messages in wire form, until it says @end.

        Raises:
            rpc.InvalidArgument: one is malformed.
            CallerGone: the caller left.
        """
        while not self._ended:
            frame, self._first = self._first, None
            if frame is None:
                frame = await self._frame()
            said = frames.control(frame) if isinstance(frame, str) else None
            if said is None:
                yield self._decoded(frame, codec)
            elif isinstance(said, End):
                self._ended = True
            else:
                raise frames.FrameMalformed("@start comes first, and once.")

    async def texts(self) -> AsyncIterator[str]:
        """Text frames of the caller as they stand, until it says @end.

        Raises:
            rpc.InvalidArgument: a frame is binary, or says @start.
            CallerGone: the caller left.
        """
        while not self._ended:
            frame, self._first = self._first, None
            if frame is None:
                frame = await self._frame()
            if not isinstance(frame, str):
                raise frames.FrameMalformed("What is said here are text frames.")
            said = frames.control(frame)
            if isinstance(said, Start):
                raise frames.FrameMalformed("@start comes first, and once.")
            if said is None:
                yield frame
            else:
                self._ended = True

    async def say(self, text: str) -> None:
        """Sends a text frame; returns when the caller has room for the next.

        Raises:
            CallerGone: the caller left.
        """
        await self._say({"type": "websocket.send", "text": text})

    async def write(self, message: bytes, codec: Codec) -> None:
        """Sends a message; returns when the caller has room for the next."""
        if self._encoding is Encoding.PROTO:
            await self._say({"type": "websocket.send", "bytes": message})
        else:
            text = codec.to_json(message).decode()
            await self._say({"type": "websocket.send", "text": text})

    async def end(self, error: rpc.Error | None) -> None:
        """Says how the call ended, and closes."""
        if not self._open or isinstance(error, CallerGone):
            return
        code, reason = closing.code(error), closing.reason(error)
        with contextlib.suppress(CallerGone):
            if error is not None:
                await self._say({"type": "websocket.send", "text": frames.error(error)})
            await self._say({"type": "websocket.close", "code": code, "reason": reason})

    def _start(self, said: Start) -> None:
        if said.encoding is not None:
            if self._encoding not in {None, said.encoding}:
                raise frames.FrameMalformed("@start and the subprotocol name two encodings.")
            self._encoding = said.encoding
        named = {name for name, _ in said.headers}
        kept = [header for header in self.exchange.headers if header[0] not in named]
        self.exchange.headers = kept + said.headers

    def _decoded(self, frame: str | bytes, codec: Codec) -> bytes:
        kind = Encoding.JSON if isinstance(frame, str) else Encoding.PROTO
        if self._encoding is None:
            self._encoding = kind
        if self._encoding is not kind:
            wanted = "text" if self._encoding is Encoding.JSON else "binary"
            raise frames.FrameMalformed(f"The messages of this WebSocket are {wanted} frames.")
        return codec.to_wire(frame.encode()) if isinstance(frame, str) else frame

    async def _frame(self) -> str | bytes:
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            self._open = False
            raise CallerGone
        text: str | None = event.get("text")
        if text is not None:
            self.exchange.received += len(text)
            return text
        data: bytes = event["bytes"]
        self.exchange.received += len(data)
        return data

    async def _say(self, event: MutableMapping[str, Any]) -> None:
        self.exchange.sent += len(event.get("bytes") or event.get("text") or b"")
        try:
            await self._send(event)
        except (OSError, RuntimeError):  # uvicorn: the connection is gone, or is closing
            self._open = False
            raise CallerGone from None

    async def _after(self) -> MutableMapping[str, Any]:
        """What the guards wait for once the caller has said all: that it goes, or says more than it may."""
        try:
            while True:
                frame = await self._frame()
                if self._ended or not isinstance(frame, str):
                    break
                if not isinstance(frames.control(frame), End):
                    break
                self._ended = True
            self.wrong = SurplusMessage()
        except rpc.Error as wrong:
            self.wrong = wrong
        return {"type": "http.disconnect"}

    async def _as_denial(self, event: MutableMapping[str, Any]) -> None:
        if "headers" in event:  # to which the server adds nothing
            event = {**event, "headers": [*event["headers"], *ALWAYS]}
        await self._send({**event, "type": f"websocket.{event['type']}"})
