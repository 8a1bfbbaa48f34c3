"""The way from a door to an agent: circuit breaker, channel, deadline. Messages are bytes here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import grpc

from weft import rpc
from weft.gateway.failures import AgentUnavailable, from_agent
from weft.gateway.guards import Breakers, Permit
from weft.gateway.guards.retries import Retries
from weft.gateway.metadata import Beside
from weft.rpc.channel import Channel
from weft.rpc.methods import DEFAULT_TIMEOUT
from weft.telemetry import Telemetry

# For calls that `Retries` makes. It also keeps gRPC from sending again what no agent saw (gRFC A6, transparent
# retries): of these calls that is an UNAVAILABLE like any other.
_NO_RETRIES = (("grpc.enable_retries", 0),)
# What an agent may send before its caller has read the last of it, in bytes a call. By itself gRPC lets that grow to
# many megabytes where the way is quick, and a caller that reads nothing has all of it kept.
_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 262_144))


class Upstream:
    """Calls agents by name.

    Args:
        breakers: one circuit per agent and method.
        telemetry: where calls are counted and traced.
        own: targets of agents of the gateway's own, by name; all others are found by the registry.
        in_service: whether an agent has an instance that takes calls, as far as is known.
        retries: makes calls that may run twice.
    """

    def __init__(
        self,
        breakers: Breakers,
        *,
        retries: Retries | None = None,
        telemetry: Telemetry | None = None,
        own: Mapping[str, str] = MappingProxyType({}),
        in_service: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.breakers = breakers
        self._telemetry = telemetry
        self._own = own
        self._in_service = in_service
        self._retries = retries or Retries()
        self._channels: dict[tuple[str, bool], Channel] = {}
        self._unary: dict[tuple[str, str, bool], Any] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def channel(self, agent: str, *, retries: bool = True) -> Channel:
        """The channel to an agent; `retries`: gRPC tries again by itself, as the registry's routes say."""
        channel = self._channels.get((agent, retries))
        if channel is None:
            # Doors measure requests from end to end; what an agent took is measured by the agent.
            channel = self._channels[agent, retries] = Channel(
                self._own.get(agent, f"xds:///{agent}"),
                telemetry=self._telemetry,
                measured=False,
                options=_WINDOW if retries else _WINDOW + _NO_RETRIES,
            )
        return channel

    def keep_only(self, agents: Mapping[str, object]) -> None:
        """Closes the channels of agents that are gone."""
        self._retries.keep_only(agents)
        gone = {agent for agent, _ in self._channels} - agents.keys() - self._own.keys()
        for agent, retries in [key for key in self._channels if key[0] in gone]:
            channel = self._channels.pop((agent, retries))
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
        """Calls a unary method ("/package.Service/Method") once.

        Args:
            agent: whom to call.
            path: the method.
            request: the message.
            deadline: when the caller stops waiting.
            beside: metadata to send; takes what the agent sends.

        Raises:
            rpc.Error: as the agent answered, or CircuitOpen, or AgentUnavailable.
        """
        call = self._callable(agent, path, retries=True)
        permit = self.breakers.enter(agent, path, deadline)
        return await self._judged(permit, agent, beside, _once(call, request, deadline, beside))

    async def repeatable(
        self,
        agent: str,
        path: str,
        request: bytes,
        deadline: rpc.Deadline,
        beside: Beside | None = None,
        *,
        hedge_after: float = 0.0,
    ) -> bytes:
        """Calls a unary method that may run twice, and tries again as `Retries` says; gRPC does not.

        The circuit breaker hears how it ended, as of any other call. Arguments and errors as `unary`.

        Args:
            agent: whom to call.
            path: the method.
            request: the message.
            deadline: when the caller stops waiting.
            beside: metadata to send; takes what the agent sends.
            hedge_after: seconds after which a second attempt runs beside the first; 0: never.
        """
        call = self._callable(agent, path, retries=False)
        permit = self.breakers.enter(agent, path, deadline)
        running = self._retries.run(
            agent,
            lambda: _once(call, request, deadline, beside),
            deadline,
            hedge_after=hedge_after,
            given_up=lambda: self.breakers.is_open(agent, path),
        )
        return await self._judged(permit, agent, beside, running)

    async def _judged(
        self,
        permit: Permit,
        agent: str,
        beside: Beside | None,
        running: Awaitable[tuple[bytes, Any]],
    ) -> bytes:
        try:
            response, answered = await running
            if beside is not None:
                beside.leading = tuple(await answered.initial_metadata() or ())
                beside.trailing = tuple(await answered.trailing_metadata() or ())
        except grpc.aio.AioRpcError as failed:
            permit.done(failed.code())
            _hear(beside, failed)
            raise self.failure(failed, agent) from failed
        except BaseException:
            permit.cancelled()
            raise
        permit.done(grpc.StatusCode.OK)
        return response

    def _callable(self, agent: str, path: str, *, retries: bool) -> Any:
        """The multi-callable of a unary method, in bytes."""
        key = (agent, path, retries)
        call = self._unary.get(key)
        if call is None:
            call = self._unary[key] = self.channel(agent, retries=retries).unary_unary(path)
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


async def _once(
    call: Any, request: bytes, deadline: rpc.Deadline, beside: Beside | None
) -> tuple[bytes, Any]:
    """The response of one attempt, and the attempt."""
    # The time left is asked for again at each.
    begun = call(
        request, timeout=deadline.seconds(), metadata=None if beside is None else beside.sent
    )
    return await begun, begun


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
