"""The agents of the mesh, and calls of their methods in bytes.

Where agents are is told by whoever follows the registry: the gateway makes its routes of the same changes, so that
what it serves and whom it calls are never of two minds. While the registry is away both stay as they were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import grpc

from weft.gateway.dataplane import headers
from weft.gateway.dataplane.balancer import Balancer
from weft.gateway.dataplane.call import Call
from weft.gateway.dataplane.connection import Connection
from weft.gateway.dataplane.drill import strike
from weft.gateway.dataplane.endpoint import Security
from weft.gateway.dataplane.errors import CallFailed
from weft.gateway.dataplane.traffic import USUAL, Traffic
from weft.rpc.call import Metadata
from weft.rpc.calling import Calling
from weft.rpc.methods import default_timeout
from weft.rpc.tracing import end_span
from weft.telemetry import Telemetry


class Mesh:
    """Calls agents by name.

    Args:
        telemetry: where calls are traced; None: nowhere.
        own: addresses of agents that are always there, by name.
        security: how connections to an agent are encrypted, by its name; None: they are not.
    """

    def __init__(
        self,
        *,
        telemetry: Telemetry | None = None,
        own: Mapping[str, str] = MappingProxyType({}),
        security: Callable[[str], Security] | None = None,
    ) -> None:
        self._security = security
        self._telemetry = telemetry
        self._own = {name: (address,) for name, address in own.items()}
        self._connections: set[Connection] = set()
        self._agents: dict[str, Balancer] = {}
        self._methods: dict[tuple[str, str, bool], Method] = {}
        self._heard = False
        self._take(self._own)

    def update(
        self,
        addresses: Mapping[str, Sequence[str]],
        traffic: Mapping[str, Traffic] = MappingProxyType({}),
    ) -> None:
        """Takes the addresses of all agents there are now, and how calls are spread where operators said so."""
        self._heard = True
        self._take({**addresses, **self._own}, traffic)

    def _take(
        self,
        now: Mapping[str, Sequence[str]],
        traffic: Mapping[str, Traffic] = MappingProxyType({}),
    ) -> None:
        for name in self._agents.keys() - now.keys():
            self._agents.pop(name).stop()
        self._methods = {key: of for key, of in self._methods.items() if key[0] in now}
        for name, places in now.items():
            balancer = self._agents.get(name)
            if balancer is None:
                security = None if self._security is None else self._security(name)
                balancer = self._agents[name] = Balancer(self._connections, security)
            spread = traffic.get(name, USUAL)
            if balancer.addresses != places or balancer.traffic != spread:
                balancer.update(places, spread)

    def knows(self, agent: str) -> bool:
        """Whether there is such an agent, or might be: nothing was heard of any yet."""
        return agent in self._agents or not self._heard

    def method(self, agent: str, path: str, *, streaming: bool = False) -> Method:
        """A method ("/package.Service/Method") of an agent.

        Args:
            agent: its name.
            path: the method.
            streaming: whether either side sends more than one message.

        Raises:
            CallFailed: nothing is known of such an agent.
        """
        key = (agent, path, streaming)
        found = self._methods.get(key)
        if found is None:
            balancer = self._agents.get(agent)
            if balancer is None:
                raise CallFailed(
                    grpc.StatusCode.UNAVAILABLE, "No such agent is known.", unseen=True
                )
            found = self._methods[key] = Method(
                agent, path, balancer, self._telemetry, streaming=streaming
            )
        return found

    async def close(self) -> None:
        """Ends all calls and connections."""
        for balancer in self._agents.values():
            balancer.stop()
        open_still = tuple(self._connections)
        for connection in open_still:
            connection.close()
        await asyncio.gather(*(connection.ended for connection in open_still))


class Method:
    """Calls one method of an agent.

    Args:
        agent: its name.
        path: "/package.Service/Method".
        balancer: the way to the agent.
        telemetry: where calls are traced.
        streaming: whether either side sends more than one message.
    """

    __slots__ = ("_balancer", "_calling", "_head", "_loop", "_streaming")

    def __init__(
        self,
        agent: str,
        path: str,
        balancer: Balancer,
        telemetry: Telemetry | None,
        *,
        streaming: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._balancer = balancer
        self._streaming = streaming
        # Doors measure requests from end to end; what an agent took is measured by the agent.
        implied = default_timeout(path, streaming=streaming)
        self._calling = Calling(path, telemetry, implied, measured=False)
        self._head = headers.request_head(path, agent)

    async def unary(
        self, request: bytes, seconds: float | None, metadata: Metadata
    ) -> tuple[bytes, Call]:
        """Makes a unary call; the answer, and the call as it ended.

        Raises:
            CallFailed: it failed.
        """
        call = await self.begin(seconds, metadata, request=request)
        try:
            return await call.answer(), call
        finally:
            call.cancel()

    async def begin(
        self, seconds: float | None, metadata: Metadata, *, request: bytes | None = None
    ) -> Call:
        """Begins a call; whoever has it must cancel it in the end, which does nothing once it is over.

        Args:
            seconds: how long the caller waits; None: as long as the method says, or the call being served.
            metadata: to send, beside identity and trace.
            request: the only message; None: messages are sent later.

        Raises:
            CallFailed: it failed already.
        """
        seconds = self._calling.timeout(seconds)
        if seconds is not None and seconds <= 0:
            raise CallFailed(
                grpc.StatusCode.DEADLINE_EXCEEDED, "The deadline has passed.", unseen=True
            )
        expires = None if seconds is None else self._loop.time() + seconds
        fault = self._balancer.traffic.fault
        if fault is not None:
            await strike(fault, metadata, seconds)
        connection = self._balancer.pick(metadata) or await self._balancer.wait(seconds, metadata)
        sent, span = self._calling.metadata(metadata)
        call = Call(
            self._head + headers.metadata(sent),
            expires,
            unary=not self._streaming,
            ended=None if span is None else partial(end_span, span),
        )
        if request is not None:
            call.put(request, last=True)
        connection.begin(call)
        return call
