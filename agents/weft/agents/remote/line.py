"""The line to a remote: the session that there is now, for calls that may outlive it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, TypeVar

from weft import rpc

SessionT = TypeVar("SessionT")
ResultT = TypeVar("ResultT")

SESSION_GONE = "REMOTE_SESSION_GONE"
"""Reason of an error by which a call was not made at all: the remote forgot the session."""

_BETWEEN = 2.0  # seconds a call waits for the next session when one has just ended
_RETRY = timedelta(seconds=5)


class Away(rpc.Unavailable):
    """The remote cannot be reached now."""

    reason = "REMOTE_AWAY"


class Line(Generic[SessionT]):
    """The way of calls to a remote.

    Attributes:
        trouble: set when a call found the remote away; whoever keeps the line looks at once.
    """

    def __init__(self) -> None:
        self._session: SessionT | None = None
        self._news = asyncio.Event()
        self.trouble = asyncio.Event()

    @property
    def session(self) -> SessionT | None:
        """The session; None: there is none."""
        return self._session

    @session.setter
    def session(self, session: SessionT | None) -> None:
        self._session = session
        self._news.set()
        self._news = asyncio.Event()

    async def call(self, work: Callable[[SessionT], Awaitable[ResultT]]) -> ResultT:
        """Does something with the session; once more with the next one, where the server forgot the first.

        Raises:
            Away: there is no session.
            rpc.Error: what `work` raises.
        """
        session = await self._next(None)
        try:
            return await work(session)
        except rpc.Unavailable as failed:
            self.trouble.set()
            if failed.reason != SESSION_GONE:
                raise
        # A server that does not know the session did not do what it was asked.
        return await work(await self._next(session))

    async def here(self) -> SessionT:
        """The session, for work that is its caller's to watch over.

        Raises:
            Away: there is none.
        """
        return await self._next(None)

    async def _next(self, former: SessionT | None) -> SessionT:
        try:
            async with asyncio.timeout(_BETWEEN if former is not None else 0.0):
                while self._session is None or self._session is former:
                    await self._news.wait()
        except TimeoutError:
            raise Away(retry_after=_RETRY) from None
        return self._session
