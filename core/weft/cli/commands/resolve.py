"""`weft resolve`: who would receive a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from weft.cli import complete, failures, output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.v1 import agent_pb2


@click.command(
    epilog=examples(
        "weft resolve support-triage",
        "weft resolve weft.support.v1.TriageService",
    )
)
@click.argument("name", shell_complete=complete.targets)
@configured("registry")
@json_option
def resolve(*, settings: Settings, name: str, as_json: bool) -> None:
    """Show the instances that would receive a call now.

    NAME is an agent, the full name of a gRPC service, or a capability; they are tried in this order.
    """
    from weft.cli import connect

    kind, found = connect.run(_resolve(settings.registry, name))
    if as_json:
        output.print_json({kind: name, "instances": [output.as_json(i) for i in found]})
        return
    output.print_table(
        ["AGENT", "INSTANCE", "ADDRESS", "VERSION", "ZONE", "SERVICES"],
        [
            [
                instance.agent,
                instance.instance_id[:8],
                instance.address,
                instance.version,
                instance.zone,
                ", ".join(service.name for service in instance.services),
            ]
            for instance in found
        ],
        f"The {kind} {name!r} is known, but no instance of it is in service now.",
    )


async def _resolve(address: str, name: str) -> tuple[str, Sequence[agent_pb2.Instance]]:
    import grpc

    from weft.cli import connect

    async with connect.registry(address) as registry:
        for kind in ("agent", "service", "capability"):
            try:
                return kind, await registry.resolve(**{kind: name})
            except grpc.aio.AioRpcError as failed:
                # A name that cannot be an agent's may still be a service's.
                unfit = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
                if failed.code() not in unfit:
                    raise
        agents = await registry.agents()
    known = [a.name for a in agents] + [s.name for a in agents for s in a.services]
    raise failures.Failure(
        f"There is no agent, service or capability {name!r}.{failures.nearest(name, known)} "
        "`weft agents` lists what there is."
    )
