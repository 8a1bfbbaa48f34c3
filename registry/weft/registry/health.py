"""Active health: keeps a prober at every address that this replica's leases name, and spreads their work over time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from weft.mtls import Credentials
from weft.registry.prober import Prober
from weft.v1 import agent_pb2

_SLOTS = 20  # of an interval: enough to spread the load, few enough to share wake-ups


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often addresses are checked.

    Attributes:
        interval: between two checks of an address; a check not answered by the next one has failed, and two
            failures in a row make an address unreachable.
    """

    interval: timedelta = timedelta(seconds=1)


class _Held(NamedTuple):
    address: str
    service: str
    spiffe_id: str


class Health:
    """Probes the instances that are given to it, and tells which of them cannot be reached.

    Args:
        pace: how often.
        verdict: told what is wrong with instances, "" for nothing, whenever that differs from what is stored.
        mtls: what it shows to them; None: connections are not encrypted.
    """

    def __init__(
        self,
        pace: Pace,
        verdict: Callable[[Mapping[str, str]], object],
        mtls: Credentials | None = None,
    ) -> None:
        self._mtls = mtls
        self._verdict = verdict
        self._interval = pace.interval.total_seconds()
        self._probers: dict[str, tuple[Prober, set[Prober]]] = {}  # by address, with its slot
        self._slots: list[set[Prober]] = [set() for _ in range(_SLOTS)]
        self._held: dict[str, _Held] = {}  # by instance id
        self._found: dict[str, str] = {}  # what was found out last, by instance id
        self._stored: dict[str, str] = {}  # what the database says, by instance id
        self._spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]] | None = None

    def hold(self, instance: agent_pb2.Instance, fault: str) -> None:
        """An instance is this replica's to probe; what the database says of it."""
        instance_id = instance.instance_id
        now = _Held(instance.address, instance.services[0].name, instance.spiffe_id)
        before = self._held.get(instance_id)
        self._stored[instance_id] = fault
        if before == now:
            return
        if before is not None:
            self._remove(instance_id, before)
        self._held[instance_id] = now
        self._found[instance_id] = fault  # true until something else is found out
        if now.address not in self._probers:
            self._probers[now.address] = self._begin(now.address)
        self._probers[now.address][0].add(instance_id, now.service, now.spiffe_id)

    def release(self, instance_id: str) -> None:
        """An instance is not this replica's to probe."""
        held = self._held.pop(instance_id, None)
        if held is not None:
            del self._found[instance_id], self._stored[instance_id]
            self._remove(instance_id, held)

    async def run(self) -> None:
        """Probes for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._spawn = tasks.create_task
                while True:
                    for slot in self._slots:
                        for prober in tuple(slot):
                            prober.tick()
                        # Ticks that were missed are not made up for: answers must have time to come in between.
                        due = max(due + self._interval / _SLOTS, loop.time())
                        await asyncio.sleep(due - loop.time())
                    self._repeat()
        finally:
            for prober, _ in self._probers.values():
                prober.stop()

    def _repeat(self) -> None:
        """Says again what the database does not have, as after two changes that met."""
        stored, found = self._stored, self._found
        differ = {i: fault for i, fault in found.items() if stored[i] != fault}
        if differ:
            self._verdict(differ)

    def _told(self, instance_ids: Collection[str], fault: str) -> None:
        differ = {i: fault for i in instance_ids if self._found[i] != fault}
        if differ:
            self._found.update(differ)
            self._verdict(differ)

    def _remove(self, instance_id: str, held: _Held) -> None:
        prober, slot = self._probers[held.address]
        if prober.remove(instance_id, held.service):
            prober.stop()
            slot.discard(prober)
            del self._probers[held.address]

    def _begin(self, address: str) -> tuple[Prober, set[Prober]]:
        prober = Prober(
            address,
            patience=self._interval,
            verdict=self._told,
            spawn=self._task,
            mtls=self._mtls,
        )
        slot = random.choice(self._slots)  # noqa: S311 spreads the load
        slot.add(prober)
        return prober, slot

    def _task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        assert self._spawn is not None, "probers tick while `run` runs"
        return self._spawn(work)
