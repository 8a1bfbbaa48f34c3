"""Does drills: waits until the alert fires, mends what was broken, waits until it has cleared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tests.drills.drills import Drill
from tests.drills.mesh import Mesh
from tests.drills.prometheus import Prometheus

from weft.rpc.testing import wait_until

_FIRES = timedelta(seconds=90)
_CLEARS = timedelta(seconds=120)
_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a drill went.

    Attributes:
        alert: its name.
        fired: seconds from the fault until the alert fired; None: it did not.
        cleared: seconds from the mending until it had cleared; None: it did not.
        problem: what went wrong otherwise; empty: nothing.
    """

    alert: str
    fired: float | None = None
    cleared: float | None = None
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether the alert fired and cleared."""
        return self.fired is not None and self.cleared is not None


async def done(drill: Drill, mesh: Mesh, prometheus: Prometheus) -> Outcome:
    """A drill, from health to health."""
    labels = drill.labels(mesh)
    fired = cleared = None
    if "edge" not in drill.parts:  # its fault is there from the start
        await wait_until(lambda: _silent(drill, labels, prometheus), _CLEARS)
    began = time.monotonic()
    problem = ""
    try:
        async with drill.fault(mesh):
            began = time.monotonic()
            await wait_until(lambda: prometheus.firing(drill.alert, labels), _FIRES)
            fired = time.monotonic() - began
        began = time.monotonic()
        await wait_until(lambda: _silent(drill, labels, prometheus), _CLEARS)
        cleared = time.monotonic() - began
    except TimeoutError:
        problem = "it did not fire" if fired is None else "it did not clear"
    except Exception as failed:  # noqa: BLE001 the other drills go on
        problem = repr(failed)
    return Outcome(alert=drill.alert, fired=fired, cleared=cleared, problem=problem)


async def _silent(drill: Drill, labels: object, prometheus: Prometheus) -> bool:
    assert isinstance(labels, dict)
    return not await prometheus.firing(drill.alert, labels)


async def all_done(
    drills: Sequence[Drill], mesh: Mesh, prometheus: Prometheus
) -> AsyncIterator[Outcome]:
    """Drills that disturb nobody, some at a time, then the others one by one."""
    together = asyncio.Semaphore(_AT_ONCE)

    async def one(drill: Drill) -> Outcome:
        async with together:
            return await done(drill, mesh, prometheus)

    for outcome in asyncio.as_completed([one(each) for each in drills if not each.alone]):
        yield await outcome
    for each in drills:
        if each.alone:
            yield await done(each, mesh, prometheus)
