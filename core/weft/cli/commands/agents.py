"""`weft agents`: who is there, and serving some."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weft.cli import complete, failures, output, part
from weft.cli.fleet import AGENTS
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from rich.text import Text

    from weft.agents import Host
    from weft.config import Settings
    from weft.v1 import agent_pb2

_FLEETS = ("support",)


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "weft agents",
        "weft agents --json",
        "weft agents serve support",
        "weft agents serve greeter.agent:Greeter",
    ),
)
@configured("registry")
@json_option
@click.pass_context
def agents(ctx: click.Context, *, settings: Settings, as_json: bool) -> None:
    """List the agents of the mesh; with `serve`, run some."""
    if ctx.invoked_subcommand is None:
        _list(settings, as_json=as_json)


@agents.command(name="list", epilog=examples("weft agents list"))
@configured("registry")
@json_option
def list_agents(*, settings: Settings, as_json: bool) -> None:
    """List the agents of the mesh with their instances."""
    _list(settings, as_json=as_json)


@agents.command(
    epilog=examples(
        "weft agents serve support --only support-triage --metrics 127.0.0.1:0",
        "weft agents serve agent:Greeter",
    )
)
@click.argument("what", nargs=-1, required=True, metavar="FLEET|MODULE:CLASS...")
@click.option(
    "--only",
    multiple=True,
    metavar="AGENT",
    shell_complete=complete.agents,
    help="Of a fleet, serve this agent only; may be repeated.",
)
@configured(
    *("registry", "broker", "database_url", "redis_url", "zone"),
    listen="agents_listen",
    metrics="agents_metrics",
    log_format="log_format",
)
@part.supervisor_option
def serve(
    *, settings: Settings, what: tuple[str, ...], only: tuple[str, ...], supervised: str | None
) -> None:
    """Serve agents in this process: the fleet `support`, or classes of your own.

    A class is one derived from a generated Servicer; a function that makes one from the Mesh does as
    well. Modules are looked for in this folder first.
    """
    own = [_imported(name) for name in what if name not in _FLEETS]
    fleets = [name for name in what if name in _FLEETS]
    if only and not fleets:
        raise click.UsageError("--only chooses agents of a fleet, and no fleet is named.")
    for agent in only:
        if agent not in AGENTS:
            hint = failures.nearest(agent, AGENTS)
            raise click.UsageError(f"The fleet has no agent {agent!r}.{hint}")
    if fleets and not (settings.database_url and settings.redis_url):
        raise failures.WrongSetting(
            "The fleet keeps its data in PostgreSQL and Redis: give --database-url and --redis-url, "
            "or WEFT_DATABASE_URL and WEFT_REDIS_URL. `weft up` brings its own."
        )
    part.run(_serve(settings, supervised, fleets, own, only), supervised)


async def _serve(
    settings: Settings,
    supervised: str | None,
    fleets: list[str],
    own: list[Any],
    only: tuple[str, ...],
) -> None:
    from weft.agents import serving

    async with contextlib.AsyncExitStack() as stack:
        host = await stack.enter_async_context(serving.running(settings, "agents"))
        names = [host.add(_made(thing, host)) for thing in own]
        if fleets:
            names += await _add_fleet(host, settings, only, stack)
        metrics = "" if settings.agents_metrics.endswith(":0") else settings.agents_metrics
        await part.until_stopped(_serving(host, supervised, names, metrics))


async def _add_fleet(
    host: Host, settings: Settings, only: tuple[str, ...], stack: contextlib.AsyncExitStack
) -> list[str]:
    from weft.agents import support

    servicers = await stack.enter_async_context(
        support.fleet(
            database_url=settings.database_url,
            redis_url=settings.redis_url,
            stub=host.mesh.stub,
            send=host.mesh.send if settings.broker else None,
            only=only,
        )
    )
    # Calls end before what they need is closed.
    stack.push_async_callback(host.stop)
    version = importlib.metadata.version("weft")
    return [host.add(servicer, version=version) for servicer in servicers]


async def _serving(host: Host, supervised: str | None, names: list[str], metrics: str) -> None:
    await host.start()
    agents = " ".join(names)
    part.announce(supervised, address=host.server.address, agents=agents, metrics=metrics)
    await host.wait()


def _imported(name: str) -> Any:
    """What MODULE:CLASS names."""
    module_name, _, attribute = name.partition(":")
    if not attribute:
        known = ", ".join(_FLEETS)
        raise click.UsageError(
            f"{name!r} is neither a fleet ({known}) nor MODULE:CLASS, such as agent:Greeter."
        )
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module_name)
        return functools.reduce(getattr, attribute.split("."), found)
    except (ImportError, AttributeError) as failed:
        raise failures.WrongSetting(f"{name!r} cannot be served: {failed}.") from failed


def _made(thing: Any, host: Host) -> object:
    """A servicer: the thing itself, or what it makes, given the mesh if it asks for anything."""
    if not callable(thing):
        return thing
    wants = [
        parameter
        for parameter in inspect.signature(thing).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return thing(host.mesh) if wants else thing()


def _list(settings: Settings, *, as_json: bool) -> None:
    from weft.cli import connect

    async def ask() -> list[agent_pb2.Agent]:
        async with connect.registry(settings.registry) as registry:
            return await registry.agents()

    found = connect.run(ask())
    if as_json:
        output.print_json([output.as_json(agent) for agent in found])
        return
    output.print_table(
        ["AGENT", "INSTANCE", "STATE", "ADDRESS", ">IN FLIGHT", ">CALLS", ">FAILED", ">LATENCY"],
        [_row(agent, instance) for agent in found for instance in agent.instances],
        "No agent is registered. Start some: weft up, or weft agents serve support.",
    )


def _row(agent: agent_pb2.Agent, instance: agent_pb2.Instance) -> list[str | Text]:
    from weft.v1 import agent_pb2

    load = instance.load
    name = agent_pb2.InstanceState.Name(instance.state).removeprefix("INSTANCE_STATE_")
    return [
        agent.name,
        instance.instance_id[:8],
        output.state(name),
        instance.address,
        f"{load.in_flight}/{instance.max_concurrency}",
        str(load.calls),
        str(load.failures),
        output.milliseconds(load.latency_ewma.ToTimedelta()) if load.calls else "",
    ]
