"""One line that serves agents: settings from the environment, signals, logs, metrics, traces."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING

import uvloop

from weft import config, embedded, rpc, telemetry
from weft.agents.host import Host
from weft.agents.toolboxes import Toolboxes
from weft.telemetry import logs

if TYPE_CHECKING:
    from weft.agents.llm import Models


@dataclass(frozen=True, slots=True, kw_only=True)
class Provided:
    """What a process has for its agents, beside the mesh.

    Attributes:
        models: by agent; None: no model is set up.
        toolboxes: makes toolboxes.
    """

    models: Models | None
    toolboxes: Toolboxes


def serve(*servicers: object) -> None:
    """Serves agents until SIGINT or SIGTERM, then drains. The settings are those of `weft.config`.

    Args:
        servicers: objects of classes derived from generated Servicers, or functions that make one from the
            Mesh, for agents that call other agents, have models (`mesh.models`) or tools (`mesh.toolbox`).
    """
    try:
        settings = config.load()
        uvloop.run(_serve(settings, servicers))
    except KeyboardInterrupt:
        sys.exit(130)
    except (config.SettingError, rpc.AddressInUseError) as failed:
        sys.exit(f"Error: {failed}")
    except (rpc.InvalidArgument, rpc.FailedPrecondition, rpc.Unavailable) as failed:
        sys.exit(f"Error: {failed.message}")
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
    async with (
        observed(settings, service) as watched,
        provided(settings, watched) as given,
        host_of(settings, watched, given) as host,
    ):
        yield host


@contextlib.asynccontextmanager
async def provided(
    settings: config.Settings, watched: telemetry.Telemetry
) -> AsyncIterator[Provided]:
    """Models and toolboxes as the settings say; closed when the block ends. Without `[models]` no SDK is imported.

    Raises:
        SettingError: a setting cannot be used.
        rpc.Unavailable: the database cannot be reached.
        rpc.FailedPrecondition: the extra `llm` is not installed.
    """
    settings = _with_servers(settings)
    async with contextlib.AsyncExitStack() as stack:
        models = None
        if settings.models:
            from weft.agents import llm

            models = await stack.enter_async_context(llm.models_of(settings, watched))
            await models.warm()
        toolboxes = await stack.enter_async_context(Toolboxes(settings, watched))
        yield Provided(models=models, toolboxes=toolboxes)


def _with_servers(settings: config.Settings) -> config.Settings:
    """The settings with the servers of a `weft up` on this machine, where none are named."""
    found = embedded.endpoints(settings.data)
    if found is None:
        return settings
    return dataclasses.replace(
        settings,
        database_url=settings.database_url or found.database_url,
        redis_url=settings.redis_url or found.redis_url,
    )


@contextlib.asynccontextmanager
async def observed(settings: config.Settings, service: str) -> AsyncIterator[telemetry.Telemetry]:
    """Logs and telemetry as the settings say."""
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    logs.setup(
        service, form="json" if as_json else "text", level=settings.log_level, trace_id=_trace_id
    )
    endpoints = [*rpc.Addresses(settings.registry), *filter(None, [settings.otlp_endpoint])]
    starting = telemetry.start(
        service,
        sample_ratio=settings.trace_sample,
        otlp_endpoints=endpoints,
        keep=settings.trace_keep == "on",
        slow=settings.trace_slow,
        sentry_dsn=settings.sentry_dsn,
        metrics_address=settings.agents_metrics,
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            found = await stack.enter_async_context(starting)
        except ValueError as wrong:
            raise config.SettingError(str(wrong)) from wrong
        yield found


def host_of(
    settings: config.Settings, watched: telemetry.Telemetry, given: Provided | None = None
) -> Host:
    """A host as the settings say; its mesh has what is given.

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
            models=given.models if given is not None else None,
            toolboxes=given.toolboxes if given is not None else None,
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
