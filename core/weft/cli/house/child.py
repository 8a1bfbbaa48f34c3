"""A part as a child process: started, watched, started again when it dies, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

_MOST_RESTARTS = 5
_WINDOW = 60.0  # seconds
_FIRST_PAUSE = 0.2  # seconds, doubled with each restart in the window: 0.2 to 3.2
_LOG_LIMIT = 16 * 1024 * 1024  # bytes; a longer log is put aside at the next start
_LOG_LINES = 12
WRONG_USAGE = 2  # exit status of a process whose settings cannot be used: no restart mends that


class State(enum.Enum):
    """Where a child stands."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Child:
    """One part of the mesh as a process.

    Args:
        name: what the part is called.
        command: its command line; two file descriptors are added (see weft.cli.part).
        environment: its whole environment.
        log: file its output is appended to.
        patience: how long it may take to stop before it is killed.
        report: told in words what happens.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        patience: timedelta,
        report: Callable[[str], None],
    ) -> None:
        self.name = name
        self.log = log
        self.state = State.STARTING
        self.facts: dict[str, str] = {}
        self.restarts = 0
        self.since = time.monotonic()
        self.settled = asyncio.Event()
        self.obituary = ""
        self._command = command
        self._environment = environment
        self._patience = patience
        self._report = report
        self._process: asyncio.subprocess.Process | None = None
        self._leash = -1
        self._log_start = 0
        self._stopping = asyncio.Event()
        self._gone = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Its process id; None while there is no process."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    @property
    def address(self) -> str:
        """Where it serves, as it said; empty before it is ready."""
        return self.facts.get("address", "")

    async def keep(self) -> None:
        """Keeps it running until `stop`, or until it died more often than it is restarted.

        `settled` is set once it is ready or has failed; `obituary` then says why it failed.
        """
        try:
            await self._keep()
        finally:
            self.settled.set()
            self._gone.set()

    async def _keep(self) -> None:
        restarts: deque[float] = deque()
        while True:
            how = await self._live()
            if self._stopping.is_set():
                break
            now = time.monotonic()
            while restarts and restarts[0] <= now - _WINDOW:
                restarts.popleft()
            if len(restarts) >= _MOST_RESTARTS or how == f"exit status {WRONG_USAGE}":
                self.state = State.FAILED
                self.obituary = self._end_of_log(how)
                self._report(f"{self.name}: given up. {self.obituary}")
                return
            self.state = State.RESTARTING
            self._report(f"{self.name}: ended ({how}), starting it again; see {self.log}")
            pause = _FIRST_PAUSE * 2 ** len(restarts)
            restarts.append(now)
            self.restarts += 1
            if await self._stopped_within(pause):
                break
        self.state = State.STOPPED

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def stop(self) -> None:
        """Ends it: SIGTERM, then after its patience SIGKILL. Returns when `keep` is done."""
        self._stopping.set()
        if self.pid is not None:
            self.state = State.STOPPING
            self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._patience.total_seconds()):
                await self._gone.wait()
        except TimeoutError:
            self._report(f"{self.name}: does not stop, killing it")
        finally:
            self.kill()
        await self._gone.wait()

    def kill(self) -> None:
        """Ends it at once."""
        if self.pid is not None:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # Between the end of a process and the news of it there is a moment.
        with contextlib.suppress(ProcessLookupError):
            assert self._process is not None
            self._process.send_signal(number)

    async def _live(self) -> str:
        """One life of the process; returns how it ended."""
        ready, tell = os.pipe()
        hold, self._leash = os.pipe()
        try:
            with self._output() as output:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    f"--supervised={tell},{hold}",
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=self._environment,
                    pass_fds=(tell, hold),
                    start_new_session=True,
                )
        except BaseException:
            os.close(ready)
            os.close(self._leash)
            raise
        finally:
            os.close(tell)
            os.close(hold)
        self.since = time.monotonic()
        if self._stopping.is_set():  # asked while it was being started
            self._signal(signal.SIGTERM)
        listening = asyncio.create_task(self._listen(ready))
        try:
            code = await self._process.wait()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            os.close(self._leash)
        return f"exit status {code}" if code >= 0 else signal.Signals(-code).name

    async def _listen(self, ready: int) -> None:
        """Waits for the line that says the part is ready."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        pipe = os.fdopen(ready, "rb")
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: protocol, pipe)
        try:
            line = await reader.readline()
        finally:
            transport.close()
        if line:
            self.facts = json.loads(line)
            self.state = State.READY
            took = timedelta(seconds=time.monotonic() - self.since).total_seconds()
            self._report(
                f"{self.name}: ready at {self.address} after {took:.1f} s, process {self.pid}"
            )
            self.settled.set()

    @contextlib.contextmanager
    def _output(self) -> Iterator[int]:
        # A file and never a pipe: a process blocks on a pipe that nobody reads.
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".old.log"))
        with self.log.open("ab") as file:
            self._log_start = file.tell()
            yield file.fileno()

    def _end_of_log(self, how: str) -> str:
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode(errors="replace").strip().splitlines()
        shown = "\n  ".join(lines[-_LOG_LINES:])
        return f"{self.name} does not run ({how}). The end of {self.log}:\n  {shown}"
