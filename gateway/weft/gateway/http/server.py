"""The HTTP server of the gateway: one ASGI application on uvicorn's parser and cycle, in the running loop.

uvicorn's own Server is left out: it installs signal handlers, exits the process when an address is taken,
polls ten times a second and does not wait for what it cancels. The loop is the caller's; start the process
with `asyncio.Runner(loop_factory=uvloop.new_event_loop)` for the speed that was measured.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import resource
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from datetime import timedelta
from email.utils import formatdate
from types import TracebackType
from typing import Any, Self

from uvicorn.config import Config
from uvicorn.server import ServerState

from weft import rpc
from weft.gateway.http.exchange import ALWAYS
from weft.gateway.http.protocol import BoundedProtocol
from weft.gateway.http.settings import HttpSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_log = logging.getLogger("weft.gateway")

_GRACE = timedelta(seconds=10)
_OTHER_FILES = 256  # what this process opens beside connections
_AFTER_CANCEL = 1.0  # seconds a cancelled request has to answer


class HttpServer:
    """Serves one ASGI application over HTTP/1.1 and WebSocket.

    Args:
        app: an ASGI 3 application; it gets `http` scopes, and `websocket` scopes beneath `settings.sockets`
            (no lifespan).
    """

    def __init__(self, app: Application, settings: HttpSettings | None = None) -> None:
        given = settings or HttpSettings()
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if allowed != resource.RLIM_INFINITY:
            # A connection that cannot be accepted would be told nothing, and keep others waiting.
            most = max(1, allowed - _OTHER_FILES)
            given = replace(given, connections=min(given.connections, most))
        self._settings = given
        self._config = Config(
            app,
            http="httptools",
            ws="none",  # BoundedProtocol makes its own
            ws_max_size=self._settings.max_message,
            ws_ping_interval=self._settings.ping.total_seconds(),
            ws_ping_timeout=self._settings.ping.total_seconds(),
            ws_per_message_deflate=False,
            loop="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=math.ceil(self._settings.keep_alive.total_seconds()),
        )
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._date: asyncio.TimerHandle | None = None
        self._lost = asyncio.Event()
        self._address = ""
        self._always = list(ALWAYS)
        if self._settings.hsts:
            seconds = f"max-age={self._settings.hsts.total_seconds():.0f}"
            self._always.append((b"strict-transport-security", seconds.encode()))

    @property
    def address(self) -> str:
        """Where it listens, `host:port` with the real port; empty before `start`."""
        return self._address

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._state.connections)

    async def start(self) -> None:
        """Binds and serves.

        Raises:
            rpc.AddressInUseError: the address is taken.
        """
        loop = asyncio.get_running_loop()
        settings = self._settings
        try:
            self._server = await loop.create_server(
                lambda: BoundedProtocol(self._config, self._state, settings, self._lost.set),
                host=settings.host,
                port=settings.port,
                ssl=settings.tls,
                backlog=settings.backlog,
            )
        except OSError as failed:
            if failed.errno == errno.EADDRINUSE:
                taken = f"{settings.host}:{settings.port} is taken by another process"
                raise rpc.AddressInUseError(taken) from failed
            raise
        host, port = self._server.sockets[0].getsockname()[:2]
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._tell_date()

    async def stop(self, grace: timedelta = _GRACE) -> None:
        """Takes no more connections, lets running requests finish within `grace`, then cancels them."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(grace.total_seconds()):
                await self._drained()
        except TimeoutError:
            await self._cut()
        await self._server.wait_closed()
        if self._date is not None:
            self._date.cancel()
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        failed: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _drained(self) -> None:
        while self._state.connections or self._state.tasks:
            if self._state.tasks:
                await asyncio.wait(self._state.tasks)
                await asyncio.sleep(0)  # let the tasks' own callbacks take them off the set
            else:
                self._lost.clear()
                await self._lost.wait()

    async def _cut(self) -> None:
        tasks = set(self._state.tasks)
        _log.warning("requests cut at the end of the grace period", extra={"requests": len(tasks)})
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_AFTER_CANCEL)
        for connection in list(self._state.connections):
            connection.transport.abort()
        while self._state.connections:
            self._lost.clear()
            await self._lost.wait()

    def _tell_date(self) -> None:
        # RFC 9110 6.6.1; uvicorn puts these headers before the application's own.
        date = (b"date", formatdate(time.time(), usegmt=True).encode())
        self._state.default_headers = [date, *self._always]
        self._date = asyncio.get_running_loop().call_later(1, self._tell_date)
