"""What a process shows by HTTP, for Prometheus: /metrics, and JSON pages of its own beside it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import orjson
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

Page = Callable[[], Any]
"""Makes what a page says, in a thread of the server's; what orjson can write."""


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """A line for each scrape helps nobody."""


class _Server6(ThreadingWSGIServer):
    address_family = socket.AF_INET6


@contextlib.asynccontextmanager
async def served(
    address: str, registry: CollectorRegistry, pages: Mapping[str, Page]
) -> AsyncIterator[str]:
    """Serves metrics and pages, and gives the address with the real port.

    Whoever accepts OpenMetrics gets it, with exemplars.

    Args:
        address: "host:port", port 0 for any.
        registry: the metrics.
        pages: by path; looked up for each request, so pages may come later.

    Raises:
        OSError: the address cannot be bound.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    server = make_server(
        host,
        int(port),
        _app(registry, pages),
        _Server6 if ":" in host else ThreadingWSGIServer,
        handler_class=_Silent,
    )
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"{f'[{host}]' if ':' in host else host}:{server.server_port}"
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)


def _app(registry: CollectorRegistry, pages: Mapping[str, Page]) -> Callable[..., Iterable[bytes]]:
    metrics: Any = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        page = pages.get(environ["PATH_INFO"])
        if page is None:
            answer: Iterable[bytes] = metrics(environ, start_response)
            return answer
        try:
            body, status = orjson.dumps(page()), "200 OK"
        except TimeoutError:
            body, status = b'{"error":"the process is busy"}', "503 Service Unavailable"
        start_response(
            status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        )
        return [body]

    return app
