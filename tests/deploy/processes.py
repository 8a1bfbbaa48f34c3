"""The command in processes of its own, by this tree's code or another's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.lifetime import ending_with_parent

from weft.rpc.testing import wait_until

PATIENCE = timedelta(seconds=90)  # for a start on a busy machine
COMMAND = (sys.executable, "-m", "weft.cli")


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without settings of Weft, and those that are given."""
    left = ("WEFT_", "OTEL_", "GRPC_XDS")
    if "PYTHONPATH" in settings:  # other code, whose coverage nobody asks for
        left += ("COV",)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left)}
    return {**kept, "WEFT_TRACE_SAMPLE": "0", **settings}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a command that ended said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


async def finished(*arguments: str, **settings: str) -> Told:
    """Runs `weft` to its end."""
    process = await asyncio.create_subprocess_exec(
        *ending_with_parent([*COMMAND, *arguments]),
        env=environment(**settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            out, err = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Told(code=process.returncode, out=out.decode(), err=err.decode())


class Part:
    """A part of the mesh that runs until its end is asked for."""

    def __init__(self, log: Path, command: Sequence[str], env: dict[str, str]) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ending_with_parent(command),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    async def ready(self) -> dict[str, str]:
        """Waits until it says that it is ready; what it says of itself."""

        def told() -> bool:
            assert self._process.poll() is None, self.said()
            return "ready: " in self.said()

        await wait_until(told, timeout=PATIENCE)
        line = re.findall(r"^ready: (.*)$", self.said(), re.MULTILINE)[-1]
        return dict(re.findall(r"(\w+) ([^,]+)", line))

    async def stop(self) -> int:
        """Asks it to end; its exit status."""
        self._process.terminate()
        try:
            return await asyncio.to_thread(self._process.wait, PATIENCE.total_seconds())
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"it does not end:\n{self.said()}") from None

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


class Parts:
    """Parts that are killed at the end of a test, where it has not stopped them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Part] = []

    def start(self, *arguments: str, **settings: str) -> Part:
        """Starts `weft ARGUMENTS`."""
        return self.run(arguments[0], [*COMMAND, *arguments], environment(**settings))

    def run(self, name: str, command: Sequence[str], env: dict[str, str]) -> Part:
        """Starts any command."""
        log = self._folder / f"{len(self._started)}-{name}.log"
        self._started.append(Part(log, command, env))
        return self._started[-1]


@contextlib.asynccontextmanager
async def parts_of(folder: Path) -> AsyncIterator[Parts]:
    """Parts with their logs in a folder."""
    found = Parts(folder)
    try:
        yield found
    finally:
        for part in reversed(found._started):
            part.kill()
