"""How commands reach the brokers, and what they all say of queues."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from weft.cli import failures, membership

if TYPE_CHECKING:
    from weft.mtls import Credentials
    from weft.rpc import Channel
    from weft.v1 import broker_pb2 as pb

PATIENCE = 15.0  # seconds for an answer
_PROBE = 1.0  # seconds for a broker that is one of several to be there
_PAGE = 1_000
_COMPLETION = 1.0  # seconds


def sender() -> str:
    """Who sends, when a person does it from a terminal."""
    return f"cli:{getpass.getuser()}"


@contextlib.asynccontextmanager
async def connected(addresses: str) -> AsyncIterator[Broker]:
    """A broker of those at "host:port,host:port": the first that is there.

    Raises:
        Failure: none can be reached; says what to do.
        rpc.Error: the broker refuses something.
    """
    known = [address.strip() for address in addresses.split(",") if address.strip()]
    if not known:
        raise failures.Failure(
            "No broker is set: name one with --broker or WEFT_BROKER, or start everything with `weft up`."
        )
    async with contextlib.AsyncExitStack() as stack:
        mtls = await stack.enter_async_context(membership.as_client())
        yield Broker(known, await _first(known, stack, mtls), mtls)


async def _first(
    known: list[str], stack: contextlib.AsyncExitStack, mtls: Credentials | None
) -> Channel:
    from weft import rpc

    for address in known[:-1]:
        channel = rpc.Channel(address, mtls=mtls, part="broker")
        try:
            async with asyncio.timeout(_PROBE):
                await channel.channel_ready()
        except TimeoutError:
            await channel.close()
        else:
            return await stack.enter_async_context(channel)
    last = rpc.Channel(known[-1], mtls=mtls, part="broker")
    return await stack.enter_async_context(last)


class Broker:
    """What commands ask a broker."""

    def __init__(
        self, addresses: list[str], channel: Channel, mtls: Credentials | None = None
    ) -> None:
        from weft.v1 import broker_pb2_grpc

        self.mtls = mtls
        self.addresses = addresses
        self.stub = broker_pb2_grpc.BrokerServiceStub(channel)

    async def call(self, method: str, request: Any, timeout: float = PATIENCE) -> Any:  # noqa: ASYNC109 gRPC's own
        """A unary method of weft.v1.BrokerService."""
        with self.told():
            return await getattr(self.stub, method)(request, timeout=timeout)

    @contextlib.contextmanager
    def told(self) -> Any:
        """Turns failed calls into what a person can act upon."""
        import grpc

        from weft import rpc

        try:
            yield
        except grpc.aio.AioRpcError as failed:
            error = rpc.error_from_call(failed)
            if isinstance(error, rpc.Unavailable) and error.reason == rpc.Unavailable.reason:
                raise failures.Failure(
                    f"No broker can be reached at {', '.join(self.addresses)}. Start everything with "
                    "`weft up`, or name another broker with --broker or WEFT_BROKER."
                ) from failed
            raise error from failed

    async def queues(self, pattern: str = "") -> list[pb.QueueStatus]:
        """How all queues of a pattern are doing, by name; internal ones only where the pattern asks for them."""
        from weft.v1 import broker_pb2

        found: list[pb.QueueStatus] = []
        request = broker_pb2.ListQueuesRequest(pattern=pattern, page_size=_PAGE)
        while True:
            page = await self.call("ListQueues", request)
            found += page.queues
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        return [one for one in found if not one.queue.startswith("_") or pattern.startswith("_")]

    async def queue(self, name: str) -> pb.QueueStatus:
        """How a queue is doing.

        Raises:
            Failure: there is none; names what is similar.
        """
        from weft import rpc
        from weft.v1 import broker_pb2

        try:
            found = await self.call("Describe", broker_pb2.DescribeRequest(queue=name))
        except rpc.NotFound as failed:
            hint = failures.nearest(name, [one.queue for one in await self.queues()])
            raise failures.Failure(
                f"There is no queue {name!r}.{hint} `weft queues` lists them."
            ) from failed
        status: pb.QueueStatus = found.status
        return status


def complete_queue(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of queues, for the shell."""
    from weft import config

    async def names() -> list[CompletionItem]:
        addresses = ctx.params.get("set_broker") or config.load().broker
        async with asyncio.timeout(_COMPLETION), connected(addresses) as broker:
            found = await broker.queues(f"{incomplete}*")
        return [CompletionItem(one.queue, help=f"{one.depth} messages") for one in found]

    with contextlib.suppress(Exception):  # whatever goes wrong, there is nobody to tell
        return asyncio.run(names())
    return []
