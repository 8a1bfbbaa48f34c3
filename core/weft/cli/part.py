"""A process that runs one part: its logs and telemetry, the signals that end it, its tie to a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.telemetry import Telemetry

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# An orphan that has not ended by then is not going to.
_ORPHAN_LIMIT = timedelta(seconds=15)

supervisor_option = click.option(
    "--supervised", metavar="READY,LEASH", hidden=True, help="File descriptors of `weft up`."
)


def run(main: Coroutine[Any, Any, None], supervised: str | None) -> None:
    """Runs a part until its end, on uvloop; ended by the death of its supervisor, where it has one."""
    import uvloop

    if supervised:
        threading.Thread(target=_end_with, args=(_fds(supervised)[1],), daemon=True).start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


@contextlib.asynccontextmanager
async def observed(
    settings: Settings, service: str, metrics: str, *, traced: bool = True
) -> AsyncIterator[Telemetry]:
    """Logs and telemetry as the settings say; `traced`: whether the part has spans to send."""
    from weft import rpc, telemetry
    from weft.telemetry import logs

    logs.setup(service, form=log_format(settings), level=settings.log_level, trace_id=_trace_id)
    from weft.cli import failures

    # Each replica of the registry keeps traces of its own, and any of them may be asked.
    sinks = [*rpc.Addresses(settings.registry), *filter(None, [settings.otlp_endpoint])]
    endpoints = sinks if traced else []
    starting = telemetry.start(
        service,
        sample_ratio=settings.trace_sample,
        otlp_endpoints=endpoints,
        keep=settings.trace_keep == "on",
        slow=settings.trace_slow,
        sentry_dsn=settings.sentry_dsn,
        metrics_address=metrics,
    )
    async with contextlib.AsyncExitStack() as stack:
        with failures.settings_checked("WEFT_SENTRY_DSN"):
            found = await stack.enter_async_context(starting)
        yield found


def log_format(settings: Settings) -> Any:
    """What the format "auto" comes to: text on a terminal, else JSON."""
    if settings.log_format != "auto":
        return settings.log_format
    return "text" if sys.stderr.isatty() else "json"


async def until_stopped(serving: Coroutine[Any, Any, None]) -> None:
    """Returns when `serving` does or at the first SIGINT or SIGTERM; a second one ends the process at once.

    Args:
        serving: announces the part and waits for its end; raises what made it fail.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def first() -> None:
        asked.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _SIGNALS:
        loop.add_signal_handler(number, first)
    waiting, running = asyncio.create_task(asked.wait()), asyncio.create_task(serving)
    try:
        await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
    finally:
        for task in (waiting, running):
            task.cancel()
        await asyncio.gather(waiting, running, return_exceptions=True)


def announce(supervised: str | None, **facts: str) -> None:
    """Tells the supervisor, or the person who waits, that the part is ready and where."""
    if supervised is None:
        shown = ", ".join(f"{name} {value}" for name, value in facts.items() if value)
        click.echo(f"ready: {shown}", err=True)
        return
    ready, _ = _fds(supervised)
    # The supervisor may be gone; then the leash ends this process.
    with contextlib.suppress(BrokenPipeError):
        os.write(ready, json.dumps(facts).encode() + b"\n")
    os.close(ready)


def _fds(supervised: str) -> tuple[int, int]:
    ready, leash = supervised.split(",")
    return int(ready), int(leash)


def _end_with(leash: int) -> None:
    """Waits until the supervisor's end of the pipe closes, however the supervisor ended."""
    os.read(leash, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ORPHAN_LIMIT.total_seconds())
    os._exit(1)


def _trace_id() -> str:
    from weft import rpc

    call = rpc.current_call()
    return call.trace_id if call is not None else ""
