"""The way from a door to an agent: circuit breaker, channel, deadline. Messages are bytes here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any

import grpc

from weft import rpc
from weft.gateway.failures import AgentUnavailable, from_agent
from weft.gateway.guards import Breakers
from weft.gateway.metadata import Beside
from weft.rpc.channel import Channel
from weft.rpc.methods import DEFAULT_TIMEOUT
from weft.telemetry import Telemetry


class Upstream:
    """Calls agents by name.

    Args:
        breakers: one circuit per agent and method.
        telemetry: where calls are counted and traced.
        in_service: whether an agent has an instance that takes calls, as far as is known.
    """

    def __init__(
        self,
        breakers: Breakers,
        *,
        telemetry: Telemetry | None = None,
        in_service: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.breakers = breakers
        self._telemetry = telemetry
        self._in_service = in_service
        self._channels: dict[str, Channel] = {}
        self._unary: dict[tuple[str, str], Any] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def channel(self, agent: str) -> Channel:
        """The channel to an agent."""
        channel = self._channels.get(agent)
        if channel is None:
            # Doors measure requests from end to end; what an agent took is measured by the agent.
            channel = self._channels[agent] = Channel(
                f"xds:///{agent}", telemetry=self._telemetry, measured=False
            )
        return channel

    def keep_only(self, agents: Mapping[str, object]) -> None:
        """Closes the channels of agents that are gone."""
        for agent in self._channels.keys() - agents.keys():
            channel = self._channels.pop(agent)
            self._unary = {k: v for k, v in self._unary.items() if k[0] != agent}
            task = asyncio.create_task(channel.close(grace=DEFAULT_TIMEOUT))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def unary(
        self,
        agent: str,
        path: str,
        request: bytes,
        deadline: rpc.Deadline,
        beside: Beside | None = None,
    ) -> bytes:
        """Calls a unary method ("/package.Service/Method") once; gRPC's own retries apply beneath.

        Args:
            agent: whom to call.
            path: the method.
            request: the message.
            deadline: when the caller stops waiting.
            beside: metadata to send; takes what the agent sends.

        Raises:
            rpc.Error: as the agent answered, or CircuitOpen, or AgentUnavailable.
        """
        call = self.begin_unary(agent, path)
        permit = self.breakers.enter(agent, path, deadline)
        sent = None if beside is None else beside.sent
        begun = call(request, timeout=deadline.seconds(), metadata=sent)
        try:
            response: bytes = await begun
            if beside is not None:
                beside.leading = tuple(await begun.initial_metadata() or ())
                beside.trailing = tuple(await begun.trailing_metadata() or ())
        except grpc.aio.AioRpcError as failed:
            permit.done(failed.code())
            _hear(beside, failed)
            raise self.failure(failed, agent) from failed
        except BaseException:
            permit.cancelled()
            raise
        permit.done(grpc.StatusCode.OK)
        return response

    def begin_unary(self, agent: str, path: str) -> Any:
        """The multi-callable of a unary method, in bytes."""
        key = (agent, path)
        call = self._unary.get(key)
        if call is None:
            call = self._unary[key] = self.channel(agent).unary_unary(path)
        return call

    async def stream(
        self,
        agent: str,
        path: str,
        request: bytes,
        deadline: rpc.Deadline | None,
        beside: Beside | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Calls a server-streaming method and yields its messages.

        Args:
            agent: whom to call.
            path: the method.
            request: the message.
            deadline: when the caller stops waiting; None: never.
            beside: metadata to send; takes what the agent sends.

        Raises:
            rpc.Error: as the agent answered, or CircuitOpen, or AgentUnavailable.
        """
        permit = self.breakers.enter(agent, path, deadline)
        call = self.channel(agent).unary_stream(path)(
            request,
            timeout=None if deadline is None else deadline.seconds(),
            metadata=None if beside is None else beside.sent,
        )
        try:
            if beside is not None:
                beside.leading = tuple(await call.initial_metadata() or ())
            async for message in call:
                yield message
            if beside is not None:
                beside.trailing = tuple(await call.trailing_metadata() or ())
        except grpc.aio.AioRpcError as failed:
            permit.done(failed.code())
            _hear(beside, failed)
            raise self.failure(failed, agent) from failed
        except BaseException:
            permit.cancelled()
            raise
        else:
            permit.done(grpc.StatusCode.OK)
        finally:
            call.cancel()

    async def converse(
        self,
        agent: str,
        path: str,
        requests: AsyncIterator[bytes],
        deadline: rpc.Deadline | None,
        beside: Beside | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Calls a method with a stream of requests and yields its messages; a unary answer is one.

        Args:
            agent: whom to call.
            path: the method.
            requests: the messages; the next is asked for once the agent's end has room for it.
            deadline: when the caller stops waiting; None: never.
            beside: metadata to send; takes what the agent sends.

        Raises:
            rpc.Error: as the agent answered, or CircuitOpen, or AgentUnavailable, or what `requests` raised.
        """
        permit = self.breakers.enter(agent, path, deadline)
        call = self.channel(agent).stream_stream(path)(
            timeout=None if deadline is None else deadline.seconds(),
            metadata=None if beside is None else beside.sent,
        )
        sending = asyncio.create_task(_send(call, requests), name="requests")
        try:
            async for message in call:
                yield message
            if beside is not None:
                beside.leading = tuple(await call.initial_metadata() or ())
                beside.trailing = tuple(await call.trailing_metadata() or ())
        except grpc.aio.AioRpcError as failed:
            permit.done(failed.code())
            _hear(beside, failed)
            raise self.failure(failed, agent) from failed
        except asyncio.CancelledError:
            permit.cancelled()
            if sending.done() and not sending.cancelled() and (wrong := sending.exception()):
                raise wrong from None
            raise
        except BaseException:
            permit.cancelled()
            raise
        else:
            permit.done(grpc.StatusCode.OK)
        finally:
            call.cancel()
            sending.cancel()
            await asyncio.wait([sending])
            if not sending.cancelled():
                sending.exception()  # was told above, or came too late to matter

    def failure(self, failed: grpc.aio.AioRpcError, agent: str) -> rpc.Error:
        """What the caller is told of a failed call."""
        error = from_agent(failed, agent)
        if isinstance(error, AgentUnavailable) and not self._in_service(agent):
            error.message = f"{agent} has no instance in service; try again later."
        return error

    async def close(self) -> None:
        """Closes all channels."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
        self._unary.clear()
        await asyncio.gather(*self._closing)


async def _send(call: Any, requests: AsyncIterator[bytes]) -> None:
    """Sends the requests; what goes wrong with them ends the call."""
    try:
        async for request in requests:
            await call.write(request)
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass  # the call has ended: whoever reads its answers sees how
    except BaseException:
        call.cancel()
        raise


def _hear(beside: Beside | None, failed: grpc.aio.AioRpcError) -> None:
    if beside is not None:
        beside.leading = tuple(failed.initial_metadata() or ())
        beside.trailing = tuple(failed.trailing_metadata() or ())
