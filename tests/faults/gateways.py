"""Gateways as processes of their own, which may be killed and started again at the same place."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import grpc
import httpx
from tests.faults.processes import Child, python
from tests.ports import free_port

from weft.rpc.testing import wait_until

_PATIENCE = timedelta(seconds=60)
_CHANNEL = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]


class GatewayChild:
    """A gateway in a process of its own.

    Args:
        log: where its output goes; the name of the file is its own.
        settings: in its environment, beside where it listens.
    """

    def __init__(self, log: Path, settings: Mapping[str, str]) -> None:
        http, grpc_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{http}"
        self.grpc_address = f"127.0.0.1:{grpc_port}"
        environment = {
            "WEFT_GATEWAY_LISTEN": f"127.0.0.1:{http}",
            "WEFT_GATEWAY_GRPC_LISTEN": self.grpc_address,
            "WEFT_GATEWAY_METRICS": "127.0.0.1:0",
            "WEFT_TRACE_SAMPLE": "0",
            **settings,
        }
        self.process = Child(python("weft.cli", "gateway"), log, environment)
        self.http = httpx.AsyncClient(
            base_url=self.url, timeout=20, limits=httpx.Limits(max_connections=None)
        )
        self.channel = grpc.aio.insecure_channel(self.grpc_address, options=_CHANNEL)

    async def serves(self, path: str) -> None:
        """Returns once a GET of this path succeeds; raises RuntimeError when the process ends."""

        async def served() -> bool:
            if not self.process.alive:
                raise RuntimeError(f"the gateway did not start: {self.process.said()}")
            with contextlib.suppress(httpx.HTTPError):
                return (await self.http.get(path)).status_code == 200
            return False

        await wait_until(served, timeout=_PATIENCE)


@contextlib.asynccontextmanager
async def gateways(
    folder: Path, count: int, settings: Mapping[str, str], *, served: str
) -> AsyncIterator[Sequence[GatewayChild]]:
    """So many gateways with the same settings, which serve the path `served`; killed in the end."""
    made = [GatewayChild(folder / f"gateway-{n}.log", settings) for n in range(count)]
    try:
        for each in made:
            each.process.start()
        for each in made:
            await each.serves(served)
        yield made
    finally:
        for each in made:
            each.process.kill()
            await each.http.aclose()
            await each.channel.close()
