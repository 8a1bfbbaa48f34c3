"""What kind of server is at the other end, and whether it can be trusted with messages."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from typing import Any

from weft.broker.redis.connection import Connection
from weft.broker.redis.errors import StoreRefuses, StoreUnfit

_LOG = logging.getLogger("weft.broker")
_OLDEST = (7, 0)
_PROBE_MS = 5000
_SHORTEST_TRUTH = 0.9  # seconds
_SYNCS_ON_REWRITE = [b"no-appendfsync-on-rewrite", b"no"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A server as it was when last asked.

    Attributes:
        version: Valkey says 7.2.4 here, whatever its own version is.
        build: vendor and its own version.
        replicas: how many are connected and in step.
        appends: it writes a file at all.
        syncs_first: its file is on disk before any reply (`appendfsync always`).
        waits_for_disk: it can tell when its file is on disk (WAITAOF: Redis 7.2, Valkey); see `tells_truth`.
        eviction: `maxmemory-policy`.
    """

    version: str
    build: str
    cluster: bool
    primary: bool
    replicas: int
    appends: bool
    syncs_first: bool
    waits_for_disk: bool
    eviction: str

    @property
    def durable(self) -> bool:
        """Whether it can tell that something is on disk."""
        return self.syncs_first or self.waits_for_disk


async def inspect(connection: Connection) -> Facts:
    """Asks a server what it is. What an account may not ask is taken to be at its worst."""
    asked: tuple[asyncio.Future[Any], ...] = (
        connection.send("INFO"),
        connection.send("CONFIG", "GET", "appendfsync"),
        connection.send("CONFIG", "GET", "no-appendfsync-on-rewrite"),
        connection.send("COMMAND", "INFO", "WAITAOF"),
    )
    said, *rest = await asyncio.gather(*asked, return_exceptions=True)
    if isinstance(said, BaseException):
        raise said
    info = _parse(said)
    if info.get("loading") == "1":  # it says `aof_enabled:0` until it has loaded
        raise StoreRefuses("LOADING Redis is loading the dataset in memory")
    always, rewrite, waitaof = (None if isinstance(it, BaseException) else it for it in rest)
    syncs_first = always == [b"appendfsync", b"always"] and rewrite == _SYNCS_ON_REWRITE
    valkey = info.get("valkey_version", "")
    appends = info.get("aof_enabled") == "1"
    return Facts(
        version=info.get("redis_version", ""),
        build=f"Valkey {valkey}" if valkey else f"Redis {info.get('redis_version')}",
        cluster=info.get("cluster_enabled") == "1",
        primary=info.get("role") == "master",
        replicas=sum(
            "state=online" in value for key, value in info.items() if re.fullmatch(r"slave\d+", key)
        ),
        appends=appends,
        syncs_first=appends and syncs_first,
        waits_for_disk=appends and bool(waitaof and any(waitaof)),
        eviction=info.get("maxmemory_policy", ""),
    )


async def tells_truth(durable: Connection, other: Connection, mark: str) -> bool:
    """Whether WAITAOF waits for the disk. It may return too early: https://github.com/redis/redis/pull/13793.

    With `everysec` a server begins to sync a second after it last began. So two writes, each made after the one before
    was said to be on disk, take a second at least, if that is true. `other` is kept busy meanwhile, since a server
    notices the end of a sync when something happens.
    """
    clock = asyncio.get_running_loop().time
    begun = clock()
    for number in range(2):
        written = durable.send("SET", mark, number)
        synced = durable.send("WAITAOF", 1, 0, _PROBE_MS)
        while not synced.done():
            await other.send("PING")
        await written
        if not (await synced)[0]:
            return False
    return clock() - begun >= _SHORTEST_TRUTH


def check(facts: Facts, name: str, *, cluster: bool) -> None:
    """Refuses what cannot work, and says loudly what may lose messages.

    Raises:
        StoreUnfit: it is too old, or part of a cluster when that was not said.
        StoreRefuses: it is a replica.
    """
    if _numbers(facts.version) < _OLDEST:
        raise StoreUnfit(
            f"{name} is Redis {facts.version}; Weft needs Redis 7.0 or newer, or Valkey."
        )
    if facts.cluster and not cluster:
        raise StoreUnfit(f"{name} is part of a cluster; its URL begins with redis-cluster://")
    if not facts.primary:
        raise StoreRefuses(f"READONLY {name} is a replica")
    if facts.eviction not in {"", "noeviction"}:
        _LOG.error(
            "%s has maxmemory-policy %s: when its memory is full it DELETES MESSAGES AND QUEUES. "
            "Set `maxmemory-policy noeviction`",
            name,
            facts.eviction,
        )
    if not facts.appends:
        _LOG.warning("%s has `appendonly no`: its messages end with it. Set `appendonly yes`", name)
    elif not facts.durable:
        _LOG.error(
            "%s (%s) cannot tell when something is on disk: durable messages are refused. Set `appendfsync always`",
            *(name, facts.build),
        )


def _parse(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode().splitlines())
    return {key: value for key, colon, value in lines if colon}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
