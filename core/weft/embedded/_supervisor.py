"""Keeps one server alive while its launcher lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Self

from weft.embedded._child import Child
from weft.embedded._errors import Error, ServerLost
from weft.embedded._server import Progress, Server, report

_LOG = logging.getLogger("weft.embedded")
_MOST_RESTARTS = 5
_WINDOW = 60.0  # seconds
_FIRST_PAUSE = 0.1  # seconds, doubled with each restart in the window: 0.1 to 1.6


class Supervisor:
    """Async context manager: the server is up within it; dead, it is started on the same socket.

    After five restarts within a minute `lost` is called with ServerLost, once.
    """

    def __init__(
        self, server: Server, *, lost: Callable[[Error], None], progress: Progress | None
    ) -> None:
        self._server = server
        self._lost = lost
        self._progress = progress
        self._child: Child | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._child = await self._server.start()
        report(self._progress, f"{self._server.name}: ready")
        self._watch = asyncio.create_task(self._keep_alive(), name=f"watch {self._server.name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watch is not None
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch
        if self._child is not None:
            await self._server.stop(self._child)

    async def _keep_alive(self) -> None:
        restarts: deque[float] = deque()
        try:
            while self._child is not None:
                how = await self._child.wait()
                await self._child.dispose()
                self._child = None
                await self._restart(how, restarts)
        except ServerLost as failed:
            _LOG.critical("%s", failed)
            self._lost(failed)

    async def _restart(self, how: str, restarts: deque[float]) -> None:
        name = self._server.name
        while self._child is None:
            now = time.monotonic()
            while restarts and restarts[0] <= now - _WINDOW:
                restarts.popleft()
            if len(restarts) >= _MOST_RESTARTS:
                raise ServerLost(
                    f"{name} died {_MOST_RESTARTS + 1} times within a minute, at last by: {how}"
                )
            _LOG.error("%s died (%s); starting it again", name, how)
            report(self._progress, f"{name}: died ({how}), starting it again")
            await asyncio.sleep(_FIRST_PAUSE * 2 ** len(restarts))
            restarts.append(time.monotonic())
            try:
                self._child = await self._server.start()
            except (Error, OSError) as failed:
                how = str(failed)
        report(self._progress, f"{name}: ready again")
