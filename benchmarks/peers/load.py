"""What every peer's program shares: the load, and how it is measured. Standard library only."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable

SIZE = 1_024  # bytes of a message
IN_FLIGHT = 100


def body(number: int) -> bytes:
    """A message that can be told from the others."""
    return b"%012d" % number + b"x" * (SIZE - 12)


class Phase:
    """Seconds and CPU of this process from the first message to the last."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen: set[int] = set()
        self._began = 0.0
        self._cpu = 0.0
        self.begin()

    def begin(self) -> None:
        """Now comes the first message."""
        self._began, self._cpu = time.perf_counter(), _cpu()

    def saw(self, message: bytes | str) -> bool:
        """Counts a message that was received; whether it was the last."""
        if not self._seen:
            self.begin()
        self._seen.add(int(message[:12]))
        return len(self._seen) >= self._count

    def end(self) -> None:
        """That was the last one: tells what was measured and ends the process."""
        seconds, cpu = time.perf_counter() - self._began, _cpu() - self._cpu
        told = json.dumps({"seconds": seconds, "cpu": cpu, "unique": len(self._seen)})
        print(f"\n{told}", file=sys.__stdout__, flush=True)
        os._exit(0)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def publish_all(publish: Callable[[int], Awaitable[object]], count: int) -> None:
    """Publishes `count` messages, 100 at a time."""
    numbers = iter(range(count))

    async def one_after_the_other() -> None:
        for number in numbers:
            await publish(number)

    await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))


def arguments() -> tuple[str, str, int]:
    """What the benchmark says: publish or consume, the server's URL, how many messages."""
    role, url, count = sys.argv[1:4]
    return role, url, int(count)
