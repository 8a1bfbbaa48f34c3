"""The registry's own metrics: how many instances each agent has, by state."""

from __future__ import annotations

from collections import Counter

from weft.registry.index import Index, State
from weft.telemetry import Telemetry

_SERVING = "SERVING"


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
