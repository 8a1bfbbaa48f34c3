"""HTTP to an MCP server.

The client of the SDK gives a connection up as a whole when one request fails on the way. So what fails here is answered:
with an error of JSON-RPC that only the one request gets.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from weft.agents.remote.access import (
    CONNECTING,
    MOST_BYTES,
    Access,
    RefusedError,
    TooLargeError,
    bounded,
)

# Codes of JSON-RPC that are used for nothing else; what they carry never comes from the server.
UNREACHABLE = -31_001
REFUSED = -31_002
TOO_LARGE = -31_003
STATUS = -31_004  # data: the status

_JSON = "application/json"
_EVENTS = "text/event-stream"


def client(access: Access) -> httpx2.AsyncClient:
    """A client for one server.

    Raises:
        OSError: certificates cannot be read.
    """
    return httpx2.AsyncClient(
        transport=_Transport(access),
        # How long an answer may take is for the deadline of each call to say.
        timeout=httpx2.Timeout(CONNECTING, read=None),
        trust_env=False,
    )


class _Transport(httpx2.AsyncBaseTransport):
    def __init__(self, access: Access) -> None:
        self._access = access
        self._inner = httpx2.AsyncHTTPTransport(verify=access.trust(), trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "POST":
            return await self._send(request)
        try:
            return await self._answered(await self._send(request))
        except TooLargeError as refused:
            return _error(TOO_LARGE, str(refused))
        except RefusedError as refused:
            return _error(REFUSED, str(refused))
        except httpx2.TransportError as failed:
            return _error(UNREACHABLE, f"{self._access.place}: {_why(failed)}")

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        request.headers.update(self._access.headers(str(request.url)))
        response = await self._inner.handle_async_request(request)
        packed = response.headers.get("content-encoding", "identity").lower() != "identity"
        if packed and not response.is_redirect:
            await response.aclose()
            raise RefusedError("the answer is packed, which it was asked not to be")
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Bounded(response, events=_media_type(response) == _EVENTS),
            extensions=response.extensions,
        )

    async def _answered(self, response: httpx2.Response) -> httpx2.Response:
        """An answer that the client can make use of, whatever the server said."""
        if response.is_redirect or (response.is_success and _media_type(response) in {_EVENTS, ""}):
            return response
        try:
            body = b"".join([chunk async for chunk in response.stream])  # type: ignore[union-attr]  # it is async
        finally:
            await response.aclose()
        if not response.is_success and not _is_error(body):
            return _error(
                STATUS, f"the server answered {response.status_code}", response.status_code
            )
        headers = {
            name: value
            for name, value in response.headers.items()
            if name not in {"content-length", "transfer-encoding"}
        }
        return httpx2.Response(response.status_code, headers=headers, content=body)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, response: httpx2.Response, *, events: bool) -> None:
        self._response = response
        self._events = events

    def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._response.stream, httpx2.AsyncByteStream)
        chunks = aiter(self._response.stream)
        return _whole_events(chunks) if self._events else bounded(chunks)

    async def aclose(self) -> None:
        await self._response.aclose()


async def _whole_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Events of a stream, each when all of it is there; an error of JSON-RPC in the place of one that is too large."""
    held = bytearray()
    async for chunk in chunks:
        before = max(len(held) - 3, 0)
        held += chunk
        end = max(held.rfind(b"\n\n", before) + 2, held.rfind(b"\r\n\r\n", before) + 4)
        if end >= 4:  # noqa: PLR2004 what is not found is before that
            yield bytes(held[:end])
            del held[:end]
        if len(held) > MOST_BYTES:
            said = _told(TOO_LARGE, f"the answer is larger than {MOST_BYTES} bytes")
            yield b"event: message\ndata: " + said + b"\n\n"
            return
    yield bytes(held)


def _error(code: int, message: str, data: object = None) -> httpx2.Response:
    return httpx2.Response(
        500,  # which the client looks behind
        headers={"content-type": _JSON},
        content=_told(code, message, data),
    )


def _told(code: int, message: str, data: object = None) -> bytes:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()


def _is_error(body: bytes) -> bool:
    """Whether it is an error of JSON-RPC, and not one that is made here."""
    try:
        found = json.loads(body[:MOST_BYTES])
        code = found["error"]["code"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return isinstance(code, int) and not STATUS <= code <= UNREACHABLE


def _media_type(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _why(failed: httpx2.TransportError) -> str:
    return str(failed) or type(failed).__name__
