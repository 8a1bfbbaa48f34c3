"""An orchestrator that only works, as a process of its own: DATABASE REGISTRY AGENT LEASE_MS."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from datetime import timedelta

from weft import rpc
from weft.agents.orchestrator.engine.settings import WorkerSettings
from weft.agents.orchestrator.fleet import OrchestratorSettings, orchestrator


async def work(database_url: str, registry: str, agent: str, lease: timedelta) -> None:
    settings = WorkerSettings(lease=lease, stay=timedelta(0), drain=timedelta(seconds=2))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with (
        rpc.Channel(registry) as registered,
        rpc.Channel(agent) as echo,
        orchestrator(
            database_url=database_url,
            registry=registered,
            channel=lambda _: echo,
            settings=OrchestratorSettings(worker=settings),
        ),
    ):
        print("working", flush=True)  # noqa: T201 what its starter waits for
        await stopped.wait()
        print("stopping", flush=True)  # noqa: T201 the same


logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
url, registry_address, agent_address, milliseconds = sys.argv[1:]
asyncio.run(work(url, registry_address, agent_address, timedelta(milliseconds=int(milliseconds))))
