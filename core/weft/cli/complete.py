"""What the shell offers after a tab. Completion is quick and silent: no mesh, no offers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from weft.cli.connect import Registry
    from weft.cli.orchestration import Orchestrator

_PATIENCE = 1.0  # seconds
_NEWEST = 50
Offers = list[CompletionItem]


def agents(ctx: click.Context, _: click.Parameter, incomplete: str) -> Offers:
    """Names of agents."""

    async def names(registry: Registry) -> list[tuple[str, str]]:
        return [(agent.name, agent.description) for agent in await registry.agents()]

    return _offer(ctx, incomplete, names)


def targets(ctx: click.Context, _: click.Parameter, incomplete: str) -> Offers:
    """Names of agents, services and capabilities."""

    async def names(registry: Registry) -> list[tuple[str, str]]:
        found: dict[str, str] = {}
        for agent in await registry.agents():
            found[agent.name] = agent.description
            found |= {service.name: f"service of {agent.name}" for service in agent.services}
            for instance in agent.instances:
                found |= dict.fromkeys(instance.capabilities, "capability")
        return sorted(found.items())

    return _offer(ctx, incomplete, names)


def skills(ctx: click.Context, _: click.Parameter, incomplete: str) -> Offers:
    """AGENT.METHOD of every agent."""

    async def names(registry: Registry) -> list[tuple[str, str]]:
        from weft.cli import catalog

        agents = [
            a for a in await registry.agents() if incomplete.startswith(a.name[: len(incomplete)])
        ]
        digests = catalog.digests(service for agent in agents for service in agent.services)
        sets = await registry.descriptors(digests)
        return [
            (f"{agent.name}.{skill.method.name}", skill.options.description)
            for agent in agents
            for skill in catalog.skills(agent.services, sets)
        ]

    return _offer(ctx, incomplete, names)


def tickets(ctx: click.Context, _: click.Parameter, incomplete: str) -> Offers:
    """Ids of tickets that wait for an answer."""

    async def names(registry: Registry) -> list[tuple[str, str]]:
        from weft.cli import desk

        await registry.agent(desk.AGENT)
        async with desk.escalation(registry.address) as stub:
            found = await desk.pending(stub)
        return [(ticket.ticket_id, ticket.question) for ticket in found]

    return _offer(ctx, incomplete, names)


def runs(ctx: click.Context, _: click.Parameter, incomplete: str) -> Offers:
    """Ids of runs, the newest."""

    async def names(orchestrator: Orchestrator) -> list[tuple[str, str]]:
        from weft.v1 import orchestrator_pb2

        found = await orchestrator.runs(orchestrator_pb2.ListRunsRequest(), _NEWEST)
        return [(each.id, each.workflow) for each in found]

    return _offer(ctx, incomplete, _of_orchestrator(names))


def workflows(ctx: click.Context, _: click.Parameter, incomplete: str) -> Offers:
    """Names of workflows."""

    async def names(orchestrator: Orchestrator) -> list[tuple[str, str]]:
        from weft.v1 import orchestrator_pb2

        request = orchestrator_pb2.ListWorkflowsRequest(page_size=500)
        found = (await orchestrator.stub.ListWorkflows(request)).workflows
        return [(each.name, f"version {each.version}") for each in found]

    return _offer(ctx, incomplete, _of_orchestrator(names))


def approvals(ctx: click.Context, _: click.Parameter, incomplete: str) -> Offers:
    """Ids of approvals that are open."""

    async def names(orchestrator: Orchestrator) -> list[tuple[str, str]]:
        from weft.v1 import orchestrator_pb2

        found = await orchestrator.approvals(orchestrator_pb2.ListApprovalsRequest())
        return [(each.id, each.title) for each in found]

    return _offer(ctx, incomplete, _of_orchestrator(names))


def _of_orchestrator(
    names: Callable[[Orchestrator], Awaitable[list[tuple[str, str]]]],
) -> Callable[[Registry], Awaitable[Iterable[tuple[str, str]]]]:
    async def asked(registry: Registry) -> list[tuple[str, str]]:
        import dataclasses

        from weft import config
        from weft.cli import orchestration

        settings = dataclasses.replace(config.load(), registry=registry.address)
        async with orchestration.connected(settings) as orchestrator:
            return await names(orchestrator)

    return asked


def _offer(
    ctx: click.Context,
    incomplete: str,
    names: Callable[[Registry], Awaitable[Iterable[tuple[str, str]]]],
) -> Offers:
    from weft import config
    from weft.cli import connect

    address = ctx.params.get("set_registry") or config.load().registry

    async def ask() -> Iterable[tuple[str, str]]:
        async with asyncio.timeout(_PATIENCE), connect.registry(address) as registry:
            return await names(registry)

    # Whatever goes wrong, there is nobody to tell.
    with contextlib.suppress(Exception):
        return [
            CompletionItem(name, help=about)
            for name, about in asyncio.run(ask())
            if name.startswith(incomplete)
        ]
    return []
