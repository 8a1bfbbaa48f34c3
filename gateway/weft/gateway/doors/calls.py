"""What every HTTP door does with a call: let it in, make it, hand back its messages."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Container
from datetime import timedelta

from weft import rpc
from weft.gateway.failures import NotServedHere
from weft.gateway.guarded import Guarded
from weft.gateway.guards import caller_deadline, read_body
from weft.gateway.guards.admission import Admission
from weft.gateway.guards.idempotency import KEY, parse_key
from weft.gateway.http.exchange import JSON, Exchange
from weft.gateway.jobs.accepted import send_accepted
from weft.gateway.jobs.asked import is_asked
from weft.gateway.metadata import Beside, Headers
from weft.gateway.records import has_secrets
from weft.gateway.transcoding.catalog import Idempotency, Method
from weft.rpc.call import TRACEPARENT_KEY, Call, Metadata, serve_as
from weft.rpc.tracing import begin_span
from weft.telemetry import Telemetry

# A caller that hung up is looked for only in calls that take longer than this, seconds.
_HANG_UP_CHECK = 0.25
_IDEMPOTENCY_KEY = KEY.encode()


class Calls:
    """The way of a request from an HTTP door to an agent and back.

    Args:
        guarded: the way to agents, with all guards.
        admission: finds out who calls.
        telemetry: where calls are traced.
        max_body: largest body, bytes.
        max_timeout: longest deadline a caller may ask for.
    """

    def __init__(
        self,
        guarded: Guarded,
        admission: Admission,
        *,
        telemetry: Telemetry | None,
        max_body: int,
        max_timeout: timedelta,
    ) -> None:
        self._guarded = guarded
        self._admission = admission
        self._telemetry = telemetry if telemetry and telemetry.tracer else None
        self.max_body = max_body
        self._max_timeout = max_timeout

    async def enter(self, exchange: Exchange, method: Method, door: str) -> bytes:
        """Admits a request and reads its body; from then on this task serves `exchange.call`.

        Raises:
            rpc.Error: the caller is not let in or lacks a scope of the method, the body is too large, a header is malformed.
        """
        if method.client_streaming:
            raise NotServedHere(
                f"{method.full_name} takes a stream of requests; call it by WebSocket or gRPC."
            )
        await self.admit(exchange, method, door)
        return await self.read(exchange)

    async def admit(self, exchange: Exchange, method: Method, door: str) -> None:
        """Admits a request of any kind; from then on this task serves `exchange.call`.

        Where the caller names no deadline, a stream of requests has none.

        Raises:
            rpc.Error: the caller is not let in or lacks a scope of the method, a header is malformed.
        """
        headers = exchange.headers
        traced: Metadata = ()
        if traceparent := exchange.header(b"traceparent"):
            traced = ((TRACEPARENT_KEY, traceparent.decode("latin-1")),)
        # Made before anything can fail, so that an error tells its trace as well.
        call = exchange.call = Call.at_door(method.path, traced, rpc.Deadline.after_seconds(0))
        deadline = caller_deadline(headers, maximum=self._max_timeout)
        call.deadline = deadline or _usual_deadline(method)
        caller = await self._admission.admit(
            headers, method.path, method.skill.required_scopes, exchange.certificate
        )
        call.trust(caller.entry, caller.identity)
        serve_as(call)
        read = self._guarded.upstream.headers(method.agent.name)
        if read and exchange.beside is None:
            exchange.beside = Beside(_chosen(headers, read))
        if self._telemetry is not None:
            attributes = {
                "weft.door": door,
                "http.request.method": exchange.method,
                # Of a route it may hold the value of a field.
                "url.path": method.path if has_secrets(method.input) else exchange.path,
                "rpc.method": method.full_name,
            }
            begin_span(self._telemetry, call, attributes, may_begin_trace=True)

    async def visit(self, exchange: Exchange) -> frozenset[str] | None:
        """Admits a request that may be for something else than an agent; `exchange.call` says who asks.

        What turns out to be a call of an agent goes through `enter` as well.

        Returns:
            The scopes of the caller; None: it counts as having all.

        Raises:
            rpc.Error: the caller is not let in.
        """
        call = exchange.call = Call.at_door(exchange.path, (), rpc.Deadline.after_seconds(0))
        caller = await self._admission.caller(exchange.headers, exchange.certificate)
        call.trust(caller.entry, caller.identity)
        return None if caller.everything else caller.scopes

    async def require(self, exchange: Exchange, *required: str) -> None:
        """Admits a request for something of the gateway's own that needs these scopes; `exchange.call` says who asks.

        Raises:
            rpc.Error: the caller is not let in, or lacks a scope.
        """
        await self.visit(exchange)
        caller = await self._admission.caller(exchange.headers, exchange.certificate)
        self._admission.check(caller, exchange.path, required)

    async def read(self, exchange: Exchange) -> bytes:
        """Reads the body of a request that was admitted.

        Raises:
            rpc.Error: it is too large.
        """
        body = await read_body(exchange.receive, exchange.headers, limit=self.max_body)
        exchange.received += len(body)
        return body

    async def later(
        self, exchange: Exchange, method: Method, request: bytes, content_type: bytes = JSON
    ) -> bool:
        """Answers 202 with a job where the caller prefers that (RFC 7240); whether it did.

        Raises:
            rpc.Error: no job can be begun.
        """
        if not is_asked(method, exchange.headers) or exchange.method == "HEAD":
            return False
        assert exchange.call is not None
        asked = await self._guarded.later(
            method,
            exchange.call,
            request,
            exchange.headers,
            headers=exchange.answer_headers,
        )
        await send_accepted(exchange, asked, content_type)
        return True

    async def unary(self, exchange: Exchange, method: Method, request: bytes) -> bytes:
        """Calls a unary method; gives up when the caller hangs up, unless the call has an idempotency key.

        Raises:
            rpc.Error: as the agent answered, or what kept it from being reached.
        """
        assert exchange.call is not None
        hang_up = _HangUp(exchange)
        try:
            effects = method.idempotency is not Idempotency.NO_SIDE_EFFECTS
            key = _key(exchange) if effects else None
            return await self._guarded.unary(
                method,
                exchange.call,
                request,
                headers=exchange.answer_headers,
                beside=exchange.beside,
                key=None if key is None else parse_key(key.decode("latin-1")),
                control=exchange.header(b"cache-control") if method.skill.cache_ttl else b"",
            )
        finally:
            hang_up.forget()

    async def stream(
        self, exchange: Exchange, method: Method, request: bytes
    ) -> AsyncGenerator[bytes, None]:
        """Calls a server-streaming method and yields its messages; gives up when the caller hangs up."""
        assert exchange.call is not None
        _refuse_key(exchange, method)
        hang_up = _HangUp(exchange)
        messages = self._guarded.stream(
            method,
            exchange.call,
            request,
            headers=exchange.answer_headers,
            beside=exchange.beside,
        )
        try:
            async with contextlib.aclosing(messages):
                async for message in messages:
                    yield message
        finally:
            hang_up.forget()

    async def converse(
        self, exchange: Exchange, method: Method, requests: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        """Calls a method with a stream of requests and yields its messages, of which a unary answer is one.

        Args:
            exchange: the request.
            method: what to call.
            requests: messages; what they raise is raised here. Once they have ended, the caller is looked after
                as in other calls.
        """
        assert exchange.call is not None
        _refuse_key(exchange, method)
        hang_up = _HangUp(exchange, begun=False)

        async def watched() -> AsyncGenerator[bytes, None]:
            async for request in requests:
                yield request
            hang_up.begin()

        messages = self._guarded.converse(
            method,
            exchange.call,
            watched(),
            headers=exchange.answer_headers,
            beside=exchange.beside,
        )
        try:
            async with contextlib.aclosing(messages):
                async for message in messages:
                    yield message
        finally:
            hang_up.forget()


def _usual_deadline(method: Method) -> rpc.Deadline:
    if method.client_streaming:
        return rpc.Deadline.after_seconds(math.inf)
    return rpc.Deadline.after(method.skill.default_timeout)


def _chosen(headers: Headers, names: Container[str]) -> Metadata:
    """Headers of these names, as metadata."""
    found = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
    return tuple((name, value) for name, value in found if name in names and value.isascii())


def _key(exchange: Exchange) -> bytes | None:
    """The idempotency key of a request; an empty one is one, and malformed."""
    for name, value in exchange.headers:
        if name == _IDEMPOTENCY_KEY:
            return value
    return None


def _refuse_key(exchange: Exchange, method: Method) -> None:
    if _key(exchange) is not None and method.idempotency is not Idempotency.NO_SIDE_EFFECTS:
        raise rpc.InvalidArgument("a stream cannot be replayed; leave it out", field=KEY)


class _HangUp:
    """Cancels the task that serves a request when its caller disconnects."""

    __slots__ = ("_handle", "_loop", "_receive", "_serving", "_watching")

    def __init__(self, exchange: Exchange, *, begun: bool = True) -> None:
        self._receive = exchange.receive
        self._loop = asyncio.get_running_loop()
        self._serving = asyncio.current_task(self._loop)
        self._watching: asyncio.Task[None] | None = None
        self._handle: asyncio.TimerHandle | None = None
        if begun:
            self.begin()

    def begin(self) -> None:
        """Looks from now on."""
        self._handle = self._loop.call_later(_HANG_UP_CHECK, self._watch_on)

    def _watch_on(self) -> None:
        self._watching = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        assert self._serving is not None
        self._serving.cancel()

    def forget(self) -> None:
        """Stops looking."""
        if self._handle is not None:
            self._handle.cancel()
        if self._watching is not None:
            self._watching.cancel()
