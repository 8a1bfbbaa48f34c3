"""Redis or Valkey: its version, whether it keeps what it accepts, and whether it has room."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from weft import rpc
from weft.cli.doctor.model import Finding, fail, ok, warn

_OLDEST = 7  # functions
_PATIENCE = timedelta(seconds=3)
_FULL = 0.8  # of maxmemory
_MIB = 1024**2


async def look(url: str) -> list[Finding]:
    """What there is to know of a server, or of each primary of several.

    Args:
        url: of it; empty: there is none.
    """
    from redis import RedisError

    from weft.broker.redis import errors
    from weft.broker.redis.url import parse
    from weft.cli import primaries

    away = (
        "No message is accepted or delivered, and gateways share no limits.",
        "Start it, or say where it is: WEFT_REDIS_URL. `weft up` brings its own.",
    )
    if not url:
        return [fail("redis", "none runs on this data folder, and none is set", *away)]
    found: list[Finding] = []
    try:
        async with asyncio.timeout(_PATIENCE.total_seconds() * 2):
            where = parse(url)
            servers = await primaries.of(where)
            for server in servers:
                async with primaries.client(server, where, _PATIENCE) as client:
                    judgements: Iterable[Finding] = judged(*await _asked(client))
                if len(servers) > 1:
                    judgements = (_at(server.address, finding) for finding in judgements)
                found += judgements
    except (OSError, ValueError, RedisError, rpc.Error, errors.ReplyError) as failed:
        found.append(fail("redis", (str(failed) or type(failed).__name__).splitlines()[0], *away))
    return found


def _at(address: object, finding: Finding) -> Finding:
    return replace(finding, check=f"{finding.check} at {address}")


async def _asked(client: Any) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """What a server says of itself, and how it is set."""
    from redis import ResponseError

    info: Mapping[str, Any] = await client.info()
    settings = {
        "appendonly": "yes" if info.get("aof_enabled") else "no",
        "appendfsync": "",  # not told
        "save": "",
        "maxmemory": str(info["maxmemory"]),
        "maxmemory-policy": str(info["maxmemory_policy"]),
    }
    for name in tuple(settings):
        with contextlib.suppress(ResponseError):  # managed servers do not let it be asked
            settings |= _text(await client.config_get(name))
    return info, settings


def judged(info: Mapping[str, Any], settings: Mapping[str, str]) -> Iterator[Finding]:
    """What the answers of INFO and CONFIG GET mean."""
    name = "valkey" if "valkey_version" in info else "redis"
    version = str(info[f"{name}_version"])
    if int(version.partition(".")[0]) < _OLDEST:
        do = f"Update it to {_OLDEST} or newer, or use Valkey."
        yield fail("redis", f"{name} {version}", "The broker's functions need a newer one.", do)
    else:
        yield ok("redis", f"{name} {version}")
    if info.get("role") != "master":
        do = "Name the primary: WEFT_REDIS_URL."
        yield fail("redis role", "it is a replica", "Nothing can be written.", do)
    yield from _persistence(info, settings)
    yield _eviction(settings)
    yield _memory(info, settings)


def _persistence(info: Mapping[str, Any], settings: Mapping[str, str]) -> Iterator[Finding]:
    check = "redis persistence"
    do = "CONFIG SET appendonly yes, appendfsync always; and the same in its configuration file."
    if settings["appendonly"] != "yes":
        kept = f"snapshots by {settings['save']!r}" if settings["save"] else "nothing on disk"
        why = "When it ends, messages are gone whose senders were told that they were accepted."
        yield fail(check, f"appendonly is off: {kept}", why, do)
    elif not settings["appendfsync"]:
        why = "Unless every write is on disk before its answer, accepted messages can be lost when it ends."
        yield warn(check, "it does not tell its appendfsync (CONFIG)", why, "Ask its provider.")
    elif settings["appendfsync"] != "always":
        why = "Up to a second of accepted messages is lost even when it is merely killed."
        yield warn(check, f"appendfsync is {settings['appendfsync']}", why, do)
    else:
        yield ok(check, "every write is on disk before its answer")
    for field in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"):
        if info.get(field, "ok") != "ok":
            why = "It cannot write to disk, and refuses writes or loses them."
            yield fail(f"redis {field}", str(info[field]), why, "Look at its log and at the disk.")


def _eviction(settings: Mapping[str, str]) -> Finding:
    check, policy = "redis eviction", settings["maxmemory-policy"]
    if policy == "noeviction" or settings["maxmemory"] == "0":
        return ok(check, f"{policy}, maxmemory {_size(settings['maxmemory'])}")
    why = "When memory is full it throws messages away, and nobody is told."
    return fail(check, policy, why, "CONFIG SET maxmemory-policy noeviction")


def _memory(info: Mapping[str, Any], settings: Mapping[str, str]) -> Finding:
    used, most = int(info["used_memory"]), int(settings["maxmemory"])
    check = "redis memory"
    if not most:
        return ok(check, f"{used / _MIB:.0f} MiB, no limit")
    what = f"{used / _MIB:.0f} of {most / _MIB:.0f} MiB"
    if used < most * _FULL:
        return ok(check, what)
    why = "At the limit publishes are refused."
    return warn(check, what, why, "Raise maxmemory, or look at what waits: `weft queues`.")


def _size(text: str) -> str:
    return "unlimited" if text == "0" else f"{int(text) / _MIB:.0f} MiB"


def _text(found: Mapping[Any, Any]) -> dict[str, str]:
    return {
        (name.decode() if isinstance(name, bytes) else name): (
            value.decode() if isinstance(value, bytes) else str(value)
        )
        for name, value in found.items()
    }
