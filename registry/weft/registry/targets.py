"""Where Prometheus finds the metrics of agents, which listen on any port (Prometheus HTTP service discovery)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from weft.registry.index import Index

PATH = "/targets"
_LABEL = "metrics"  # of an instance: its address
_PATIENCE = 2.0  # seconds


def page(index: Index) -> Callable[[], Any]:
    """What makes the page; it may be called from any thread.

    A process is one target however many agents it serves. Raises TimeoutError where the event loop is busy.
    """
    loop = asyncio.get_running_loop()

    async def look() -> list[dict[str, Any]]:
        return targets(index)

    def make() -> Any:
        return asyncio.run_coroutine_threadsafe(look(), loop).result(_PATIENCE)

    return make


def targets(index: Index) -> list[dict[str, Any]]:
    """Metric addresses of all instances, each with the agents behind it."""
    found: dict[str, tuple[set[str], str]] = {}
    for name in index.names():
        agent = index.agent(name)
        for instance in agent.instances if agent is not None else ():
            if address := instance.labels.get(_LABEL, ""):
                found.setdefault(address, (set(), instance.zone))[0].add(name)
    return [
        {
            "targets": [address],
            "labels": {
                "__meta_weft_agents": ",".join(sorted(agents)),
                "__meta_weft_zone": zone,
            },
        }
        for address, (agents, zone) in sorted(found.items())
    ]
