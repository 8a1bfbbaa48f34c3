"""What was made of a tenant's documents and is kept in Redis for a while. The only place that touches these keys.

Whatever of a tenant's documents changes, all of it goes: nothing of a deleted document outlives its deletion. A change
says so before it begins and after it is done; what was begun before it is done is not kept. Where the process that
changes dies in between, what others keep meanwhile lives for as long as it would have, a minute.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import quote

import redis.asyncio
from redis.exceptions import RedisError

from weft import rpc

_MOST = 1_000  # things kept of a tenant
_LIFE = timedelta(seconds=60)
_CHANGE = timedelta(seconds=120)  # longest that one is believed to be under way
_COUNTER = timedelta(days=1)
# KEYS: things, changes under way, count of changes. ARGV: the count when it was begun, name, value, most, seconds.
_PUT = """
if redis.call('EXISTS', KEYS[2]) == 1 or (redis.call('GET', KEYS[3]) or '0') ~= ARGV[1] then return 0 end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
if redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[5]) end
return 1
"""


class CacheUnavailable(rpc.Unavailable):
    """What is cached of the documents cannot be dropped now, so they cannot be changed; try again."""

    reason = "CACHE_UNAVAILABLE"


class Derived:
    """What was made of documents.

    Args:
        client: of Redis, with replies in bytes.
        life: how long things are kept at most.
    """

    def __init__(self, client: redis.asyncio.Redis, *, life: timedelta = _LIFE) -> None:
        self._client = client
        self._life = max(1, round(life.total_seconds()))
        self._put = client.register_script(_PUT)

    async def get(self, tenant: str, name: str) -> tuple[bytes | None, str]:
        """What is kept under a name, None: nothing; and what `put` has to be told. Where Redis is away: nothing."""
        things, _, count = _keys(tenant)
        try:
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.hget(things, name)
                pipeline.get(count)
                kept, changes = await pipeline.execute()
        except (RedisError, OSError):
            return None, ""
        return kept, (changes or b"0").decode()

    async def put(self, tenant: str, name: str, value: bytes, begun: str) -> bool:
        """Keeps something, and says whether: not if anything changed since `get` said `begun`, nor without Redis."""
        if not begun:
            return False
        try:
            return bool(
                await self._put(keys=_keys(tenant), args=[begun, name, value, _MOST, self._life])
            )
        except (RedisError, OSError):
            return False

    @asynccontextmanager
    async def changing(self, tenant: str) -> AsyncIterator[None]:
        """While documents change: before and after it, all that was made of them goes.

        Raises:
            CacheUnavailable: it cannot go, so nothing may change; or it could not, after the change.
        """
        things, changing, count = _keys(tenant)
        try:
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.set(changing, b"1", ex=_CHANGE)
                pipeline.delete(things)
                await pipeline.execute()
        except (RedisError, OSError) as failed:
            raise CacheUnavailable from failed
        try:
            yield
        finally:
            try:
                async with self._client.pipeline(transaction=True) as pipeline:
                    pipeline.incr(count)
                    pipeline.expire(count, _COUNTER)
                    pipeline.delete(things, changing)
                    await pipeline.execute()
            except (RedisError, OSError) as failed:
                raise CacheUnavailable from failed


def _keys(tenant: str) -> tuple[str, str, str]:
    # In braces: the three are on one node of a cluster.
    mine = f"weft:memory:{{knowledge:{quote(tenant, safe='')}}}"
    return f"{mine}:derived", f"{mine}:changing", f"{mine}:changes"
