"""The agent `echo` as a process that writes down each text it is sent: `agent REGISTRIES BROKERS FILE`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from weft.agents import Host
from weft.agents.echo import Echo


class Recording(Echo):
    """Echo with a memory that outlives it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        # A line appended at once is whole, and there when this process ends.
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    async def Say(self, request: Any, context: Any) -> Any:
        answer = await super().Say(request, context)
        os.write(self._file, f"{request.text}\n".encode())
        return answer


async def _serve(registries: str, brokers: str, file: Path) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    host = Host(registry=registries, brokers=brokers)
    host.add(Recording(file))
    async with host:
        await host.start()
        print("ready", flush=True)  # noqa: T201 for whoever started it
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
