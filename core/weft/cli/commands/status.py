"""`weft status`: what can be reached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from weft.cli import output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.v1 import agent_pb2, registry_pb2

_PATIENCE = 3.0  # seconds for each part


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One row. `detail`: what it says of itself, or why it cannot be reached."""

    part: str
    state: str
    address: str
    detail: str
    metrics: str = ""
    milliseconds: float = 0.0


@click.command(epilog=examples("weft status --json"))
@configured("data", "gateway", "registry", "broker", "database_url", "redis_url")
@json_option
@click.pass_context
def status(ctx: click.Context, *, settings: Settings, as_json: bool) -> None:
    """Show which parts can be reached, their versions, and where their metrics are.

    The exit status is 1 when registry or gateway cannot be reached.
    """
    from importlib.metadata import version

    from weft.cli import connect

    parts, agents = connect.run(_look(settings))
    if as_json:
        output.print_json(
            {
                "version": version("weft"),
                "parts": [asdict(part) for part in parts],
                "agents": [_summary(agent) for agent in agents],
            }
        )
    else:
        _show(parts, agents, version("weft"))
    if any(part.state == "down" for part in parts if part.part in ("registry", "gateway")):
        ctx.exit(1)


def _show(parts: list[_Part], agents: list[agent_pb2.Agent], version: str) -> None:
    output.print_table(
        ["PART", "STATE", "ADDRESS", ">ANSWERED IN", "METRICS", f"DETAIL (weft {version})"],
        [
            [
                part.part,
                output.state(part.state),
                part.address,
                output.milliseconds(timedelta(milliseconds=part.milliseconds))
                if part.state == "up"
                else "",
                part.metrics,
                part.detail,
            ]
            for part in parts
        ],
        "",
    )
    if agents:
        click.echo()
        output.print_table(
            ["AGENT", ">IN SERVICE", "VERSIONS", "METRICS", "LABELS"],
            [
                [
                    found["agent"],
                    f"{found['in_service']}/{found['instances']}",
                    ", ".join(found["versions"]),
                    ", ".join(found["metrics"]),
                    ", ".join(found["labels"]),
                ]
                for found in map(_summary, agents)
            ],
            "",
        )


def _summary(agent: agent_pb2.Agent) -> dict[str, Any]:
    from weft.v1 import agent_pb2

    serving = (agent_pb2.INSTANCE_STATE_SERVING, agent_pb2.INSTANCE_STATE_DEGRADED)
    metrics = {i.labels["metrics"] for i in agent.instances if "metrics" in i.labels}
    labels = {
        f"{name}={value}"
        for each in agent.instances
        for name, value in each.labels.items()
        if name != "metrics"
    }
    return {
        "agent": agent.name,
        "instances": len(agent.instances),
        "in_service": sum(i.state in serving for i in agent.instances),
        "versions": sorted({i.version for i in agent.instances}),
        "metrics": sorted(metrics),
        "labels": sorted(labels),
    }


async def _look(settings: Settings) -> tuple[list[_Part], list[agent_pb2.Agent]]:
    # What is measured below shall not be the time of an import.
    import asyncpg  # noqa: F401
    import grpc

    from weft import embedded, rpc
    from weft.cli import connect, rest
    from weft.v1 import broker_pb2, broker_pb2_grpc

    agents: list[agent_pb2.Agent] = []
    servers = embedded.endpoints(settings.data)
    database = settings.database_url or (servers.database_url if servers else "")
    redis = settings.redis_url or (servers.redis_url if servers else "")

    async def registry() -> str:
        async with connect.registry(settings.registry) as found:
            agents.extend(await found.agents(timeout=_PATIENCE))
            try:
                replicas.extend((await found.replicas(timeout=_PATIENCE)).replicas)
            except grpc.aio.AioRpcError as failed:  # a registry of a version that has none
                if failed.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
        return f"{len(agents)} agents, {sum(len(a.instances) for a in agents)} instances"

    async def replica(address: str) -> str:
        async with connect.registry(address) as found:
            answer = await found.replicas(timeout=_PATIENCE)
        known = next(each for each in answer.replicas if each.replica == answer.answered_by)
        return _replica(known)

    async def broker() -> str:
        async with rpc.Channel(settings.broker.split(",")[0]) as channel:
            stub = broker_pb2_grpc.BrokerServiceStub(channel)
            found = await stub.ListQueues(
                broker_pb2.ListQueuesRequest(page_size=1_000), timeout=_PATIENCE
            )
        waiting = sum(queue.depth for queue in found.queues)
        more = " and more" if found.next_page_token else ""
        return f"{len(found.queues)} queues{more}, {waiting} messages"

    async def gateway() -> str:
        found = rest.Gateway(url=settings.gateway, timeout=_PATIENCE)
        return str((await asyncio.to_thread(found.get, "/readyz"))["status"])

    replicas: list[registry_pb2.Replica] = []
    gathered = await asyncio.gather(
        _asked("gateway", settings.gateway, gateway, settings.gateway_metrics),
        _asked("registry", settings.registry, registry, settings.registry_metrics),
        _asked("broker", settings.broker, broker, settings.broker_metrics),
        _asked("postgres", _public(database), lambda: _postgres(database)),
        _asked("redis", _public(redis), lambda: _redis(redis)),
    )
    parts = list(gathered)
    if len(replicas) > 1:
        each = await asyncio.gather(
            *(_asked("replica", r.address, partial(replica, r.address)) for r in replicas)
        )
        parts[2:2] = each  # below the registry as a whole
    return parts, agents


def _replica(replica: registry_pb2.Replica) -> str:
    since = timedelta(seconds=time.time() - replica.start_time.ToSeconds())
    lag = replica.lag.ToTimedelta()
    behind = f", behind for {output.age(lag)}" if lag else ""
    return (
        f"{replica.leases} leases, for {output.age(since)}, revision {replica.revision}{behind}, "
        f"id {replica.replica}"
    )


async def _asked(
    name: str, address: str, ask: Callable[[], Awaitable[str]], metrics: str = ""
) -> _Part:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_PATIENCE):
            detail = await ask()
    except Exception as failed:  # noqa: BLE001 whatever it is, it is what the row says
        why = str(failed) or type(failed).__name__
        return _Part(part=name, state="down", address=address, detail=why.splitlines()[0])
    took = (time.perf_counter() - began) * 1_000
    return _Part(
        part=name,
        state="up",
        address=address,
        detail=detail,
        metrics="" if metrics.endswith(":0") else metrics,
        milliseconds=round(took, 1),
    )


async def _postgres(url: str) -> str:
    import asyncpg

    if not url:
        raise LookupError("not running on this data folder, and no WEFT_DATABASE_URL")
    connection = await asyncpg.connect(url, timeout=_PATIENCE)
    try:
        return f"PostgreSQL {connection.get_server_version().major}"
    finally:
        await connection.close()


async def _redis(url: str) -> str:
    from weft import embedded

    if not url:
        raise LookupError("not running on this data folder, and no WEFT_REDIS_URL")
    async with embedded.redis_client(url, timeout=timedelta(seconds=_PATIENCE)) as client:
        info = await client.info("server")
    name = "valkey" if "valkey_version" in info else "redis"
    return f"{name} {info[f'{name}_version']}"


def _public(url: str) -> str:
    """A URL without its password."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=f"{parts.username}:***@{parts.netloc.rpartition('@')[2]}").geturl()
