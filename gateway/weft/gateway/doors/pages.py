"""What the gateway serves of its own: OpenAPI, the page to read it, health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import orjson

from weft.gateway import failures
from weft.gateway.doors.agents import AgentPages
from weft.gateway.doors.breakers import BreakerPages
from weft.gateway.http.exchange import Exchange
from weft.gateway.openapi import document, page
from weft.gateway.transcoding.catalog import Catalog
from weft.gateway.transcoding.router import MethodNotAllowed

HEALTH = frozenset({"/healthz", "/readyz"})
Page = Callable[[Exchange], Awaitable[None]]


class Pages:
    """Pages by path. Agents' routes never hide them.

    Args:
        ready: whether the gateway knows the mesh.
        agents: pages about agents.
        breakers: pages about circuit breakers.
    """

    def __init__(
        self,
        ready: Callable[[], bool],
        agents: AgentPages | None = None,
        breakers: BreakerPages | None = None,
    ) -> None:
        self.ready = ready
        self._agents = agents
        self._breakers = breakers
        self._catalog = Catalog()
        self._openapi: bytes | None = None
        self._pages: Mapping[str, Page] = {
            "/": self._home,
            "/docs": self._docs,
            "/openapi.json": self._document,
            "/healthz": self._alive,
            "/readyz": self._readiness,
        }

    def use(self, catalog: Catalog) -> None:
        """Takes the methods to describe."""
        self._catalog = catalog
        self._openapi = None
        if self._agents is not None:
            self._agents.use(catalog)
        if self._breakers is not None:
            self._breakers.use(catalog)

    def find(self, exchange: Exchange) -> Page | None:
        """The page a request asks for; None: it asks for an agent."""
        if self._breakers is not None and (own := self._breakers.find(exchange)) is not None:
            return own
        page = self._pages.get(exchange.path)
        if page is None and self._agents is not None:
            page = self._agents.find(exchange)
        if page is None or exchange.method in {"GET", "HEAD"}:
            return page
        return _not_allowed

    async def _home(self, exchange: Exchange) -> None:
        await exchange.reply(307, b"", b"text/plain", [(b"location", b"/docs")])

    async def _docs(self, exchange: Exchange) -> None:
        await exchange.reply(200, page.HTML, b"text/html; charset=utf-8", list(page.HEADERS))

    async def _document(self, exchange: Exchange) -> None:
        if self._openapi is None:
            self._openapi = orjson.dumps(document(self._catalog.methods.values()))
        await exchange.reply(200, self._openapi)

    async def _alive(self, exchange: Exchange) -> None:
        await exchange.reply(200, b'{"status":"SERVING"}')

    async def _readiness(self, exchange: Exchange) -> None:
        if self.ready():
            await exchange.reply(200, b'{"status":"SERVING"}')
        else:
            await exchange.reply(
                503, b'{"status":"NOT_SERVING","reason":"registry not reached yet"}'
            )


async def _not_allowed(exchange: Exchange) -> None:
    allow = ("GET", "HEAD", "OPTIONS")
    if exchange.method == "OPTIONS":
        await exchange.allow(allow)
    else:
        refused = MethodNotAllowed(exchange.method, exchange.path, allow)
        await exchange.fail(refused, failures.aip193)
