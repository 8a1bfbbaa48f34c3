"""HTTP to an A2A agent. What fails on the way is told as an error of RPC, which the SDK's client passes on as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import orjson

from weft import rpc
from weft.agents.remote.access import (
    CONNECTING,
    Access,
    RefusedError,
    TooLargeError,
    bounded,
)
from weft.agents.remote.statuses import of_status

_EVENTS = "text/event-stream"
_OF_CREDENTIALS = frozenset({401, 403})


def client(access: Access) -> httpx.AsyncClient:
    """A client for one agent. It follows no redirect.

    Raises:
        OSError: certificates cannot be read.
    """
    return httpx.AsyncClient(
        transport=_Transport(access),
        # How long an answer may take is for the deadline of each call to say.
        timeout=httpx.Timeout(CONNECTING, read=None),
        trust_env=False,
    )


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, access: Access) -> None:
        self._access = access
        self._inner = httpx.AsyncHTTPTransport(verify=access.trust(), trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            request.headers.update(self._access.headers(str(request.url)))
        except RefusedError as refused:
            raise _refused(str(refused)) from None
        try:
            response = await self._inner.handle_async_request(request)
        except httpx.TransportError as failed:
            raise self._unreachable(failed) from None
        chunks = self._chunks(response)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise _refused("The answer is packed, which it was asked not to be.")
        if not response.is_success:
            body = await _told(response, chunks)
            kind = {"content-type": response.headers.get("content-type", "application/json")}
            return httpx.Response(response.status_code, headers=kind, content=body)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_Stream(chunks, response),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        events = response.headers.get("content-type", "").lower().startswith(_EVENTS)
        try:
            async for chunk in bounded(aiter(response.stream), events=events):
                yield chunk
        except TooLargeError as refused:
            raise rpc.OutOfRange(str(refused), reason="REMOTE_ANSWER_TOO_LARGE") from None
        except httpx.TransportError as failed:
            raise self._unreachable(failed) from None

    def _unreachable(self, failed: httpx.TransportError) -> rpc.Error:
        why = str(failed) or type(failed).__name__
        return rpc.Unavailable(f"{self._access.place}: {why}", reason="REMOTE_UNREACHABLE")


class _Stream(httpx.AsyncByteStream):
    def __init__(self, chunks: AsyncIterator[bytes], response: httpx.Response) -> None:
        self._chunks = chunks
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def aclose(self) -> None:
        await self._response.aclose()


async def _told(response: httpx.Response, chunks: AsyncIterator[bytes]) -> bytes:
    """An error that A2A itself tells; raises what any other status means."""
    body = b"" if response.status_code in _OF_CREDENTIALS else b"".join([c async for c in chunks])
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        told = None
    await response.aclose()
    if not isinstance(told, dict) or not isinstance(told.get("error"), dict):
        raise of_status(response.status_code)
    return body


def _refused(text: str) -> rpc.Error:
    return rpc.FailedPrecondition(text, reason="REMOTE_REFUSED")
