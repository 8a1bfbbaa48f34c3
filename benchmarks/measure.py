"""What the benchmarks share: child processes by role, closed-loop load, ratios of interleaved rounds."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

Call = Callable[[], Awaitable[object]]


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and its children so far."""
    total = 0.0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # Its own, and those of children that have ended: PostgreSQL's backends come and go.
        total = sum(map(int, fields[11:15])) / _TICK
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            total += sum(cpu_of(int(child)) for child in children.read_text().split())
    return total


def memory_of(pid: int) -> int:
    """Resident bytes of a process."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * _PAGE


def postgres_of(folder: Path) -> int:
    """Process id of the PostgreSQL whose data is somewhere in a folder."""
    (pid_file,) = folder.glob("**/postmaster.pid")
    return int(pid_file.read_text(encoding="ascii").splitlines()[0])


async def fresh_database(database_url: str, name: str) -> str:
    """The URL of a new, empty database."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(f'create database "{name}"')
    await connection.close()
    parts = urllib.parse.urlsplit(database_url)
    return urllib.parse.urlunsplit(parts._replace(path=f"/{name}"))


class Child:
    """A process that plays a role; its first line of output is what it has to tell, such as an address."""

    def __init__(self, script: str, role: str, *args: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script, "--role", role, *args],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.told = self._process.stdout.readline().strip()
        if not self.told:
            raise RuntimeError(f"role {role} did not start")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def cpu(self) -> float:
        """CPU seconds used so far."""
        with Path(f"/proc/{self._process.pid}/stat").open(encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def end(self) -> None:
        """Tells it to end, and waits for that."""
        self._process.terminate()
        self._process.wait()

    def stop(self) -> None:
        """Ends it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextlib.asynccontextmanager
async def children(script: str) -> AsyncIterator[Callable[..., Child]]:
    """A function that starts children, all of which end with the block."""
    started: list[Child] = []

    def start(role: str, *args: str) -> Child:
        started.append(Child(script, role, *args))
        return started[-1]

    try:
        yield start
    finally:
        for child in started:
            child.stop()


async def rate(call: Call, *, seconds: float, in_flight: int = 1) -> float:
    """Calls a second in a closed loop of `in_flight` callers."""

    async def loop(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            await call()
            done += 1
        return done

    began = time.perf_counter()
    counts = await asyncio.gather(*(loop(began + seconds) for _ in range(in_flight)))
    return sum(counts) / (time.perf_counter() - began)


def arguments(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """The options every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"interleaved rounds ({rounds})")
    parser.add_argument(
        "--seconds", type=float, default=0.8, help="length of one measurement (0.8)"
    )
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    return parser


def progress(text: str) -> None:
    """Says on standard error what goes on."""
    print(f"\r\033[K{text}" if sys.stderr.isatty() else text, file=sys.stderr, end="", flush=True)
    if not sys.stderr.isatty() or text.endswith("done"):
        print(file=sys.stderr)


def report(
    ratios: Mapping[str, Sequence[float]], figures: Mapping[str, Any], *, as_json: bool
) -> None:
    """Prints the median of each ratio, and what was measured."""
    medians = {key: round(statistics.median(values), 3) for key, values in ratios.items()}
    if as_json:
        print(json.dumps({"ratios": medians, "figures": dict(figures)}))
        return
    for key, values in ratios.items():
        low, high = min(values), max(values)
        print(f"{key:22} {medians[key]:6.3f}   ({low:.2f} to {high:.2f}, {len(values)} rounds)")
    for key, value in figures.items():
        print(f"{key:34} {value}")
