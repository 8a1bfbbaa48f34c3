"""What calls of Redis do when whoever asks is cancelled, or the server is silent."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path

import pytest
from redis.exceptions import RedisError
from tests.ports import free_port

from weft import embedded

_TURNS = 40  # of the loop: more than connecting and a command take


async def test_a_cancellation_is_never_lost(redis_url: str) -> None:
    lost = []
    for turns in [turns for turns in range(_TURNS) for _ in range(10)]:
        async with embedded.redis_client(redis_url) as client:
            asking = asyncio.ensure_future(client.ping())
            for _ in range(turns):
                await asyncio.sleep(0)
            if asking.cancel():
                with contextlib.suppress(asyncio.CancelledError):
                    await asking
                    lost.append(turns)
    assert not lost


@pytest.mark.parametrize("scheme", ["redis", "unix"])
async def test_a_silent_server_is_waited_for_as_long_as_was_said(
    scheme: str, short_folder: Path
) -> None:
    port, path = free_port(), short_folder / "s"
    hold = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        writer.close()

    server = (
        await asyncio.start_server(silent, "127.0.0.1", port)
        if scheme == "redis"
        else await asyncio.start_unix_server(silent, path)
    )
    where = f"127.0.0.1:{port}" if scheme == "redis" else str(path)
    async with server:
        client = embedded.redis_client(f"{scheme}://{where}", timeout=timedelta(seconds=0.2))
        with pytest.raises(RedisError, match=r"silent for 0\.2 s"):
            async with asyncio.timeout(10):
                await client.ping()
        hold.set()
        await client.aclose()
