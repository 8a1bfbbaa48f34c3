"""The gateway's ASGI application: which door a request came to, and what became of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter

import grpc

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors import connect, mcp, rest
from weft.gateway.doors.calls import Calls
from weft.gateway.doors.pages import Pages
from weft.gateway.http.exchange import Exchange, Receive, Scope, Send
from weft.gateway.transcoding.catalog import Catalog
from weft.rpc.tracing import end_span
from weft.telemetry import Telemetry

log = logging.getLogger("weft.gateway")

C = grpc.StatusCode
Record = Callable[[grpc.StatusCode, float], None]
_UNKNOWN = "unknown"


class App:
    """Routes requests to doors.

    Args:
        calls: the way to agents.
        pages: what is served beside agents.
        mcp_door: serves MCP hosts.
        telemetry: where requests are counted.
    """

    def __init__(
        self,
        calls: Calls,
        pages: Pages,
        mcp_door: mcp.McpDoor,
        *,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._calls = calls
        self._pages = pages
        self._mcp = mcp_door
        self._metrics = telemetry.metrics if telemetry else None
        self._records: dict[tuple[str, str], Record] = {}
        self.catalog = Catalog()

    def use(self, catalog: Catalog) -> None:
        """Takes the methods to serve; replaces those before."""
        self.catalog = catalog
        self._records.clear()
        self._pages.use(catalog)
        self._mcp.use(catalog)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request (ASGI)."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        page = self._pages.find(exchange)
        if page is not None:
            await page(exchange)
            return
        method = self.catalog.methods.get(exchange.path) if exchange.method == "POST" else None
        door, render, name = rest.NAME, failures.aip193, _UNKNOWN
        began = perf_counter()
        code = C.OK
        try:
            if exchange.path == mcp.PATH:
                door, render = mcp.NAME, mcp.failure
                told = await self._mcp.serve(exchange)
                name = self._mcp.name_of(exchange)
            elif method is not None:
                door, render, name = connect.NAME, failures.connect, method.full_name
                told = await connect.serve(self._calls, exchange, method)
            else:
                match = self.catalog.router.match(exchange.method, exchange.path)
                name = match.target.method.full_name
                told = await rest.serve(self._calls, exchange, match)
            if told is not None:
                code = told.code
        except rpc.Error as failed:
            code = failed.code
            await exchange.fail(failed, render)
        except asyncio.CancelledError:
            code = C.CANCELLED  # the caller hung up: nobody is there to be told
        except Exception:
            code = C.INTERNAL
            log.exception("%s %s failed", exchange.method, exchange.path)
            if not exchange.started:
                await exchange.fail(rpc.Internal(), render)
        finally:
            self._end(exchange, door, name, code, perf_counter() - began)

    def _end(
        self, exchange: Exchange, door: str, name: str, code: grpc.StatusCode, seconds: float
    ) -> None:
        if self._metrics is not None:
            record = self._records.get((door, name))
            if record is None:
                record = self._records[door, name] = self._metrics.door_call(door, name)
            record(code, seconds)
        if exchange.call is not None and exchange.call.span is not None:
            end_span(exchange.call.span, code)
