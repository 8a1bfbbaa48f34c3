"""The agent `echo` as a process that writes down each call before it does anything: `ROLE REGISTRY FILE`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from weft.agents import Host
from weft.agents.echo import Echo


class Recording(Echo):
    """Echo with a memory that outlives it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        # A line appended at once is whole, and there when this process is killed.
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def _note(self, text: str) -> None:
        os.write(self._file, f"{text}\n".encode())

    async def Say(self, request: Any, context: Any) -> Any:
        self._note(request.text)
        return await super().Say(request, context)

    async def Repeat(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._note(request.text)
        async for message in super().Repeat(request, context):
            yield message


def calls(file: Path) -> Sequence[str]:
    """The texts of all calls, in order."""
    return file.read_text().splitlines() if file.exists() else []


async def _serve(registry: str, file: Path) -> None:
    host = Host(registry=registry)
    host.add(Recording(file))
    async with host:
        with contextlib.suppress(TimeoutError):  # it goes on trying
            await host.start()
        print("ready", flush=True)  # noqa: T201 for whoever started it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], Path(sys.argv[2])))
