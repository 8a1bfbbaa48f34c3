"""What the OpenAPI document says is what happens: schemathesis, an API tester nobody here wrote, finds nothing.

It makes requests from the document, good and bad, and holds the answers against it: no 5xx, no answer of another form,
bad requests refused, good ones accepted, 405 and 415 where they belong.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest

from weft import rpc
from weft.agents import Host, support
from weft.agents.echo import Echo
from weft.gateway import Gateway
from weft.registry import Registry
from weft.rpc.testing import wait_until

# Not the mailbox: without a broker it takes no mail.
FLEET = [
    f"support-{name}"
    for name in ("supervisor", "triage", "research", "solution", "quality", "escalation")
]
HERE = Path(__file__).parent
CONFIG = HERE / "schemathesis.toml"
HOOKS = HERE / "hooks.py"
EXAMPLES = 60
TIME = timedelta(minutes=10)  # for the whole run, which takes 80 to 120 s on an idle machine


class WillingEcho(Echo):
    """Neither fails nor waits when it is asked to: a failure that was asked for is no finding."""

    async def Say(self, request: Any, context: Any) -> Any:
        request.ClearField("fail_with")
        request.ClearField("delay")
        return await super().Say(request, context)

    async def Repeat(self, request: Any, context: Any) -> AsyncIterator[Any]:
        request.ClearField("fail_with")
        request.ClearField("pause")
        request.count = min(max(request.count, 0), 5)
        async for answer in super().Repeat(request, context):
            yield answer


class LaterStub:
    """A stub of an agent whose host has not started yet."""

    def __init__(self, stub: Any, host: Host) -> None:
        self._stub = stub
        self._host = host

    @cached_property
    def _made(self) -> Any:
        return self._stub(rpc.Channel(self._host.server.address))

    def __getattr__(self, skill: str) -> Any:
        return getattr(self._made, skill)


@pytest.fixture
async def gateway(fresh_xds: None, database_url: str, redis_url: str) -> AsyncIterator[str]:
    """The URL of a gateway in front of the fleet."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        registry = await enter(
            Registry(database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0))
        )
        host = await enter(Host(registry=registry.address))
        servicers = await enter(
            support.fleet(
                database_url=database_url,
                redis_url=redis_url,
                stub=lambda stub: LaterStub(stub, host),
                only=FLEET,
            )
        )
        for servicer in (WillingEcho("one"), *servicers):
            host.add(servicer)
        await host.start()
        made = await enter(
            Gateway(
                registry=registry.address,
                database_url=database_url,
                listen="127.0.0.1:0",
                grpc_listen="127.0.0.1:0",
            )
        )
        async with httpx.AsyncClient(base_url=made.url, timeout=20) as http:

            async def served() -> bool:
                listed = (await http.get("/agents")).json()["agents"]
                return {"echo", *FLEET} <= {each["name"] for each in listed if each["inService"]}

            await wait_until(served)
        yield made.url


@pytest.mark.timeout(TIME.total_seconds() + 30)
async def test_nothing_is_found(gateway: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("st")), "--config-file", str(CONFIG)),
        *("run", f"{gateway}/openapi.json"),
        *("--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1"),
        *("--request-timeout", "30", "--warnings", "off", "--continue-on-failure"),
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS)},
        cwd=tmp_path,  # where it looks for a configuration and keeps what it remembers
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(TIME.total_seconds()):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, told.decode()
