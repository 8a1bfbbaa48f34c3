"""`weft up`: the whole mesh on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from weft.cli import complete
from weft.cli.options import configured, examples

if TYPE_CHECKING:
    from weft.cli.house import House, Lines, Table
    from weft.config import Settings

_MOST_REPLICAS = 32
_MOST_REGISTRIES = 9


def _replicas(
    _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
) -> dict[str, int]:
    found = {}
    for text in given:
        agent, _, count = text.partition("=")
        if not agent or not count.isdecimal() or not 1 <= int(count) <= _MOST_REPLICAS:
            raise click.BadParameter(
                f"{text!r} is not AGENT=N with N from 1 to {_MOST_REPLICAS}, such as support-triage=2."
            )
        found[agent] = int(count)
    return found


@click.command(
    epilog=examples(
        "weft up",
        "weft up --replicas support-triage=2 --data ./data",
        "weft up --registries 3",
        "weft up --mtls",
        "weft up --edge envoy",
    )
)
@click.option(
    "--replicas",
    multiple=True,
    callback=_replicas,
    metavar="AGENT=N",
    shell_complete=complete.agents,
    help="Run N instances of an agent; may be repeated.",
)
@click.option(
    "--registries",
    type=click.IntRange(1, _MOST_REGISTRIES),
    default=1,
    show_default=True,
    metavar="N",
    help="Run N replicas of the registry: any of them may die and nobody notices.",
)
@click.option(
    "--edge",
    type=click.Choice(["none", "envoy"]),
    default="none",
    show_default=True,
    help="Run an Envoy before the mesh, at WEFT_EDGE_LISTEN: REST, gRPC-Web and gRPC straight to the agents.",
)
@configured(
    *("data", "registry_listen", "broker_listen", "gateway_listen", "gateway_grpc_listen"),
    "gateway_auth",
    "mtls",
    *("database_url", "redis_url"),
)
def up(settings: Settings, replicas: dict[str, int], registries: int, edge: str) -> None:
    """Run everything on this machine: servers, registry, broker, gateway, orchestrator, knowledge, support fleet.

    The servers are a Redis and a PostgreSQL of its own, where no others are set. Where WEFT_ALERTS_TO names a
    webhook, `weft alerts` runs as well.

    Each part is a process of its own, started again when it dies. Ctrl-C stops them in order, a second
    Ctrl-C at once. Data and logs are kept in --data.
    """
    from weft.cli.house import HouseLock, Lines, Table, check_free, with_free_ports

    _known(replicas)
    if edge == "none":
        settings = dataclasses.replace(settings, edge_listen="127.0.0.1:0")  # nobody listens there
    else:
        from weft.cli.edge import envoy

        envoy.program()  # before anything starts
    with HouseLock(settings.data) as lock:
        check_free(settings)
        settings = _with_certificates(with_free_ports(settings, registries))
        lock.describe(settings.gateway)
        with (
            _told_of_mtls(settings),
            Table() if sys.stdout.isatty() else Lines() as view,
        ):
            asyncio.run(_run(settings, replicas, view, edge=edge == "envoy"))


def _with_certificates(settings: Settings) -> Settings:
    """The settings with mTLS on or off, and an authority for it where there is none."""
    from weft import config
    from weft.cli import failures, membership

    # "auto" would follow what this command itself says to others.
    on = settings.mtls == "on" or bool(settings.mtls_certificate and settings.mtls == "auto")
    if on and not settings.mtls_certificate:
        from weft.mtls import Authority

        trust_domain = settings.mtls_trust_domain or membership.DEFAULT_TRUST_DOMAIN
        with failures.settings_checked("WEFT_MTLS_*"):
            Authority.made(config.authority_home(settings.data), trust_domain)
    return dataclasses.replace(settings, mtls="on" if on else "off")


@contextlib.contextmanager
def _told_of_mtls(settings: Settings) -> Iterator[None]:
    """Commands and agents on this machine find by themselves whether the mesh has mTLS, as long as it runs."""
    from weft import config

    config.mark(settings.data, on=settings.mtls == "on")
    try:
        yield
    finally:
        config.mark(settings.data, on=False)


async def _run(
    settings: Settings, replicas: dict[str, int], view: Lines | Table, *, edge: bool
) -> None:
    from weft.cli.house import House, Interrupt

    began = time.monotonic()
    house = House(settings, environ=os.environ, replicas=replicas, edge=edge, report=view.report)
    view.watch(house)
    with Interrupt(house.kill) as interrupt:
        try:
            async with house:
                await house.ready()
                view.report(f"ready after {time.monotonic() - began:.1f} s; Ctrl-C stops")
                view.welcome(_addresses(house))
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not interrupt.asked:
                raise
            view.report("stopped")


def _addresses(house: House) -> list[str]:
    settings = house.settings
    metrics = [
        f"http://{child.facts['metrics']}/metrics"
        for child in house.children
        if child.facts.get("metrics")
    ]
    further = [
        f"{child.name:<9}{child.address}"
        for child in house.children
        if child.name in {"edge", "alerts"}
    ]
    return [
        *further,
        f"gateway  {settings.gateway}",
        f"docs     {settings.gateway}/docs",
        f"gRPC     {settings.gateway_grpc_listen}",
        f"registry {settings.registry}",
        f"broker   {settings.broker}",
        f"metrics  {' '.join(metrics)}",
        'try      weft ask "Where is my card?"',
    ]


def _known(replicas: dict[str, int]) -> None:
    """Raises UsageError for an agent that the fleet does not have, before anything starts."""
    from weft.cli import failures
    from weft.cli.fleet import AGENTS

    for agent in replicas:
        if agent not in AGENTS:
            raise click.UsageError(
                f"The fleet has no agent {agent!r}.{failures.nearest(agent, AGENTS)}"
            )
