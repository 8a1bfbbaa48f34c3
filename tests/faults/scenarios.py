"""Rounds with a story: the primary fails over to its replica, and Redis comes back older than it was."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.faults.arena import Arena, Setup, arena
from tests.faults.checker import check
from tests.faults.nemesis import Nemesis
from tests.faults.rounds import Outcome, play, promises

# What befalls a pair of Redis servers: it is the fail-over that kills one.
FAIL_OVER_FAULTS = (
    "fail over",
    "kill broker",
    "kill consumer",
    "kill producer",
    "stop broker",
    "stop consumer",
    "cut",
    "stall",
    "delay",
)


async def fail_over(
    folder: Path,
    setup: Setup,
    seconds: float,
    *,
    pace: float = 1.0,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """The primary dies over and over; everything that was accepted was replicated, so nothing is lost."""
    setup = replace(setup, replica=True)
    return await play(
        folder, setup, seconds, pace=pace, lanes=1, only=FAIL_OVER_FAULTS, strict=False, say=say
    )


async def older_data(folder: Path, setup: Setup, seconds: float) -> Outcome:
    """Somebody puts an older copy of Redis' data in place. That loses messages, and has to be said."""
    begin = time.monotonic()
    async with arena(folder, setup) as found:
        await asyncio.sleep(seconds / 2)
        copy = folder / "copy"
        await _restart(found, lambda: _copy(found.redis.folder, copy))
        await asyncio.sleep(seconds / 2)
        await _restart(found, lambda: _copy(copy, found.redis.folder))
        await found.heal()
        events, final = await found.finish(15)
        report = check(events, final, promises(setup, loss=True))
        nemesis = Nemesis(found, setup.seed)
        return Outcome(
            setup=setup,
            seconds=time.monotonic() - begin,
            kills=2,
            cuts=0,
            faults=nemesis.counts,
            report=report,
            crashes=found.crashes,
        )


async def _restart(found: Arena, meanwhile: Callable[[], None]) -> None:
    found.busy.add("redis")
    found.redis.child.kill()
    await asyncio.to_thread(meanwhile)
    found.redis.child.start()
    found.busy.discard("redis")


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
