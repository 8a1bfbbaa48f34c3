"""What every engine's program shares: how its runs are begun and measured. Standard library only."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path


async def measure(one: Callable[[], Awaitable[object]], runs: int, at_once: int) -> None:
    """Makes `runs` runs, `at_once` at a time, and tells seconds, CPU seconds and memory of this process; ends it.

    Before comes as many as there are at a time, so that all is warm, and memory that grows afterwards shows. Whoever reads
    what is told answers with a line: PostgreSQL's CPU is read in between.
    """
    await _runs(one, at_once, at_once)
    gc.collect()
    await _tell({"ready": True, "memory": memory()})
    began, used = time.perf_counter(), cpu()
    await _runs(one, runs, at_once)
    seconds, used = time.perf_counter() - began, cpu() - used
    gc.collect()
    await _tell({"seconds": seconds, "cpu": used, "memory": memory()})
    os._exit(0)


async def _runs(one: Callable[[], Awaitable[object]], count: int, at_once: int) -> None:
    numbers = iter(range(count))

    async def one_after_the_other() -> None:
        for _ in numbers:
            await one()

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))


async def _tell(told: dict[str, object]) -> None:
    print(f"\n{json.dumps(told)}", file=sys.__stdout__, flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def cpu() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def arguments() -> tuple[str, int, int, int]:
    """What the benchmark says: the database's URL, steps of a run, runs, runs at a time."""
    url, steps, runs, at_once = sys.argv[1:5]
    return url, int(steps), int(runs), int(at_once)
