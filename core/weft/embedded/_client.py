"""Single point of control for how this product talks to a Redis-protocol server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

_TIMEOUT = timedelta(seconds=15)
_CONNECT_TIMEOUT = timedelta(seconds=5)


class _Cancellable(AbstractConnection):
    # redis-py writes under asyncio.wait_for when it has a `socket_timeout`. Before Python 3.12 that takes a
    # cancellation which comes as the write ends for none (python/cpython#86296): whoever was cancelled goes on. So it
    # gets no `socket_timeout`, and time is kept here.

    def __init__(self, *, silence: float, **settings: Any) -> None:
        super().__init__(**settings)
        self._silence = silence

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        async with self._in_time():
            await super().send_packed_command(*args, **kwargs)

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) > 1 or kwargs.get("timeout") is not None:
            return await super().read_response(*args, **kwargs)
        async with self._in_time():
            return await super().read_response(*args, **kwargs)

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._silence):
                yield
        except TimeoutError:
            raise redis.TimeoutError(f"The server was silent for {self._silence} s.") from None


class _Tcp(_Cancellable, redis.asyncio.Connection):
    pass


class _Tls(_Cancellable, redis.asyncio.SSLConnection):
    pass


class _Unix(_Cancellable, redis.asyncio.UnixDomainSocketConnection):
    pass


_CANCELLABLE: dict[type[AbstractConnection], Any] = {
    redis.asyncio.Connection: _Tcp,
    redis.asyncio.SSLConnection: _Tls,
    redis.asyncio.UnixDomainSocketConnection: _Unix,
}


def redis_client(url: str, *, timeout: timedelta = _TIMEOUT) -> redis.asyncio.Redis:
    """A client whose calls take effect at most once, with replies in bytes.

    redis-py by itself sends a command again when its answer is late, ten times, so that one XADD
    can store two entries: here nothing is sent twice. A connection found dead before use is
    opened anew. `timeout` is the longest silence within a call, so a blocking read (`BLOCK`) must
    ask for less. Close it by `aclose()`.
    """
    pool = redis.asyncio.ConnectionPool.from_url(
        url,
        silence=timeout.total_seconds(),
        socket_timeout=None,
        socket_connect_timeout=_CONNECT_TIMEOUT.total_seconds(),
        retry=Retry(NoBackoff(), 0),
    )
    pool.connection_class = _CANCELLABLE[pool.connection_class]
    return redis.asyncio.Redis.from_pool(pool)
