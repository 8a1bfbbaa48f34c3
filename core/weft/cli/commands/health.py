"""`weft health`: one server's own word for how it is."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import click

from weft.cli import output
from weft.cli.options import examples, json_option

_SOCKET = "unix:"
_PLACE = re.compile(rf"{_SOCKET}.+|[^\s:]+:[0-9]{{1,5}}|\[[^\s\]]+\]:[0-9]{{1,5}}")


@click.command(
    epilog=examples(
        "weft health 127.0.0.1:7070",
        "weft health 127.0.0.1:7081 --timeout 2",
        "weft health 127.0.0.1:50051 --service weft.echo.v1.EchoService",
    )
)
@click.argument("address", envvar="WEFT_HEALTH")
@click.option(
    "--service", default="", metavar="NAME", help="One service; by default the server as a whole."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 60),
    default=3.0,
    metavar="SECONDS",
    show_default=True,
    help="How long it may take to answer.",
)
@json_option
@click.pass_context
def health(
    ctx: click.Context, *, address: str, service: str, timeout: float, as_json: bool
) -> None:
    """Ask the gRPC server at ADDRESS how it is (grpc.health.v1): registry, broker, gateway, agents.

    In a mesh with mTLS the server must be of it; one that is not encrypted, such as the gateway's doors, is asked as it is.
    The exit status is 0 when it is serving, else 1: for health checks of containers, where WEFT_HEALTH may name the
    address.
    """
    from weft.cli import connect

    if not _PLACE.fullmatch(address):
        raise click.UsageError(f"{address!r} is no HOST:PORT, such as 127.0.0.1:7070.")
    state = connect.run(_asked(address, service, timeout))
    if as_json:
        output.print_json({"address": address, "service": service, "state": state})
    else:
        click.echo(state)
    if state != "SERVING":
        ctx.exit(1)


async def _asked(address: str, service: str, seconds: float) -> str:
    """What it says, or the code of why it does not."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from weft import rpc

    try:
        async with (
            asyncio.timeout(seconds),
            _reached(address) as target,
            rpc.Channel(target) as channel,
        ):
            stub: Any = health_pb2_grpc.HealthStub(
                channel
            )  # its types know no asynchronous channel
            said = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=seconds)
    except grpc.aio.AioRpcError as failed:
        return failed.code().name
    except TimeoutError:
        return grpc.StatusCode.DEADLINE_EXCEEDED.name
    except OSError:
        return grpc.StatusCode.UNAVAILABLE.name
    return health_pb2.HealthCheckResponse.ServingStatus.Name(said.status)


@contextlib.asynccontextmanager
async def _reached(address: str) -> AsyncIterator[str]:
    """Where gRPC reaches a server, of which this command does not know who it is.

    Raises:
        OSError: it cannot be reached, or is not of this mesh.
    """
    from weft.cli import membership

    async with membership.as_client() as mtls, contextlib.AsyncExitStack() as stack:
        target = address
        if mtls is not None and not address.startswith(_SOCKET):
            from weft.mtls import check_member
            from weft.mtls.relay import relayed

            of_the_mesh = partial(check_member, trust_domain=mtls.trust_domain)
            with contextlib.suppress(ssl.SSLError):  # not TLS, or not of the mesh's roots
                target = await stack.enter_async_context(
                    relayed(address, mtls.context, of_the_mesh)
                )
        yield target
