"""The way from a door to an agent: circuit breaker, second attempts, deadline. Messages are bytes here."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import grpc

from weft import rpc
from weft.gateway.dataplane import Call, CallFailed, Mesh, Security, Traffic
from weft.gateway.failures import AgentPaused, AgentUnavailable, AgentUnknown, from_agent
from weft.gateway.guards import Breakers, Permit
from weft.gateway.guards.retries import Retries
from weft.gateway.metadata import Beside
from weft.rpc.call import Metadata
from weft.telemetry import Telemetry

T = TypeVar("T")
Answered = Callable[[Metadata], Awaitable[object]]
_NONE = frozenset[str]()


class Upstream:
    """Calls agents by name.

    Args:
        breakers: one circuit per agent and method.
        telemetry: where calls are traced.
        own: addresses of agents of the gateway's own, by name; of all others `update` tells.
        in_service: whether an agent has an instance that takes calls, as far as is known.
        retries: makes calls that may run twice.
        security: how connections to an agent are encrypted, by its name; None: they are not.
    """

    def __init__(
        self,
        breakers: Breakers,
        *,
        retries: Retries | None = None,
        telemetry: Telemetry | None = None,
        own: Mapping[str, str] = MappingProxyType({}),
        in_service: Callable[[str], bool] = lambda _: True,
        security: Callable[[str], Security] | None = None,
    ) -> None:
        self.breakers = breakers
        self._paused: Mapping[str, str] = {}
        self._retrying: Mapping[str, int] = {}
        self._read: Mapping[str, frozenset[str]] = {}
        self._in_service = in_service
        self._retries = retries or Retries()
        self._mesh = Mesh(telemetry=telemetry, own=own, security=security)

    def update(
        self,
        addresses: Mapping[str, Sequence[str]],
        paused: Mapping[str, str],
        traffic: Mapping[str, Traffic] = MappingProxyType({}),
    ) -> None:
        """Takes the addresses at which agents take calls now; calls under way at others go on.

        Args:
            addresses: by agent.
            paused: why agents are paused that operators hold back as a whole.
            traffic: how calls are spread, where operators said so.
        """
        self._paused = dict(paused)
        self._retries.keep_only(addresses)
        self._retrying = {
            name: of.retries + 1 for name, of in traffic.items() if of.retries is not None
        }
        self._read = {name: of.headers for name, of in traffic.items() if of.headers}
        self._mesh.update(addresses, traffic)

    def headers(self, agent: str) -> frozenset[str]:
        """Metadata of callers that calls of an agent go by, whatever the door."""
        return self._read.get(agent, _NONE)

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
        permit = self._enter(agent, path, deadline)
        running = self._once(agent, path, request, deadline, beside)
        return await self._judged(permit, agent, beside, running)

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
        """Calls a unary method that may run twice, and tries again as `Retries` says.

        The circuit breaker hears how it ended, as of any other call. Arguments and errors as `unary`.

        Args:
            agent: whom to call.
            path: the method.
            request: the message.
            deadline: when the caller stops waiting.
            beside: metadata to send; takes what the agent sends.
            hedge_after: seconds after which a second attempt runs beside the first; 0: never.
        """
        permit = self._enter(agent, path, deadline)
        running = self._retries.run(
            agent,
            lambda: self._once(agent, path, request, deadline, beside),
            deadline,
            attempts=self._retrying.get(agent),
            hedge_after=hedge_after,
            given_up=lambda: self.breakers.is_open(agent, path),
        )
        return await self._judged(permit, agent, beside, running)

    async def _judged(
        self,
        permit: Permit,
        agent: str,
        beside: Beside | None,
        running: Awaitable[tuple[bytes, Call]],
    ) -> bytes:
        try:
            response, call = await running
        except CallFailed as failed:
            permit.done(failed.code())
            raise self._failure(failed, agent, beside) from failed
        except BaseException:
            permit.cancelled()
            raise
        permit.done(grpc.StatusCode.OK)
        if beside is not None:
            beside.leading, beside.trailing = call.leading, call.trailing
        return response

    async def _once(
        self, agent: str, path: str, request: bytes, deadline: rpc.Deadline, beside: Beside | None
    ) -> tuple[bytes, Call]:
        """The response of one attempt, and the attempt."""
        method = self._mesh.method(agent, path)
        sent = beside.sent if beside else ()
        # The time left is asked for again at each.
        return await _seen(lambda: method.unary(request, deadline.seconds(), sent))

    def _enter(self, agent: str, path: str, deadline: rpc.Deadline | None) -> Permit:
        """Raises CircuitOpen, or AgentPaused: which says nothing about the circuit."""
        why = self._paused.get(agent)
        if why is not None:
            raise AgentPaused(f"An operator has paused {agent}" + (f": {why}" if why else "."))
        return self.breakers.enter(agent, path, deadline)

    def stream(
        self,
        agent: str,
        path: str,
        request: bytes,
        deadline: rpc.Deadline | None,
        beside: Beside | None = None,
        *,
        repeatable: bool = False,
        answered: Answered | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Calls a server-streaming method and yields its messages.

        Args:
            agent: whom to call.
            path: the method.
            request: the message.
            deadline: when the caller stops waiting; None: never.
            beside: metadata to send; takes what the agent sends.
            repeatable: whether it may run twice: it is tried again as `Retries` says, until the agent answers.
            answered: told what the agent sends before its messages, as it comes.

        Raises:
            rpc.Error: as the agent answered, or CircuitOpen, or AgentUnavailable.
        """

        async def once() -> Call:
            return await _begun(await self._begin(agent, path, deadline, beside, request))

        def attempt() -> Awaitable[Call]:
            return _seen(once)

        def begin() -> Awaitable[Call]:
            if not repeatable:
                return attempt()
            return self._retries.run(
                agent,
                attempt,
                deadline or rpc.Deadline.after_seconds(math.inf),
                attempts=self._retrying.get(agent),
                given_up=lambda: self.breakers.is_open(agent, path),
            )

        return self._messages(agent, path, deadline, beside, begin, answered)

    async def converse(
        self,
        agent: str,
        path: str,
        requests: AsyncIterator[bytes],
        deadline: rpc.Deadline | None,
        beside: Beside | None = None,
        *,
        answered: Answered | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Calls a method with a stream of requests and yields its messages; a unary answer is one.

        Args:
            agent: whom to call.
            path: the method.
            requests: the messages; the next is asked for once the agent's end has room for it.
            deadline: when the caller stops waiting; None: never.
            beside: metadata to send; takes what the agent sends.
            answered: told what the agent sends before its messages, as it comes.

        Raises:
            rpc.Error: as the agent answered, or CircuitOpen, or AgentUnavailable, or what `requests` raised.
        """
        sending: asyncio.Task[None] | None = None

        async def begin() -> Call:
            nonlocal sending
            call = await self._begin(agent, path, deadline, beside)
            sending = asyncio.create_task(_send(call, requests), name="requests")
            return await _begun(call)

        messages = self._messages(agent, path, deadline, beside, begin, answered)
        try:
            async with contextlib.aclosing(messages):
                async for message in messages:
                    yield message
        except rpc.Cancelled:
            if sending is not None and sending.done() and not sending.cancelled():
                sending.result()  # raises what went wrong with the requests, if that ended the call
            raise
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.wait([sending])
                if not sending.cancelled():
                    sending.exception()  # was told above, or came too late to matter

    async def _begin(
        self,
        agent: str,
        path: str,
        deadline: rpc.Deadline | None,
        beside: Beside | None,
        request: bytes | None = None,
    ) -> Call:
        method = self._mesh.method(agent, path, streaming=True)
        seconds = None if deadline is None else deadline.seconds()
        return await method.begin(seconds, beside.sent if beside else (), request=request)

    async def _messages(
        self,
        agent: str,
        path: str,
        deadline: rpc.Deadline | None,
        beside: Beside | None,
        begin: Callable[[], Awaitable[Call]],
        answered: Answered | None,
    ) -> AsyncGenerator[bytes, None]:
        permit = self._enter(agent, path, deadline)
        call: Call | None = None
        try:
            call = await begin()
            if beside is not None:
                beside.leading = call.leading
            if answered is not None and call.leading:
                await answered(call.leading)
            while (message := await call.receive()) is not None:
                yield message
            if beside is not None:
                beside.trailing = call.trailing
        except CallFailed as failed:
            permit.done(failed.code())
            raise self._failure(failed, agent, beside) from failed
        except BaseException:
            permit.cancelled()
            raise
        else:
            permit.done(grpc.StatusCode.OK)
        finally:
            if call is not None:
                call.cancel()

    def _failure(self, failed: CallFailed, agent: str, beside: Beside | None) -> rpc.Error:
        """What the caller is told of a failed call."""
        if beside is not None:
            beside.leading, beside.trailing = failed.leading, failed.trailing
        if failed.unseen and not self._mesh.knows(agent):
            return AgentUnknown()
        error = from_agent(failed, agent)
        if isinstance(error, AgentUnavailable) and not self._in_service(agent):
            error.message = f"{agent} has no instance in service; try again later."
        return error

    async def close(self) -> None:
        """Ends all calls and connections."""
        await self._mesh.close()


async def _seen(attempt: Callable[[], Awaitable[T]]) -> T:
    """Makes a call, once more if no agent saw it (gRFC A6, transparent retries; they take from no budget)."""
    try:
        return await attempt()
    except CallFailed as failed:
        if not failed.unseen or failed.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
    return await attempt()


async def _begun(call: Call) -> Call:
    """The call, once the agent has answered."""
    try:
        await call.begun()
    except BaseException:
        call.cancel()
        raise
    return call


async def _send(call: Call, requests: AsyncIterator[bytes]) -> None:
    """Sends the requests; what goes wrong with them ends the call."""
    try:
        async for request in requests:
            if not await call.send(request):
                return  # whoever reads the answers sees how it ended
        call.close_sending()
    except BaseException:
        call.cancel()
        raise
