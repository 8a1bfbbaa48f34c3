"""Gateway processes that are killed, and Redis beside them: short forms of `keys.py` and `limits.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.broker.servers import Server
from tests.faults import keys, limits

from weft import embedded


async def test_a_key_is_executed_once_though_a_gateway_is_killed(
    fresh_xds: None, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    servers = embedded.Endpoints(database_url=database_url, redis_url=redis_url)
    outcome = await keys.play(tmp_path, servers, requests=240, keys=24, kills=1, settled=False)
    assert outcome.ok, outcome
    assert (outcome.kills, outcome.requests) == (1, 240)
    assert outcome.lost > 0
    assert 18 <= outcome.executed <= 24


async def test_gateways_share_a_limit_until_redis_is_killed(
    fresh_xds: None,
    database_url: str,
    redis_server: Callable[..., Server],
    tmp_path: Path,
) -> None:
    redis = redis_server()
    await redis.start()
    outcome = await limits.play(
        tmp_path, database_url, redis, limit=40, burst=8, seconds=2, load=320, back=False
    )
    shared, alone = outcome.phases
    assert not outcome.odd
    # A machine that is busy asks for less than is let in: what counts is that no more is.
    assert 0.5 * 40 <= shared.per_second <= 40 * 1.05 + 8 / shared.seconds, shared
    assert all(shared.by_gateway)
    assert alone.per_second <= 80 * 1.05 + 16 / alone.seconds, alone
    assert alone.per_second > shared.per_second, outcome
