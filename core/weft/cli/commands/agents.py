"""`weft agents`: who is there, and serving some."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weft.cli import complete, failures, output, part
from weft.cli.options import configured, json_option

if TYPE_CHECKING:
    from rich.text import Text

    from weft.agents import Host
    from weft.config import Settings
    from weft.v1 import agent_pb2

_FLEETS = ("support",)


@click.group(invoke_without_command=True)
@configured("registry")
@json_option
@click.pass_context
def agents(ctx: click.Context, settings: Settings, as_json: bool) -> None:
    """List the agents of the mesh; with `serve`, run some.

    \b
    Examples:
      weft agents
      weft agents --json
      weft agents serve support
      weft agents serve greeter.agent:Greeter
    """
    if ctx.invoked_subcommand is None:
        _list(settings, as_json=as_json)


@agents.command(name="list")
@configured("registry")
@json_option
def list_agents(settings: Settings, as_json: bool) -> None:
    """List the agents of the mesh with their instances.

    \b
    Example:
      weft agents list
    """
    _list(settings, as_json=as_json)


@agents.command()
@click.argument("what", nargs=-1, required=True, metavar="FLEET|MODULE:CLASS...")
@click.option(
    "--only",
    multiple=True,
    metavar="AGENT",
    shell_complete=complete.agents,
    help="Of a fleet, serve this agent only; may be repeated.",
)
@configured(
    *("registry", "database_url", "redis_url", "zone"),
    listen="agents_listen",
    metrics="agents_metrics",
    log_format="log_format",
)
@part.supervisor_option
def serve(
    settings: Settings, what: tuple[str, ...], only: tuple[str, ...], supervised: str | None
) -> None:
    """Serve agents in this process: the fleet `support`, or classes of your own.

    A class is one derived from a generated Servicer; a function that makes one from the Mesh does as
    well. Modules are looked for in this folder first.

    \b
    Examples:
      weft agents serve support --only support-triage --metrics 127.0.0.1:0
      weft agents serve agent:Greeter
    """
    own = [_imported(name) for name in what if name not in _FLEETS]
    fleets = [name for name in what if name in _FLEETS]
    if only and not fleets:
        raise click.UsageError("--only chooses agents of a fleet, and no fleet is named.")
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
        if fleets:
            await _add_fleet(host, settings, only, stack)
        names = [host.add(_made(thing, host)) for thing in own]
        await part.until_stopped(_serving(host, supervised, names))


async def _serving(host: Host, supervised: str | None, names: list[str]) -> None:
    await host.start()
    part.announce(supervised, address=host.server.address, agents=" ".join(names))
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
