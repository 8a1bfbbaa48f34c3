"""`weft agents`: who is there, and serving some."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weft.cli import complete, control, failures, output, part
from weft.cli.fleet import AGENTS
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from rich.text import Text

    from weft.agents import Host
    from weft.agents.memory.embedding import Embedder
    from weft.cli.hosts import Hosts
    from weft.config import Settings
    from weft.telemetry import Telemetry
    from weft.v1 import agent_pb2

_FLEETS = ("support", "orchestrator", "knowledge")


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "weft agents",
        "weft agents --json",
        "weft agents serve support",
        "weft agents serve orchestrator",
        "weft agents serve knowledge",
        "weft agents serve greeter.agent:Greeter",
        "weft agents serve anna=debaters:Small ben=debaters:Fermat",
    ),
)
@configured("registry")
@json_option
@click.pass_context
def agents(ctx: click.Context, *, settings: Settings, as_json: bool) -> None:
    """List the agents of the mesh; serve some; hold them back, or set how they work."""
    if ctx.invoked_subcommand is None:
        _list(settings, as_json=as_json)


for _command in control.COMMANDS:
    agents.add_command(_command)


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
        "weft agents serve anna=debaters:Small ben=debaters:Fermat",
    )
)
@click.argument("what", nargs=-1, required=True, metavar="FLEET|[NAME=]MODULE:CLASS...")
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
    """Serve agents in this process: `support`, the `orchestrator`, `knowledge`, or classes of your own.

    A class is one derived from a generated Servicer; a function that makes one from the Mesh does as
    well. The Mesh has the models of the settings. Modules are looked for in this folder first. NAME is
    what the agent is called; by default its contract says that. Agents of one contract, such as
    debaters, need names of their own.
    """
    own = [_named(name) for name in what if name not in _FLEETS]
    fleets = [name for name in what if name in _FLEETS]
    if only and "support" not in fleets:
        raise click.UsageError("--only chooses agents of a fleet, and no fleet is named.")
    for agent in only:
        if agent not in AGENTS:
            hint = failures.nearest(agent, AGENTS)
            raise click.UsageError(f"The fleet has no agent {agent!r}.{hint}")
    if "orchestrator" in fleets and not settings.database_url:
        raise failures.WrongSetting(
            "The orchestrator keeps runs in PostgreSQL: give --database-url or WEFT_DATABASE_URL. "
            "`weft up` brings its own."
        )
    if "support" in fleets and not (settings.database_url and settings.redis_url):
        raise failures.WrongSetting(
            "The fleet keeps its data in PostgreSQL and Redis: give --database-url and --redis-url, "
            "or WEFT_DATABASE_URL and WEFT_REDIS_URL. `weft up` brings its own."
        )
    if "knowledge" in fleets and not settings.database_url:
        raise failures.WrongSetting(
            "Documents are kept in PostgreSQL: give --database-url or WEFT_DATABASE_URL."
        )
    part.run(_serve(settings, supervised, fleets, own, only), supervised)


async def _serve(
    settings: Settings,
    supervised: str | None,
    fleets: list[str],
    own: list[tuple[str | None, Any]],
    only: tuple[str, ...],
) -> None:
    from weft.agents import serving
    from weft.cli.hosts import Hosts

    async with contextlib.AsyncExitStack() as stack:
        watched = await stack.enter_async_context(serving.observed(settings, "agents"))
        given = None
        if own or "support" in fleets:  # the others have no use for models and tools
            given = await stack.enter_async_context(serving.provided(settings, watched))
        hosts = await stack.enter_async_context(Hosts(settings, watched, given))
        host = hosts.first
        names = [await hosts.add(_made(thing, host), name) for name, thing in own]
        embedder = await stack.enter_async_context(_embedder(settings, fleets, only))
        if "support" in fleets:
            names += await _add_fleet(host, settings, only, embedder, stack)
        if "orchestrator" in fleets:
            names.append(await _add_orchestrator(host, settings, watched, stack))
        if "knowledge" in fleets:
            names.append(await _add_knowledge(host, settings, embedder, stack))
        metrics = "" if settings.agents_metrics.endswith(":0") else settings.agents_metrics
        await part.until_stopped(_serving(hosts, supervised, names, metrics))


@contextlib.asynccontextmanager
async def _embedder(
    settings: Settings, fleets: list[str], only: tuple[str, ...]
) -> AsyncIterator[Embedder | None]:
    """What makes vectors, one for all agents that search; None where none of them is served, too."""
    searches = "support" in fleets and (not only or "support-research" in only)
    if not searches and "knowledge" not in fleets:
        yield None
        return
    from weft.cli import documented

    async with documented.embedder(settings) as made:
        yield made


async def _add_fleet(
    host: Host,
    settings: Settings,
    only: tuple[str, ...],
    embedder: Embedder | None,
    stack: contextlib.AsyncExitStack,
) -> list[str]:
    from weft.agents import support

    servicers = await stack.enter_async_context(
        support.fleet(
            database_url=settings.database_url,
            redis_url=settings.redis_url,
            stub=host.mesh.stub,
            send=host.mesh.send if settings.broker else None,
            orchestrated=settings.support_pipeline == "orchestrated",
            embedder=embedder,
            only=only,
            models=host.mesh.models,
        )
    )
    # Calls end before what they need is closed.
    stack.push_async_callback(host.stop)
    version = importlib.metadata.version("weft")
    return [host.add(servicer, version=version) for servicer in servicers]


async def _add_orchestrator(
    host: Host, settings: Settings, watched: Telemetry, stack: contextlib.AsyncExitStack
) -> str:
    from weft import rpc
    from weft.cli import orchestration

    registry = await stack.enter_async_context(rpc.Channel(settings.registry))
    served = orchestration.served(
        settings, registry=registry, channel=host.mesh.channel, telemetry=watched
    )
    servicer = await stack.enter_async_context(served)
    stack.push_async_callback(host.stop)
    return host.add(servicer, version=importlib.metadata.version("weft"))


async def _add_knowledge(
    host: Host, settings: Settings, embedder: Embedder | None, stack: contextlib.AsyncExitStack
) -> str:
    from weft.agents.memory.fleet import knowledge_agent
    from weft.cli import documented

    made = knowledge_agent(
        database_url=settings.database_url, redis_url=settings.redis_url, embedder=embedder
    )
    servicer = await stack.enter_async_context(made)
    stack.push_async_callback(host.stop)
    labels = {"search": documented.way(settings)}
    return host.add(servicer, version=importlib.metadata.version("weft"), labels=labels)


async def _serving(hosts: Hosts, supervised: str | None, names: list[str], metrics: str) -> None:
    await hosts.start()
    address, agents = " ".join(hosts.addresses), " ".join(names)
    part.announce(supervised, address=address, agents=agents, metrics=metrics)
    await hosts.wait()


def _named(text: str) -> tuple[str | None, Any]:
    """The name of an agent, where one is given, and what serves it: [NAME=]MODULE:CLASS."""
    name, given, what = text.rpartition("=")
    return (name if given else None), _imported(what)


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
