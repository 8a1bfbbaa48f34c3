"""One `weft up` for all tests of the command line, and the command as a client of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests import secured

from weft.cli import main
from weft.rpc.testing import wait_until

COMMAND = (sys.executable, "-m", "weft.cli")
PATIENCE = timedelta(seconds=45)  # for a start on a busy machine


def wait_for(predicate: Callable[[], object], timeout: timedelta = PATIENCE) -> None:
    """Returns when the predicate is true; raises TimeoutError."""
    # In a thread, so that the predicate may run a command, which has a loop of its own.
    asyncio.run(wait_until(lambda: asyncio.to_thread(predicate), timeout))


def processes_of(folder: Path) -> dict[int, str]:
    """Command lines of processes that work for a data folder: its parts by their settings, its servers by
    what they serve."""
    mark = f"{folder}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except OSError:  # it is gone
            continue
        if command and (mark in command or b"WEFT_DATA=" + mark in environment):
            found[int(entry.name)] = command.replace(b"\0", b" ").decode()
    return found


def environment(data: Path, **more: str) -> dict[str, str]:
    """The environment of a mesh of its own: any ports, its data in a folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WEFT_")}
    anywhere = "127.0.0.1:0"
    return {
        **kept,
        "WEFT_DATA": str(data),
        **dict.fromkeys(
            (
                *("WEFT_REGISTRY_LISTEN", "WEFT_GATEWAY_LISTEN", "WEFT_GATEWAY_GRPC_LISTEN"),
                *("WEFT_BROKER_LISTEN", "WEFT_BROKER_METRICS", "WEFT_EDGE_LISTEN"),
                *("WEFT_REGISTRY_METRICS", "WEFT_GATEWAY_METRICS", "WEFT_AGENTS_METRICS"),
            ),
            anywhere,
        ),
        **more,
    }


class Up:
    """A running `weft up`."""

    def __init__(self, data: Path, output: Path, *arguments: str, **settings: str) -> None:
        self.data = data
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                (*COMMAND, "up", *arguments),
                env=environment(data, **settings),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, *words: str, timeout: timedelta = PATIENCE) -> None:
        """Until it has said all of this."""

        def told() -> bool:
            assert self.process.poll() is None, self.said()
            return all(word in self.said() for word in words)

        wait_for(told, timeout)

    def address(self, what: str) -> str:
        found = re.search(rf"^{what} +(\S+)", self.said(), re.MULTILINE)
        assert found is not None, self.said()
        return found[1]

    def environment(self) -> Mapping[str, str]:
        """Settings of a client of this mesh."""
        return {
            "WEFT_DATA": str(self.data),
            "WEFT_GATEWAY": self.address("gateway"),
            "WEFT_REGISTRY": self.address("registry"),
            "WEFT_BROKER": self.address("broker"),
        }

    def child(self, *words: str) -> int:
        """The process id of a part, by words of its command line."""
        for pid, command in processes_of(self.data).items():
            if "--supervised" in command and all(word in command for word in words):
                return pid
        raise AssertionError(f"no process of {words}")

    def stop(self) -> int:
        """Ctrl-C; returns its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE.total_seconds())


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Weft:
    """Runs the command within this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self.monkeypatch = monkeypatch

    def __call__(self, *arguments: str) -> Told:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Told(code=ended.value.code, out=said.out, err=said.err)

    def offers(self, line: str) -> set[str]:
        """What Tab offers after a line that begins behind `weft`."""
        with self.monkeypatch.context() as within:
            within.setenv("_WEFT_COMPLETE", "bash_complete")
            within.setenv("COMP_WORDS", f"weft {line}")
            within.setenv("COMP_CWORD", str(len(line.split())))
            return {offer.removeprefix("plain,") for offer in self().out.split()}


@pytest.fixture
def nowhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Weft:
    """The command where nothing runs."""
    for name, value in environment(tmp_path / "data").items():
        if name.startswith("WEFT_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("WEFT_GATEWAY", "http://127.0.0.1:1")
    monkeypatch.setenv("WEFT_REGISTRY", "127.0.0.1:1")
    return Weft(capsys, monkeypatch)


@pytest.fixture(scope="session")
def house(short_folder: Path) -> Iterator[Up]:
    """One `weft up` for all tests of the command line, with an echo agent beside its fleet."""
    data = short_folder / "cli"
    further = ("--mtls",) if secured.ON else ()
    up = Up(
        data,
        short_folder / "cli.txt",
        *("--replicas", "support-triage=2", *further),
        WEFT_ALERTS_TO="http://127.0.0.1:1/nobody",
        WEFT_ALERTS_LISTEN="127.0.0.1:0",
    )
    try:
        up.wait_for("try      weft ask")
        with (short_folder / "echo.txt").open("wb") as file:
            echo = subprocess.Popen(
                (*COMMAND, "agents", "serve", "weft.agents.echo:Echo"),
                env=environment(data, **up.environment()),
                stdout=file,
                stderr=file,
            )
        try:
            wait_for(lambda: b"ready: " in (short_folder / "echo.txt").read_bytes())
            yield up
        finally:
            echo.terminate()
            assert echo.wait(20) == 0
        assert up.stop() == 0
        assert "stopped" in up.said()
        assert processes_of(data) == {}
    finally:
        up.process.kill()
        up.process.wait()


@pytest.fixture
def weft(
    house: Up, fresh_xds: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Weft:
    """The command as a client of the house."""
    for name, value in house.environment().items():
        monkeypatch.setenv(name, value)
    return Weft(capsys, monkeypatch)


def on_terminal(arguments: tuple[str, ...], env: Mapping[str, str]) -> tuple[int, str]:
    """Runs the command on a terminal of 160 columns; its exit status and all it showed, without colours."""
    ours, its = os.openpty()
    try:
        process = subprocess.Popen(
            (*COMMAND, *arguments),
            env={**env, "TERM": "xterm", "COLUMNS": "160", "LINES": "50"},
            stdin=its,
            stdout=its,
            stderr=its,
        )
    finally:
        os.close(its)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):
        # Linux ends a terminal that nobody holds with EIO.
        while read := terminal.read(65_536):
            shown += read
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "\n")
    return process.wait(PATIENCE.total_seconds()), text


@contextlib.contextmanager
def running(
    *arguments: str, env: Mapping[str, str], stdout: int, stderr: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process of its own, which does not outlive the test whatever it waits for."""
    process = subprocess.Popen((*COMMAND, *arguments), env=env, stdout=stdout, stderr=stderr)
    with process:
        try:
            yield process
        finally:
            process.kill()


class Tools:
    """What tests of processes need."""

    command = COMMAND
    environment = staticmethod(environment)
    processes_of = staticmethod(processes_of)
    up = Up
    on_terminal = staticmethod(on_terminal)
    running = staticmethod(running)
    wait_for = staticmethod(wait_for)


@pytest.fixture(scope="session")
def tools() -> type[Tools]:
    return Tools
