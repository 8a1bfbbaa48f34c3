"""Child processes of a benchmark that do as they are told, by lines of JSON: each line is answered by one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import measure

_PATIENCE = 120.0  # seconds for an answer


class Part:
    """A child process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, what: str, **given: Any) -> Any:
        """Tells it to do something; what it answers.

        Raises:
            RuntimeError: it ended.
            TimeoutError: it did not answer.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **given}).encode() + b"\n")
        async with asyncio.timeout(_PATIENCE):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process ended at {what!r}")
        return json.loads(line)

    def memory(self) -> float:
        """Resident memory, MB."""
        return round(measure.memory_of(self._process.pid) / 1e6, 1)

    def cpu(self) -> float:
        """CPU seconds used so far."""
        return measure.cpu_of(self._process.pid)

    async def kill(self) -> None:
        """Kills it, if it is there."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()


async def start(stack: contextlib.AsyncExitStack, script: str, role: str) -> Part:
    """Starts a child that plays a role of the script; it ends with the stack.

    Start all of them before this process speaks gRPC, whose threads do not go well with fork.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        script,
        "--role",
        role,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=2**24,
    )
    part = Part(process)
    stack.push_async_callback(part.kill)
    return part


async def play(roles: Mapping[str, Callable[..., Any]], role: str) -> None:
    """Plays a role: is made of what the first line of standard input says, and does what each further one says."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    player: Any = None
    while line := await reader.readline():
        asked = json.loads(line)
        what = asked.pop("do")
        if what == "begin":
            player, what, asked = roles[role](**asked), "start", {}
        answer = await getattr(player, what)(**asked)
        print(json.dumps(answer), flush=True)
