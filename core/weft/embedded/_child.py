"""Single point of control for the processes of this package: no server outlives its launcher.

Two guards, either is enough: the kernel's parent-death signal (Linux), and a watchdog, a shell
that holds the read end of a pipe and signals the server when the write end closes. The launcher
alone holds the write end, so any death of it closes the pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from weft.embedded import _exec
from weft.embedded._errors import NotMainThread

SAME_ACCOUNT = "same"
_RUN_LIMIT = timedelta(seconds=30)
_LOG_LIMIT = 16 * 1024 * 1024  # bytes; a longer log is put aside at the next start
_WATCHDOG = 'read -r line || kill -s "$1" "$2"'
_POLL = 0.05  # seconds, where the system has no pidfd


class Guard(enum.Flag):
    """What ends a server when its launcher dies."""

    DEATH_SIGNAL = enum.auto()
    WATCHDOG = enum.auto()
    BOTH = DEATH_SIGNAL | WATCHDOG


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The end of a short command. `output`: what it wrote to both streams."""

    ok: bool
    output: str


async def run(argv: Sequence[str], *, account: str = SAME_ACCOUNT) -> Result:
    """Runs a command that ends by itself, within 30 seconds."""
    if account != SAME_ACCOUNT:
        argv = _through_exec(argv, account=account, parent=0, death_signal=0)
    return await asyncio.to_thread(_run, argv)


def _run(command: Sequence[str]) -> Result:
    try:
        done = subprocess.run(  # noqa: S603 - the programs this package looked up itself
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            timeout=_RUN_LIMIT.total_seconds(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as failed:
        return Result(ok=False, output=str(failed))
    return Result(ok=done.returncode == 0, output=done.stdout.decode(errors="replace").strip())


def _through_exec(
    argv: Sequence[str], *, account: str, parent: int, death_signal: int
) -> list[str]:
    """The command line that turns into `argv` by way of `_exec`, with the same process id."""
    become = [sys.executable, "-I", "-S", str(Path(_exec.__file__))]
    return [*become, str(parent), str(death_signal), account, *argv]


class Child:
    """A guarded process in a session of its own, so that Ctrl-C reaches the launcher alone."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, log_start: int) -> None:
        self._process = process
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._leash = -1
        self.log_path = log
        self._log_start = log_start

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        log: Path,
        farewell: signal.Signals,
        account: str = SAME_ACCOUNT,
        guard: Guard = Guard.BOTH,
    ) -> Self:
        """Starts `argv`, its output appended to `log`; `farewell` ends it if the launcher dies.

        Raises NotMainThread: a death signal comes when the forking *thread* ends (prctl(2)).
        """
        if threading.current_thread() is not threading.main_thread():
            raise NotMainThread("Call weft.embedded.launch from the main thread's event loop.")
        parent = os.getpid() if guard & Guard.DEATH_SIGNAL else 0
        command = _through_exec(argv, account=account, parent=parent, death_signal=farewell)
        with _opened(log) as output:
            child = cls(_detached(command, output=output), log, os.fstat(output).st_size)
        if guard & Guard.WATCHDOG:
            child._watch(farewell)
        return child

    def _watch(self, farewell: signal.Signals) -> None:
        name = farewell.name.removeprefix("SIG")
        command = ["/bin/sh", "-c", _WATCHDOG, "weft-watchdog", name, str(self.pid)]
        read_end, self._leash = os.pipe()
        try:
            self._watchdog = _detached(command, stdin=read_end)
        finally:
            os.close(read_end)

    @property
    def pid(self) -> int:
        """The process id, that of the server itself."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    async def wait(self) -> str:
        """Waits for the end and returns how it came, as in `exit status 1` or `SIGKILL`."""
        await _ended(self._process)
        code = self._process.wait()
        return f"exit status {code}" if code >= 0 else signal.Signals(-code).name

    async def stop(self, *steps: tuple[signal.Signals, timedelta]) -> None:
        """Sends one signal after the other, each with its time to take effect, SIGKILL at last."""
        try:
            for number, patience in steps:
                if self.ended:
                    return
                self._process.send_signal(number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience.total_seconds()):
                        await self.wait()
        finally:
            if not self.ended:
                self._process.kill()
            await self.dispose()

    async def dispose(self) -> None:
        """Waits for the end and takes the watchdog off. May be cancelled and called again."""
        await self.wait()
        if self._leash >= 0:
            leash, self._leash = self._leash, -1
            with contextlib.suppress(BrokenPipeError):  # somebody shot the watchdog
                os.write(leash, b"released\n")
            os.close(leash)
        if self._watchdog is not None:
            await _ended(self._watchdog)

    def log(self) -> str:
        """What the process has written so far (the last 16 KiB of it)."""
        with self.log_path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - 16_384))
            return file.read().decode(errors="replace").strip()


def _detached(
    command: Sequence[str], *, stdin: int = subprocess.DEVNULL, output: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - the programs this package looked up itself
        command, stdin=stdin, stdout=output, stderr=output, cwd="/", start_new_session=True
    )


@contextlib.contextmanager
def _opened(log: Path) -> Iterator[int]:
    # A file and never a pipe: a server blocks on a pipe that nobody reads.
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_suffix(".old.log"))
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


async def _ended(process: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a process without a thread."""
    while process.poll() is None:
        if sys.platform != "linux":
            await asyncio.sleep(_POLL)
            continue
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        handle = os.pidfd_open(process.pid)  # not reaped yet, so the id is still its own
        try:
            loop.add_reader(handle, gone.set)
            await gone.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
