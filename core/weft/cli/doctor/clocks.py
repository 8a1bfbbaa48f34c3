"""Whether this machine, PostgreSQL and Redis tell the same time."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta

from weft.cli.doctor.model import Finding, fail, ok, warn

_PATIENCE = 3.0  # seconds
_OFF, _FAR_OFF = 1.0, 30.0  # seconds


async def look(database_url: str, redis_url: str) -> list[Finding]:
    """Compares clocks with those that answer; who does not is told elsewhere."""
    found = []
    with contextlib.suppress(Exception):
        found.append(compared("clock of postgres", await _postgres(database_url)))
    with contextlib.suppress(Exception):
        found.append(compared("clock of redis", await _redis(redis_url)))
    return found


def compared(check: str, ahead: float) -> Finding:
    """What it means that a clock is so many seconds ahead of this machine's."""
    if abs(ahead) < _OFF:
        return ok(check, "as this machine's")
    way = "ahead of" if ahead > 0 else "behind"
    what = f"{abs(ahead):.1f} s {way} this machine's"
    why = "Leases, tokens, delays and certificates are judged by clocks: what one calls valid has ended for another."
    do = "Let all machines follow the same time servers (chrony, systemd-timesyncd)."
    return (fail if abs(ahead) >= _FAR_OFF else warn)(check, what, why, do)


async def _postgres(url: str) -> float:
    import asyncpg

    connection = await asyncpg.connect(url, timeout=_PATIENCE, command_timeout=_PATIENCE)
    try:
        before = time.time()
        theirs = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        return float(theirs) - (before + time.time()) / 2
    finally:
        await connection.close(timeout=_PATIENCE)


async def _redis(url: str) -> float:
    from weft import embedded

    async with embedded.redis_client(url, timeout=timedelta(seconds=_PATIENCE)) as client:
        before = time.time()
        seconds, microseconds = await client.time()
        return float(seconds) + microseconds / 1e6 - (before + time.time()) / 2
