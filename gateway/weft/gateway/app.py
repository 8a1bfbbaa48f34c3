"""The gateway's ASGI application: which door a request came to, and what became of it."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from time import perf_counter

import grpc

from weft import rpc
from weft.gateway.doors import a2a, choice, mcp, rest, websocket
from weft.gateway.doors.calls import Calls
from weft.gateway.doors.pages import HEALTH, Page, Pages
from weft.gateway.http.cors import Cors
from weft.gateway.http.exchange import Exchange, Receive, Scope, Send
from weft.gateway.records import RequestLog
from weft.gateway.transcoding.catalog import Catalog, Endpoint, Method
from weft.gateway.transcoding.router import Match
from weft.rpc.status import SERVER_FAULTS
from weft.rpc.tracing import end_span, keep_served, trace_id_of
from weft.telemetry import Record, Telemetry

log = logging.getLogger("weft.gateway")

C = grpc.StatusCode
_UNKNOWN = "unknown"
_SOON = timedelta(seconds=1)


class NotReady(rpc.Unavailable):
    """The gateway has just started and knows no agents yet; try again."""

    reason = "GATEWAY_NOT_READY"


class App:
    """Routes requests to doors.

    Args:
        calls: the way to agents.
        pages: what is served beside agents.
        mcp_door: serves MCP hosts.
        a2a_door: serves agents of other vendors.
        cors: which pages of other origins may call.
        requests: where requests are logged; None: nowhere.
        telemetry: where requests are counted.
    """

    def __init__(
        self,
        calls: Calls,
        pages: Pages,
        mcp_door: mcp.McpDoor,
        a2a_door: a2a.A2aDoor,
        *,
        cors: Cors | None = None,
        requests: RequestLog | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._calls = calls
        self._pages = pages
        self._cors = cors or Cors()
        self._mcp = mcp_door
        self._a2a = a2a_door
        self._requests = requests
        self._metrics = telemetry.metrics if telemetry else None
        self._late = telemetry.late if telemetry else None
        self._report = telemetry.report if telemetry else None
        self._records: dict[tuple[str, str], Record] = {}
        self.catalog = Catalog()
        self._events = websocket.Events(calls, self._method, self._cors, self._end)

    def end_events(self) -> None:
        """Ends the WebSockets that would go on for ever."""
        self._events.close()

    def use(self, catalog: Catalog) -> None:
        """Takes the methods to serve; replaces those before."""
        self.catalog = catalog
        self._records.clear()
        self._pages.use(catalog)
        self._mcp.use(catalog)
        self._a2a.use(catalog)
        if self._requests is not None:
            self._requests.use(catalog)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request (ASGI)."""
        if scope["type"] == "websocket":
            await self._serve_socket(websocket.Socket(scope, receive, send))
            return
        exchange = Exchange(scope, receive, send)
        # The MCP door has a list of origins of its own.
        if exchange.path != mcp.PATH and await self._cors.ends(exchange):
            return
        page = self._pages.find(exchange)
        if page is not None:
            await self._show(page, exchange)
        else:
            await self._serve(exchange)

    async def _show(self, page: Page, exchange: Exchange) -> None:
        began = perf_counter()
        await page(exchange)
        # Who asks whether the gateway lives asks all the time.
        if self._requests is not None and exchange.path not in HEALTH:
            name = exchange.path if exchange.path.count("/") == 1 else "/agents/*"
            code = C.OK if exchange.status < 400 else C.UNKNOWN  # noqa: PLR2004 of a failure
            if exchange.status < 500:  # noqa: PLR2004 of the gateway's own
                code = C.OK if code is C.OK else C.FAILED_PRECONDITION
            self._requests.ended(
                "page",
                name,
                code,
                perf_counter() - began,
                http_status=exchange.status,
                call=exchange.call,
                received=exchange.received,
                sent=exchange.sent,
            )

    async def _serve(self, exchange: Exchange) -> None:
        method = self.catalog.methods.get(exchange.path)
        door, fail, name = rest.NAME, rest.fail, _UNKNOWN
        began = perf_counter()
        code = C.OK
        try:
            if exchange.path == mcp.PATH:
                door, fail = mcp.NAME, mcp.fail
                told = await self._mcp.serve(exchange)
                name = self._mcp.name_of(exchange)
            elif self._a2a.serves(exchange.path):
                door, fail = a2a.NAME, a2a.fail
                told = await self._a2a.serve(exchange)
                name = self._a2a.name_of(exchange)
            elif method is not None:
                found = choice.choose(exchange, method)
                door, fail, name = found.name, found.fail, method.full_name
                told = await found.serve(self._calls, exchange, method)
            elif exchange.path.startswith(websocket.PREFIX):
                websocket.refuse_plain()
            else:
                match = self._match(exchange)
                name = match.target.method.full_name
                told = await rest.serve(self._calls, exchange, match)
            if told is not None:
                code = told.code
        except rpc.Error as failed:
            code = failed.code
            await fail(exchange, failed)
        except asyncio.CancelledError:
            code = C.CANCELLED  # the caller hung up: nobody is there to be told
        except Exception as failed:  # noqa: BLE001 the edge: whatever it is becomes a status
            code = C.INTERNAL
            self._broken(failed, exchange, door, name)
            if not exchange.started:
                await fail(exchange, rpc.Internal())
        finally:
            self._end(exchange, door, name, code, perf_counter() - began)

    def _broken(self, failed: Exception, exchange: Exchange, door: str, name: str) -> None:
        """Tells operators of an error that nobody thought of."""
        if self._report is not None:
            trace_id = "" if exchange.call is None else exchange.call.trace_id
            self._report(failed, {"rpc.method": name, "weft.door": door, "trace_id": trace_id})
        # Not its path, which may hold the value of a secret field.
        log.error("%s by %s failed", name, door, exc_info=failed)

    async def _serve_socket(self, socket: websocket.Socket) -> None:
        exchange = socket.exchange
        method = self.catalog.methods.get(exchange.path.removeprefix("/ws"))
        name = _UNKNOWN if method is None else method.full_name
        began = perf_counter()
        if exchange.path == websocket.EVENTS:
            name = "events"
            told = await self._events.serve(socket)
        else:
            told = await websocket.serve(self._calls, method, self._cors, socket)
        code = C.OK if told is None else told.code
        self._end(exchange, websocket.NAME, name, code, perf_counter() - began)

    def _match(self, exchange: Exchange) -> Match[Endpoint]:
        try:
            return rest.resolve(self.catalog.router, exchange)
        except rpc.NotFound:
            if self._pages.ready():
                raise
            raise NotReady(retry_after=_SOON) from None

    def _method(self, path: str) -> Method | None:
        return self.catalog.methods.get(path)

    def _end(
        self, exchange: Exchange, door: str, name: str, code: grpc.StatusCode, seconds: float
    ) -> None:
        trace_id = self._trace(exchange, door, name, code, seconds)
        if self._metrics is not None:
            record = self._records.get((door, name))
            if record is None:
                record = self._records[door, name] = self._metrics.door_call(door, name)
            record(code, seconds, trace_id)
        if self._requests is not None:
            self._requests.ended(
                door,
                name,
                code,
                seconds,
                http_status=exchange.status,
                call=exchange.call,
                received=exchange.received,
                sent=exchange.sent,
            )

    def _trace(
        self, exchange: Exchange, door: str, name: str, code: grpc.StatusCode, seconds: float
    ) -> str:
        """Ends the span of a request, or writes one now if it failed or took long; its trace, empty: none."""
        call = exchange.call
        if call is None:
            return ""
        if call.span is not None:
            end_span(call.span, code)
            return trace_id_of(call.span)
        method = self.catalog.methods.get(f"/{name}")
        unary = method is not None and not (method.client_streaming or method.server_streaming)
        failed = code is not C.OK and code in SERVER_FAULTS
        if self._late is None or not self._late.keeps(
            failed=failed, seconds=seconds if unary else 0.0
        ):
            return ""
        attributes = {
            "weft.door": door,
            "http.request.method": exchange.method,
            "rpc.method": name,
        }
        return keep_served(self._late, call, attributes, code, seconds)
