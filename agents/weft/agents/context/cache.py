"""What providers said, kept for a while: one hash in Redis for each customer, which can be forgotten at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import orjson
from redis.exceptions import RedisError

from weft import rpc
from weft.agents.context.model import Fact

if TYPE_CHECKING:
    import redis.asyncio

_MOST = 200  # entries of a customer
_LIFE = timedelta(hours=24)
# KEYS: entries. ARGV: most, seconds, then names and values.
_PUT = """
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[1]) then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""


class CacheUnavailable(rpc.Unavailable):
    """What is cached of the customer cannot be reached now; try again."""

    reason = "CACHE_UNAVAILABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a provider said."""

    facts: tuple[Fact, ...]
    at: datetime
    """When it said so."""

    @property
    def age(self) -> timedelta:
        """How long ago that was."""
        return datetime.now(UTC) - self.at


class Cache(Protocol):
    """Keeps what providers said. Reading and keeping never fail: what cannot be found is not there."""

    async def get(self, tenant: str, customer: str) -> Mapping[str, Entry]:
        """All that is kept about a customer, by name."""
        ...

    async def put(self, tenant: str, customer: str, entries: Mapping[str, Entry]) -> None:
        """Keeps what was said."""
        ...

    async def forget(self, tenant: str, customer: str) -> None:
        """Deletes all that is kept about a customer.

        Raises:
            CacheUnavailable: it cannot be deleted now.
        """
        ...


class RedisCache:
    """Keeps it in Redis.

    Args:
        client: with replies in bytes.
        life: how long it is kept after the last that was said about a customer.
    """

    def __init__(self, client: redis.asyncio.Redis, *, life: timedelta = _LIFE) -> None:
        self._client = client
        self._life = max(1, round(life.total_seconds()))
        self._put = client.register_script(_PUT)

    async def get(self, tenant: str, customer: str) -> Mapping[str, Entry]:
        """All that is kept about a customer, by name."""
        try:
            kept = await self._client.hgetall(_key(tenant, customer))
        except (RedisError, OSError):
            return {}
        return {
            name.decode(): _entry(orjson.loads(value))
            for name, value in kept.items()
            if isinstance(name, bytes)
        }

    async def put(self, tenant: str, customer: str, entries: Mapping[str, Entry]) -> None:
        """Keeps what was said."""
        if not entries:
            return
        said = [part for name, entry in entries.items() for part in (name, orjson.dumps(entry))]
        try:
            await self._put(keys=[_key(tenant, customer)], args=[_MOST, self._life, *said])
        except (RedisError, OSError):
            return

    async def forget(self, tenant: str, customer: str) -> None:
        """Deletes all that is kept about a customer.

        Raises:
            CacheUnavailable: it cannot be deleted now.
        """
        try:
            await self._client.delete(_key(tenant, customer))
        except (RedisError, OSError) as failed:
            raise CacheUnavailable from failed


def _key(tenant: str, customer: str) -> str:
    return f"weft:context:{quote(tenant, safe='')}:{quote(customer, safe='')}"


def _entry(read: dict[str, Any]) -> Entry:
    return Entry(facts=tuple(map(_fact, read["facts"])), at=datetime.fromisoformat(read["at"]))


def _fact(read: dict[str, Any]) -> Fact:
    at = read.pop("at")
    return Fact(at=datetime.fromisoformat(at) if at else None, **read)
