"""The registry's own metrics: how many instances each agent has, by state, and how this replica is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from weft.registry.index import Index, State
from weft.telemetry import Telemetry

_SERVING = "SERVING"
_EVERY = 1.0  # seconds


class Seen(NamedTuple):
    """A replica at a time; `lag` in seconds, `adopted` since its start."""

    revision: int
    lag: float
    leases: int
    adopted: int
    watchers: int


async def replica(see: Callable[[], Seen], telemetry: Telemetry) -> None:
    """Keeps the metrics of this replica fresh, for ever."""
    metrics, adopted = telemetry.metrics, 0
    while True:
        seen = see()
        metrics.registry_revision.set(seen.revision)
        metrics.registry_lag.set(seen.lag)
        metrics.registry_leases.set(seen.leases)
        metrics.registry_adopted.inc(seen.adopted - adopted)
        metrics.registry_watchers.set(seen.watchers)
        adopted = seen.adopted
        await asyncio.sleep(_EVERY)


async def follow(index: Index, telemetry: Telemetry) -> None:
    """Keeps the gauge of instances in step with the index, for ever."""
    shown: dict[str, set[str]] = {}
    revision = -1
    while True:
        names = index.changes(revision)
        revision = index.revision
        for name in index.names() if names is None else names:
            agent = index.agent(name)
            instances = () if agent is None else agent.instances
            counts = Counter(State.Name(i.state).removeprefix("INSTANCE_STATE_") for i in instances)
            # An agent that has gone altogether is shown as well, also by a registry that never saw it serving.
            counts.setdefault(_SERVING, 0)
            for state in shown.get(name, set()) | counts.keys():
                telemetry.metrics.instances.labels(name, state).set(counts[state])
            shown.setdefault(name, set()).update(counts)
        if revision == index.revision:
            await index.changed.wait()
