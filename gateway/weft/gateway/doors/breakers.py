"""GET /breakers and POST /breakers:hold: the circuits of this gateway, and those an operator holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors.calls import Calls
from weft.gateway.guards import Breakers, CircuitState, Transition
from weft.gateway.guards.breaker_holds import BreakerHolds, Hold
from weft.gateway.http.exchange import Exchange
from weft.gateway.transcoding.catalog import Catalog
from weft.gateway.transcoding.router import MethodNotAllowed

Json = dict[str, Any]

SCOPE = "gateway.admin"

_LIST = "/breakers"
_HOLD = "/breakers:hold"
_STATES = ("open", "closed", "auto")


class BreakerPages:
    """What operators see of circuits, and do with them. Callers need the scope `gateway.admin`.

    Args:
        breakers: of this gateway.
        holds: of all gateways.
        calls: lets callers in.
    """

    def __init__(self, breakers: Breakers, holds: BreakerHolds, calls: Calls) -> None:
        self._breakers = breakers
        self._holds = holds
        self._calls = calls
        self._catalog = Catalog()

    def use(self, catalog: Catalog) -> None:
        """Takes the methods that can be held."""
        self._catalog = catalog

    def find(self, exchange: Exchange) -> Callable[[Exchange], Awaitable[None]] | None:
        """The page a request asks for."""
        if exchange.path == _LIST:
            return self._serving(self._list, "GET", "HEAD")
        if exchange.path == _HOLD:
            return self._serving(self._hold, "POST")
        return None

    def _serving(
        self, page: Callable[[Exchange], Awaitable[Json]], *methods: str
    ) -> Callable[[Exchange], Awaitable[None]]:
        async def serve(exchange: Exchange) -> None:
            if exchange.method == "OPTIONS":
                await exchange.allow((*methods, "OPTIONS"))
                return
            try:
                if exchange.method not in methods:
                    allow = (*methods, "OPTIONS")
                    raise MethodNotAllowed(exchange.method, exchange.path, allow)
                await self._admit(exchange)
                shown = orjson.dumps(await page(exchange))
            except rpc.Error as failed:
                await exchange.fail(failed, failures.aip193)
            else:
                await exchange.reply(200, shown, headers=[(b"cache-control", b"no-store")])

        return serve

    async def _admit(self, exchange: Exchange) -> None:
        await self._calls.require(exchange, SCOPE)

    async def _list(self, exchange: Exchange) -> Json:
        del exchange
        held = dict(self._holds.known)
        shown = [
            _shown(state, held.get((state.agent, state.method)))
            for state in self._breakers.snapshot()
        ]
        return {"breakers": sorted(shown, key=lambda one: (one["agent"], one["method"]))}

    async def _hold(self, exchange: Exchange) -> Json:
        body = await self._calls.read(exchange)
        exchange.require_json(body)
        asked = _object(body)
        agent, method, state = (_text(asked, name) for name in ("agent", "method", "state"))
        if state not in _STATES:
            raise rpc.InvalidArgument(f"must be one of {', '.join(_STATES)}", field="state")
        path = self._path(agent, method)
        assert exchange.call is not None
        assert exchange.call.identity is not None
        by = exchange.call.identity.subject
        if state == "auto":
            await self._holds.release(agent, path, by)
        elif state == "open":
            await self._holds.hold(agent, path, "open", by)
        else:
            await self._holds.hold(agent, path, "closed", by)
        return {"agent": agent, "method": path[1:], "hold": state}

    def _path(self, agent: str, name: str) -> str:
        """The path of a method by its name, which may be "Method", "package.Service/Method" or a path."""
        paths = [p for p, method in self._catalog.methods.items() if method.agent.name == agent]
        found = [p for p in paths if name in {p, p[1:], p.rpartition("/")[2]}]
        if len(found) == 1:
            return found[0]
        # What is held of an agent that is gone can still be let go.
        gone = [p for a, p in self._holds.known if a == agent and name in {p, p[1:]}]
        if not found and gone:
            return gone[0]
        text = "several services have it; name one" if found else f"{agent} has no such method"
        raise rpc.InvalidArgument(text, field="method")


def _shown(state: CircuitState, hold: Hold | None) -> Json:
    return {
        "agent": state.agent,
        "method": state.method[1:],
        "state": state.state,
        "hold": hold.state if hold else "auto",
        "heldBy": hold.by if hold else "",
        "heldAt": hold.at.isoformat() if hold else None,
        "calls": state.calls,
        "failures": state.failures,
        "retryAfter": f"{state.retry_after.total_seconds():.3f}s",
        "history": [_change(each) for each in state.history],
    }


def _change(transition: Transition) -> Json:
    return {
        "at": transition.at.isoformat(),
        "from": transition.previous,
        "to": transition.state,
        "calls": transition.calls,
        "failures": transition.failures,
        "held": transition.held,
    }


def _object(body: bytes) -> Json:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as wrong:
        raise rpc.InvalidArgument("is not JSON", field="body") from wrong
    if not isinstance(found, dict):
        raise rpc.InvalidArgument("must be an object", field="body")
    return found


def _text(asked: Json, name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not value:
        raise rpc.InvalidArgument("must be a string", field=name)
    return value
