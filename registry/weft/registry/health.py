"""Active health: keeps a prober at every address the index names, and spreads their work over time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from weft.mtls import Credentials
from weft.registry.index import Index
from weft.registry.prober import Prober

_SLOTS = 20  # of an interval: enough to spread the load, few enough to share wake-ups


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often addresses are checked.

    Attributes:
        interval: between two checks of an address; a check not answered by the next one has failed, and two
            failures in a row make an address unreachable.
    """

    interval: timedelta = timedelta(seconds=1)


class Health:
    """Follows the index, and tells it which instances cannot be reached."""

    def __init__(self, index: Index, pace: Pace, mtls: Credentials | None = None) -> None:
        self._mtls = mtls
        self._index = index
        self._interval = pace.interval.total_seconds()
        self._probers: dict[str, tuple[Prober, set[Prober]]] = {}  # by address, with its slot
        self._slots: list[set[Prober]] = [set() for _ in range(_SLOTS)]
        # agent -> id -> address, service, SPIFFE id
        self._seen: dict[str, Mapping[str, tuple[str, str, str]]] = {}

    async def run(self) -> None:
        """Probes for ever."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tick())
                await self._follow(tasks)
        finally:
            for prober, _ in self._probers.values():
                prober.stop()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for slot in self._slots:
                for prober in tuple(slot):
                    prober.tick()
                # Ticks that were missed are not made up for: answers must have time to come in between.
                due = max(due + self._interval / _SLOTS, loop.time())
                await asyncio.sleep(due - loop.time())

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        revision = -1
        while True:
            names = self._index.changes(revision)
            revision = self._index.revision
            for name in self._index.names() if names is None else names:
                self._compare(name, tasks)
            if revision == self._index.revision:
                await self._index.changed.wait()

    def _compare(self, name: str, tasks: asyncio.TaskGroup) -> None:
        agent = self._index.agent(name)
        assert agent is not None
        now = {i.instance_id: (i.address, i.services[0].name, i.spiffe_id) for i in agent.instances}
        before = self._seen.get(name, {})
        self._seen[name] = now
        for instance_id, seen in before.items():
            if now.get(instance_id) != seen:
                address, service, _ = seen
                prober, slot = self._probers[address]
                if prober.remove(instance_id, service):
                    prober.stop()
                    slot.discard(prober)
                    del self._probers[address]
        for instance_id, found in now.items():
            if before.get(instance_id) != found:
                address, service, who = found
                if address not in self._probers:
                    self._probers[address] = self._begin(address, tasks)
                self._probers[address][0].add(instance_id, service, who)

    def _begin(self, address: str, tasks: asyncio.TaskGroup) -> tuple[Prober, set[Prober]]:
        prober = Prober(
            address,
            patience=self._interval,
            verdict=self._index.probed,
            spawn=tasks.create_task,
            mtls=self._mtls,
        )
        slot = random.choice(self._slots)  # noqa: S311 spreads the load
        slot.add(prober)
        return prober, slot
