"""One line that serves agents: settings from the environment, signals, logs, metrics, traces."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from types import FunctionType

import uvloop

from weft import config, rpc, telemetry
from weft.agents.host import Host
from weft.telemetry import logs


def serve(*servicers: object) -> None:
    """Serves agents until SIGINT or SIGTERM, then drains. The settings are those of `weft.config`.

    Args:
        servicers: objects of classes derived from generated Servicers, or functions that make one from the
            Mesh, for agents that call other agents.
    """
    try:
        settings = config.load()
        uvloop.run(_serve(settings, servicers))
    except KeyboardInterrupt:
        sys.exit(130)
    except (config.SettingError, rpc.AddressInUseError, rpc.InvalidArgument) as failed:
        sys.exit(f"Error: {failed}")
    except TimeoutError:
        sys.exit(
            f"Error: the registry at {settings.registry} cannot be reached. Start everything with `weft up`, "
            "or name another registry with WEFT_REGISTRY."
        )


async def _serve(settings: config.Settings, servicers: tuple[object, ...]) -> None:
    async with running(settings, "agents") as host:
        names = [
            host.add(given(host.mesh) if isinstance(given, type | FunctionType) else given)
            for given in servicers
        ]
        await host.start()
        print(f"serving {', '.join(names)} at {host.server.address}", file=sys.stderr)  # noqa: T201 the process entry
        await stopped(host)


@contextlib.asynccontextmanager
async def running(settings: config.Settings, service: str) -> AsyncIterator[Host]:
    """A host with logs and telemetry as the settings say; drained when the block ends."""
    async with observed(settings, service) as watched, host_of(settings, watched) as host:
        yield host


@contextlib.asynccontextmanager
async def observed(settings: config.Settings, service: str) -> AsyncIterator[telemetry.Telemetry]:
    """Logs and telemetry as the settings say."""
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    logs.setup(
        service, form="json" if as_json else "text", level=settings.log_level, trace_id=_trace_id
    )
    endpoints = [settings.registry, *filter(None, [settings.otlp_endpoint])]
    async with telemetry.start(
        service,
        sample_ratio=settings.trace_sample,
        otlp_endpoints=endpoints,
        metrics_address=settings.agents_metrics,
    ) as found:
        yield found


def host_of(settings: config.Settings, watched: telemetry.Telemetry) -> Host:
    """A host as the settings say.

    Raises:
        SettingError: a setting cannot be used.
    """
    try:
        return Host(
            registry=settings.registry,
            brokers=settings.broker,
            listen=settings.agents_listen,
            telemetry=watched,
            zone=settings.zone,
            drain=settings.agents_drain,
            identity_trust=settings.identity_trust,
        )
    except ValueError as wrong:
        raise config.SettingError(f"identity_trust: {wrong}") from wrong


async def stopped(host: Host) -> None:
    """Returns at the first SIGINT or SIGTERM; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def first() -> None:
        asked.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, first)
    waiting = asyncio.create_task(asked.wait())
    ended = asyncio.create_task(host.wait())
    try:
        done, _ = await asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended in done:
            await ended
    finally:
        waiting.cancel()
        ended.cancel()


def _trace_id() -> str:
    call = rpc.current_call()
    return call.trace_id if call is not None else ""
