"""Processes that never outlive whoever started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from tests.lifetime import ending_with_parent

from weft.rpc.testing import wait_until

ROOT = Path(__file__).parents[2]


class Child:
    """A process, and what it may suffer. Its output goes to a file."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.command = [str(part) for part in command]
        self._environment = {**os.environ, **(environment or {})}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.name = log.stem
        self._begin = 0
        self.stopped = False
        self.starts = 0

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._begin = log.tell()
            self._process = subprocess.Popen(
                ending_with_parent(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=ROOT,
            )
        self.starts += 1
        self.stopped = False

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """How it ended, if it did."""
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def said(self) -> str:
        """The end of its output."""
        with contextlib.suppress(OSError):
            return self._log.read_text(errors="replace")[-20_000:]
        return ""

    def ready(self) -> bool:
        """Whether it has said so since it was started."""
        return self.told(b"ready\n")

    def told(self, word: bytes) -> bool:
        """Whether a word stands in what it has said since it was started."""
        with self._log.open("rb") as log:
            log.seek(self._begin)
            return word in log.read()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stop(self) -> None:
        """It hangs."""
        self._signal(signal.SIGSTOP)
        self.stopped = True

    def go_on(self) -> None:
        """It hangs no more."""
        self._signal(signal.SIGCONT)
        self.stopped = False

    def kill(self) -> bool:
        """Ends it as a crash would; returns whether it was alive."""
        if self._process is None:
            return False
        was = self.alive
        self._process.kill()
        self._process.wait()
        self.stopped = False
        return was

    def ask_to_end(self) -> None:
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)

    async def ended(self, seconds: float) -> bool:
        """Whether it ends within that time."""
        with contextlib.suppress(TimeoutError):
            await wait_until(lambda: not self.alive, timedelta(seconds=seconds))
            return True
        return False


def python(module: str, *arguments: str) -> list[str]:
    """The command of a module of this repository."""
    return [sys.executable, "-m", module, *arguments]
