"""One HTTP request and its answer, as the doors see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any

from weft import rpc
from weft.gateway import failures
from weft.gateway.http.whole import EXTENSION
from weft.gateway.metadata import Beside
from weft.rpc.call import Call

Headers = list[tuple[bytes, bytes]]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
SendWhole = Callable[[int, Headers, bytes], bool]

JSON = b"application/json"
CERTIFICATE = "certificate"
# In every answer, whatever door it comes from. Of an API they mean little; of what a browser shows by mistake, much.
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_NONE: Mapping[str, Any] = MappingProxyType({})
_TYPE_JSON = (b"content-type", JSON)


_KEPT = frozenset({"GET", "HEAD"})
_NOT_STORED = (b"cache-control", b"no-store")


class UnsupportedMediaType(rpc.InvalidArgument):
    """This door takes application/json."""

    reason = "UNSUPPORTED_MEDIA_TYPE"
    http_status = 415


class Exchange:
    """A request, and what is sent back.

    Attributes:
        method: HTTP method.
        path: path of the request target, not decoded, without its query.
        query: query of the request target, not decoded.
        headers: lower-case names and values.
        call: the call it stands for, once it was admitted.
        beside: metadata of that call, at the doors that carry it.
        send_whole: sends an answer in one, where the server can.
        extend: adds to the headers of the answer.
        answer_headers: what a guard adds to them.
        status: of the answer; 0: it has not begun.
        received: bytes of the body, or of messages.
        sent: the same of the answer.
        certificate: that the caller's connection brought, as DER; None: it brought none.
    """

    __slots__ = (
        *(
            "answer_headers",
            "beside",
            "call",
            "certificate",
            "extend",
            "headers",
            "method",
            "path",
            "query",
        ),
        *("receive", "received", "send", "send_whole", "sent", "started", "status"),
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("latin-1")
        self.query: str = scope["query_string"].decode("latin-1")
        self.headers: Headers = scope["headers"]
        self.receive = receive
        self.send = send
        # Taken away: what it belongs to has the scope, and both would wait for the garbage collector.
        self.send_whole: SendWhole | None = (scope.pop("extensions", None) or _NONE).get(EXTENSION)
        self.call: Call | None = None
        self.answer_headers: Headers = []
        self.beside: Beside | None = None
        self.extend: Callable[[Headers], None] | None = None
        self.started = False
        self.status = 0
        self.received = 0
        self.sent = 0
        state = scope.get("state")  # of the connection
        self.certificate: bytes | None = state.get(CERTIFICATE) if state else None

    def header(self, name: bytes) -> bytes:
        """First value of a header; empty: it is not there."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""

    def require_json(self, body: bytes) -> None:
        """Refuses a body that says it is something else than JSON.

        Raises:
            UnsupportedMediaType: it does.
        """
        given = self.header(b"content-type")
        if body and given and given.split(b";", 1)[0].strip().lower() != JSON:
            raise UnsupportedMediaType

    async def begin(self, status: int, headers: Headers) -> None:
        """Sends status and headers, the trace of the call among them."""
        self._complete(status, headers)
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    def _complete(self, status: int, headers: Headers) -> None:
        self.started = True
        self.status = status
        if self.call is not None:
            headers.append((b"traceparent", self.call.traceparent.encode()))
        headers += self.answer_headers
        if self.call is not None and self.method in _KEPT and not _says_cache(headers):
            # What was made for one caller is for no cache on the way: it may not know x-api-key for a credential.
            headers.append(_NOT_STORED)
        if self.extend is not None:
            self.extend(headers)

    async def write(self, body: bytes, *, more: bool) -> None:
        """Sends a part of the body."""
        self.sent += len(body)
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def reply(
        self, status: int, body: bytes, content_type: bytes = JSON, headers: Headers | None = None
    ) -> None:
        """Sends a whole answer; 304 and no body where the caller has it (RFC 9110, 13.1.2)."""
        if status == 200 and self.answer_headers and self._has_it():  # noqa: PLR2004 of a success
            await self.begin(304, [])
            await self.send({"type": "http.response.body", "body": b""})
            return
        sent: Headers = [
            _TYPE_JSON if content_type is JSON else (b"content-type", content_type),
            (b"content-length", str(len(body)).encode()),
        ]
        if headers:
            sent += headers
        self.sent += len(body)
        self._complete(status, sent)
        if self.send_whole is None or not self.send_whole(status, sent, body):
            await self.send({"type": "http.response.start", "status": status, "headers": sent})
            await self.send({"type": "http.response.body", "body": body})

    def _has_it(self) -> bool:
        """Whether a GET names the answer's ETag in If-None-Match."""
        known = self.method in {"GET", "HEAD"} and self.header(b"if-none-match")
        if not known:
            return False
        tag = next((value for name, value in self.answer_headers if name == b"etag"), None)
        if tag is None:
            return False
        if known.strip() == b"*":
            return True
        weak = tag.removeprefix(b"W/")
        return any(one.strip().removeprefix(b"W/") == weak for one in known.split(b","))

    async def allow(self, methods: Iterable[str]) -> None:
        """Answers OPTIONS: by which methods the path is served."""
        await self.begin(204, [(b"allow", ", ".join(methods).encode())])
        await self.write(b"", more=False)

    async def fail(self, error: rpc.Error, render: Callable[[rpc.Error], bytes]) -> None:
        """Sends an error."""
        await self.reply(
            failures.http_status(error), render(error), headers=failures.http_headers(error)
        )


def _says_cache(headers: Headers) -> bool:
    return any(name == b"cache-control" for name, _ in headers)
