"""Registry, broker, gateway and agents: who answers, and who is in service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from weft.cli.doctor.model import Finding, fail, ok, warn

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.v1 import agent_pb2

PATIENCE = 3.0  # seconds for an answer


async def registry(settings: Settings) -> list[Finding]:
    """The registry, and the agents it knows."""
    from weft import rpc
    from weft.cli import connect, failures

    try:
        async with connect.registry(settings.registry) as found:
            agents = await found.agents(timeout=PATIENCE)
    except (failures.Failure, rpc.Error) as failed:
        return [
            fail(
                "registry",
                _line(failed),
                "New callers find no agent, and agents that start are not found; calls that go on, go on.",
                "Start it: `weft up`, or `weft registry`; or name another one: --registry or WEFT_REGISTRY.",
            )
        ]
    instances = sum(len(agent.instances) for agent in agents)
    answer = ok(
        "registry", f"{settings.registry} knows {len(agents)} agents, {instances} instances"
    )
    return [answer, *(finding for agent in agents for finding in _agent(agent))]


def _agent(agent: agent_pb2.Agent) -> Sequence[Finding]:
    from weft.v1 import agent_pb2

    check = f"agent {agent.name}"
    names = agent_pb2.InstanceState
    states = [names.Name(i.state).removeprefix("INSTANCE_STATE_") for i in agent.instances]
    found = []
    serving = sum(state in {"SERVING", "DEGRADED"} for state in states)
    if not serving:
        said = f"{len(states)} instances: {', '.join(sorted(set(states)))}" if states else "none"
        found.append(
            warn(
                check,
                f"no instance is in service ({said})",
                "Its callers get UNAVAILABLE, its messages wait.",
                "Start one, or resume it where it is paused; one that is gone for good needs nothing.",
            )
        )
    if unreachable := [
        i.address for i, s in zip(agent.instances, states, strict=True) if s == "UNREACHABLE"
    ]:
        found.append(
            warn(
                check,
                f"cannot be reached at {', '.join(unreachable)}",
                "It lives and renews its lease, but no caller gets through to it.",
                "Let it listen on an address that others reach: WEFT_AGENTS_LISTEN; look for a firewall.",
            )
        )
    versions = sorted({instance.version for instance in agent.instances})
    if len(versions) > 1:
        found.append(
            warn(
                check,
                f"versions {', '.join(versions)} at the same time",
                "As long as both serve, callers get answers of one or the other.",
                "Normal during an upgrade; else stop the old ones.",
            )
        )
    return found or [ok(check, f"{serving} in service")]


async def gateway(settings: Settings) -> list[Finding]:
    """The gateway."""
    from weft.cli import rest

    asked = rest.Gateway(url=settings.gateway, timeout=PATIENCE)
    try:
        await asyncio.to_thread(asked.get, "/readyz")
    except Exception as failed:  # noqa: BLE001 whatever it is, it is what was found
        return [
            fail(
                "gateway",
                f"{settings.gateway}: {_line(failed)}",
                "Nobody gets in from outside: REST, gRPC, MCP and A2A are away.",
                "Start it: `weft up`, or `weft gateway`; or name another one: --gateway or WEFT_GATEWAY.",
            )
        ]
    return [ok("gateway", f"{settings.gateway} is ready")]


async def metrics(settings: Settings) -> list[Finding]:
    """The pages that Prometheus reads."""
    import httpx

    found = []
    pages = {
        "registry": settings.registry_metrics,
        "broker": settings.broker_metrics,
        "gateway": settings.gateway_metrics,
    }
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
        for part, address in pages.items():
            if address.endswith(":0"):
                continue  # anywhere
            try:
                (await client.get(f"http://{address}/metrics")).raise_for_status()
            except Exception as failed:  # noqa: BLE001 as above: also an address that is none
                found.append(
                    warn(
                        f"metrics of {part}",
                        f"{address}: {_line(failed)}",
                        "Prometheus does not see it, and no alert is about it but WeftPartDown.",
                        f"Say where it is: WEFT_{part.upper()}_METRICS.",
                    )
                )
            else:
                found.append(ok(f"metrics of {part}", address))
    return found


def _line(failed: Exception) -> str:
    text = str(failed) or type(failed).__name__
    return text.splitlines()[0]
