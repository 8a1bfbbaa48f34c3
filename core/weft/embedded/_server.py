"""What a supervisor needs of a server, and the two moments that every server shares."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from weft.embedded._child import Child
from weft.embedded._errors import StartFailed

Progress = Callable[[str], None]

_LOG = logging.getLogger("weft.embedded")
_POLL = 0.01  # seconds
_START_LIMIT = timedelta(minutes=5)  # reading a long log again takes its time
_LOG_LINES = 12


class Server(Protocol):
    """A server that can be started again on the same socket."""

    name: str

    async def start(self) -> Child:
        """Starts it and returns when it answers. Raises StartFailed."""
        ...

    async def stop(self, child: Child) -> None:
        """Stops it in order, by force if it takes too long."""
        ...


def report(progress: Progress | None, text: str) -> None:
    """Tells the log and, if there is one, the person who waits."""
    _LOG.info(text)
    if progress is not None:
        progress(text)


async def until_ready(name: str, child: Child, ready: Callable[[], Awaitable[bool]]) -> None:
    """Waits until `ready` says so. Raises StartFailed if the process ends first or takes 5 minutes."""
    try:
        async with asyncio.timeout(_START_LIMIT.total_seconds()):
            while not await ready():
                if child.ended:
                    raise _failed(name, await child.wait(), child)
                await asyncio.sleep(_POLL)
    except TimeoutError:
        raise _failed(name, f"no answer in {_START_LIMIT}", child) from None


def _failed(name: str, how: str, child: Child) -> StartFailed:
    tail = "\n  ".join(child.log().splitlines()[-_LOG_LINES:])
    return StartFailed(f"{name} did not start ({how}). The end of {child.log_path}:\n  {tail}")


def first_line(path: Path, number: int = 1) -> str:
    """Line `number` of a small file, empty if there is no such file or line."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return lines[number - 1].strip() if len(lines) >= number else ""
