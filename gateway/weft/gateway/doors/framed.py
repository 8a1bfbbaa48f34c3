"""Doors whose messages come in frames: streams of the Connect protocol, and gRPC-Web.

Both answer 200 and say how the call ended in a last frame.
"""

from __future__ import annotations

import base64
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors import compression
from weft.gateway.doors.calls import Calls
from weft.gateway.doors.envelope import COMPRESSED, BadFrame, frame, only_message
from weft.gateway.http.exchange import Exchange, Headers
from weft.gateway.metadata import Beside, from_headers, to_headers
from weft.gateway.transcoding.catalog import Method

_MOST_PADDING = 1_000  # signs; each segment costs a little
_CLOSE = (b"connection", b"close")


class Framed(ABC):
    """A door of this kind.

    Args:
        content_type: of requests and answers.
        json: whether messages are JSON; else they pass as they are.
    """

    name: str
    encoding: bytes
    """Name of the header that says how frames are compressed."""
    accepts: bytes
    """Name of the header that says how they may be in the answer."""

    def __init__(self, content_type: bytes, *, json: bool) -> None:
        self._content_type = content_type
        self._json = json

    async def serve(self, calls: Calls, exchange: Exchange, method: Method) -> rpc.Error | None:
        """See Door."""
        headers = dict(exchange.headers)
        body = await calls.enter(exchange, method, self.name)
        exchange.beside = Beside(from_headers(exchange.headers))
        self.check(headers)
        used = headers.get(self.encoding, b"")
        request = self._message(self.decoded(body, headers, calls.max_body), used, calls.max_body)
        if self._json and request:
            request = method.request_codec.to_wire(request)
        packs = compression.accepts_gzip(headers.get(self.accepts, b""), used)
        if not method.server_streaming:
            reply = await self._data(method, await calls.unary(exchange, method, request), packs)
            await self._whole(exchange, reply + self.end(None, exchange.beside), packs=packs)
            return None
        messages = calls.stream(exchange, method, request)
        async with contextlib.aclosing(messages):
            return await self._stream(exchange, method, messages, packs=packs)

    async def fail(self, exchange: Exchange, error: rpc.Error) -> None:
        """See Door."""
        closing = [each for each in failures.http_headers(error) if each == _CLOSE]
        await self._whole(exchange, self.end(error, exchange.beside), packs=False, further=closing)

    @abstractmethod
    def end(self, error: rpc.Error | None, beside: Beside | None) -> bytes:
        """The last frame."""

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Refuses a request that this door cannot serve.

        Raises:
            rpc.Error: it cannot.
        """
        del headers

    def decoded(self, body: bytes, headers: dict[bytes, bytes], limit: int) -> bytes:
        """The frames in a body."""
        del headers, limit
        return body

    def encoded(self, exchange: Exchange, frames: bytes) -> bytes:
        """The part of a body that stands for frames."""
        del exchange
        return frames

    def answers_as(self, exchange: Exchange) -> bytes:
        """Content type of the answer."""
        del exchange
        return self._content_type

    def _message(self, frames: bytes, used: bytes, limit: int) -> bytes:
        packed, message = only_message(frames)
        if not packed:
            return message
        if used in (b"", compression.IDENTITY):
            raise BadFrame("The frame is compressed, and no header says how.")
        return compression.unpack(message, used, limit)

    async def _data(self, method: Method, message: bytes, packs: bool) -> bytes:  # noqa: FBT001 one flag of three
        if self._json:
            message = method.response_codec.to_json(message)
        if packs and compression.worth_it(message):
            return frame(COMPRESSED, await compression.pack(message))
        return frame(0, message)

    async def _stream(
        self, exchange: Exchange, method: Method, messages: AsyncIterator[bytes], *, packs: bool
    ) -> rpc.Error | None:
        first = await anext(messages, None)
        failed: rpc.Error | None = None
        await exchange.begin(200, self._head(exchange, packs=packs))
        try:
            if first is not None:
                await self._write(exchange, await self._data(method, first, packs), more=True)
            async for message in messages:
                await self._write(exchange, await self._data(method, message, packs), more=True)
        except rpc.Error as error:
            failed = error
        await self._write(exchange, self.end(failed, exchange.beside), more=False)
        return failed

    async def _write(self, exchange: Exchange, frames: bytes, *, more: bool) -> None:
        await exchange.write(self.encoded(exchange, frames), more=more)

    async def _whole(
        self, exchange: Exchange, frames: bytes, *, packs: bool, further: Headers | None = None
    ) -> None:
        body = self.encoded(exchange, frames)
        head = self._head(exchange, packs=packs)
        head += [(b"content-length", str(len(body)).encode()), *(further or ())]
        await exchange.begin(200, head)
        await exchange.write(body, more=False)

    def _head(self, exchange: Exchange, *, packs: bool) -> Headers:
        head: Headers = [(b"content-type", self.answers_as(exchange))]
        if packs:
            head.append((self.encoding, compression.GZIP))
        if exchange.beside is not None:
            head += to_headers(exchange.beside.leading)
        return head


def from_base64(text: bytes) -> bytes:
    """The bytes behind base64 that may be padded in several places, as gRPC-Web's text form allows.

    Raises:
        BadFrame: it is not base64.
    """
    if text.count(b"=") > _MOST_PADDING:
        raise BadFrame("The body is padded in too many places.")
    parts: list[bytes] = []
    at = 0
    try:
        while (padded := text.find(b"=", at)) >= 0:
            end = padded + 4 - (padded - at) % 4
            parts.append(base64.b64decode(text[at:end], validate=True))
            at = end
        parts.append(base64.b64decode(text[at:], validate=True))
    except ValueError:
        raise BadFrame("The body is not base64.") from None
    return b"".join(parts)
