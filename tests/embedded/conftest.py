"""Folders to launch in, and a launcher in a process of its own that a test may kill."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from weft import embedded
from weft.rpc.testing import wait_until

_SCRIPT = """
import asyncio, sys
from pathlib import Path
from weft import embedded
from weft.embedded import _child

guard = _child.Guard(int(sys.argv[2]))
start = _child.Child.start.__func__
_child.Child.start = classmethod(lambda cls, *args, **named: start(cls, *args, guard=guard, **named))

async def main():
    async with embedded.launch(Path(sys.argv[1]), database_url=sys.argv[3] or None):
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder that does not exist yet."""
    folder = Path(tempfile.mkdtemp(prefix="weft-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder / "data"
    shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cold_start(short_folder: Path) -> tuple[Path, list[str]]:
    """The one cold start of these tests: its data folder and what it said."""
    folder = short_folder / "used" / "data"
    said: list[str] = []
    async with embedded.launch(folder, on_progress=said.append):
        pass
    return folder, said


@pytest.fixture
def warm(cold_start: tuple[Path, list[str]]) -> Iterator[Path]:
    """A data folder that was used before, maybe by other tests: it saves the making of a database."""
    used = cold_start[0]
    small = [*used.glob("*/SERVER.json"), *used.glob("pg/*/postgresql.conf")]
    before = {path: path.read_text() for path in small}
    yield used
    for path, text in before.items():
        path.write_text(text)


class Launcher:
    """A launcher in another process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()


@pytest_asyncio.fixture
async def launcher_of() -> AsyncIterator[Callable[..., object]]:
    """Starts a launcher process for a folder and waits until its servers are up."""
    started: list[asyncio.subprocess.Process] = []
    folders: list[Path] = []

    async def start(folder: Path, guard: int, database_url: str = "") -> Launcher:
        folders.append(folder)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _SCRIPT, str(folder), str(guard), database_url),
            stdout=asyncio.subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        return Launcher(process)

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()
    for folder in folders:
        for pid in _servers_in(folder):
            os.kill(pid, signal.SIGKILL)
        await wait_until(lambda folder=folder: not _servers_in(folder))


def _servers_in(folder: Path) -> dict[int, str]:
    """The processes that work in `folder`: every server goes into its data folder."""
    found: dict[int, str] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found[int(process.name)] = (process / "comm").read_text().strip()
        except OSError:  # ended, or a zombie
            continue
    return found


def _watchdogs_of(pids: dict[int, str]) -> list[int]:
    """The watchdogs that look after these processes."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if "weft-watchdog" in words and int(words[-2]) in pids:
            found.append(int(process.name))
    return found


@pytest.fixture
def servers_in() -> Callable[[Path], dict[int, str]]:
    return _servers_in


@pytest.fixture
def watchdogs_of() -> Callable[[dict[int, str]], list[int]]:
    return _watchdogs_of
