"""What is listened to (ASGI): `/api/v2/alerts` as an Alertmanager has it, for Prometheus; `/webhook` for an Alertmanager."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

from weft import rpc
from weft.alerts.board import Alert, Board, read
from weft.alerts.forms import Form
from weft.alerts.outbox import Outbox

log = logging.getLogger("weft.alerts")

MOST_BODY = 4 * 1024 * 1024  # bytes; Prometheus sends 64 alerts at a time
_LOOKED = 5.0  # seconds
_POSTS = frozenset({"/api/v2/alerts", "/webhook"})
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class App:
    """Takes alerts, and has told what of them is news.

    Args:
        board: what fires.
        outbox: what is told.
        form: how it looks.
    """

    def __init__(self, board: Board, outbox: Outbox, form: Form) -> None:
        self._board = board
        self._outbox = outbox
        self._form = form

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serves a request."""
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        status, answer = await self._answered(scope["method"], scope["path"], receive)
        body = orjson.dumps(answer)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answered(self, method: str, path: str, receive: Receive) -> tuple[int, Any]:
        if path in {"/-/healthy", "/-/ready"}:
            return 200, {"waiting": len(self._outbox)}
        if path == "/api/v2/alerts" and method == "GET":
            return 200, [_shown(alert) for alert in self._board.firing()]
        if path not in _POSTS:
            return 404, {"error": "POST /api/v2/alerts or /webhook"}
        return (405, {"error": "use POST"}) if method != "POST" else await self._taken(receive)

    async def _taken(self, receive: Receive) -> tuple[int, Any]:
        try:
            given = orjson.loads(await _body(receive))
            now = datetime.now(UTC)
            self._tell(self._board.take(read(given, now), now), now)
        except orjson.JSONDecodeError:
            return 400, {"error": "the body is no JSON"}
        except rpc.ResourceExhausted as failed:
            return 413, {"error": failed.message}
        except rpc.InvalidArgument as failed:
            return 400, {"error": failed.message}
        return 200, {}

    def _tell(self, news: Iterable[Alert], now: datetime) -> None:
        for alert in news:
            fires = alert.fires(now)
            log.info(
                "alert", extra={"alert": alert.name, "state": "firing" if fires else "resolved"}
            )
            self._outbox.put(orjson.dumps(self._form(alert, fires)))

    async def run(self) -> None:
        """Ends alerts that nobody tells of any more, until cancelled; for a task of its own."""
        while True:
            await asyncio.sleep(_LOOKED)
            now = datetime.now(UTC)
            self._tell(self._board.lapse(now), now)


def _shown(alert: Alert) -> dict[str, Any]:
    return {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "startsAt": alert.starts.isoformat(),
        "endsAt": alert.ends.isoformat(),
        "generatorURL": alert.url,
        "status": {"state": "active", "silencedBy": [], "inhibitedBy": []},
    }


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise rpc.InvalidArgument("the body ended too soon")
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > MOST_BODY:
            raise rpc.ResourceExhausted(f"the body has more than {MOST_BODY} bytes")
        if not message.get("more_body"):
            return b"".join(parts)
