"""Single point of control for how this product talks to a Redis-protocol server."""

from __future__ import annotations

from datetime import timedelta

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

_TIMEOUT = timedelta(seconds=15)
_CONNECT_TIMEOUT = timedelta(seconds=5)


def redis_client(url: str, *, timeout: timedelta = _TIMEOUT) -> redis.asyncio.Redis:
    """A client whose calls take effect at most once, with replies in bytes.

    redis-py by itself sends a command again when its answer is late, ten times, so that one XADD
    can store two entries: here nothing is sent twice. A connection found dead before use is
    opened anew. `timeout` is the longest silence within a call, so a blocking read (`BLOCK`) must
    ask for less. Close it by `aclose()`.
    """
    return redis.asyncio.Redis.from_url(
        url,
        socket_timeout=timeout.total_seconds(),
        socket_connect_timeout=_CONNECT_TIMEOUT.total_seconds(),
        retry=Retry(NoBackoff(), 0),
    )
