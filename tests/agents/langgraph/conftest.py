"""Checkpoints on a database of a test's own, and an agent whose effects are counted."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from weft import rpc
from weft.agents import Host, Mesh
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.registry import Registry
from weft.v1.identity_pb2 import Identity

if TYPE_CHECKING:
    from weft.agents.langgraph import AsyncpgSaver


@pytest.fixture
async def saver(database_url: str) -> AsyncIterator[AsyncpgSaver]:
    from weft.agents.langgraph import AsyncpgSaver

    async with AsyncpgSaver.opened(database_url) as opened:
        yield opened


@dataclass
class Effective(echo_pb2_grpc.EchoServiceServicer):
    """Says back what it is told, and does something by it once for each idempotency key."""

    calls: collections.Counter[str] = field(default_factory=collections.Counter)
    effects: dict[str, set[str]] = field(default_factory=lambda: collections.defaultdict(set))
    seen: list[rpc.Call] = field(default_factory=list)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    """What calls of a text wait for."""
    refusing: collections.Counter[str] = field(default_factory=collections.Counter)
    """How often calls of a text still fail, after they had their effect."""
    left: list[float] = field(default_factory=list)

    def forget(self) -> None:
        """What was seen so far."""
        for each in (self.calls, self.effects, self.seen, self.held, self.refusing, self.left):
            each.clear()

    async def SayOnce(self, request: Any, context: Any) -> Any:
        return echo_pb2.SayOnceResponse(said=await self.Say(request.say, context))

    async def Say(self, request: Any, context: Any) -> Any:
        call = rpc.current_call()
        assert call is not None
        self.seen.append(call)
        self.left.append(context.time_remaining())
        self.calls[request.text] += 1
        self.effects[request.text].add(str(call.first("idempotency-key")))
        if (held := self.held.get(request.text)) is not None:
            await held.wait()
        if self.refusing[request.text]:
            self.refusing[request.text] -= 1
            raise rpc.Unavailable("not now")
        caller = call.identity.subject if call.identity else ""
        return echo_pb2.SayResponse(text=request.text.upper(), caller=caller)

    async def Repeat(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for number in range(request.count):
            yield echo_pb2.RepeatResponse(text=request.text, number=number)


@pytest_asyncio.fixture(scope="module")
async def served(
    fresh_xds_of_module: None, database_of_module: str
) -> AsyncIterator[tuple[Host, Effective]]:
    url = database_of_module
    async with (
        Registry(database_url=url, address="127.0.0.1:0", cold_start=timedelta(0)) as registry,
        Host(registry=registry.address) as host,
    ):
        agent = Effective()
        host.add(agent)
        await host.start()
        yield host, agent


@pytest.fixture
def host(served: tuple[Host, Effective]) -> Host:
    return served[0]


@pytest.fixture
def agent(served: tuple[Host, Effective]) -> Effective:
    """The agent `echo`, in service; it has seen nothing yet."""
    found = served[1]
    found.forget()
    return found


@pytest.fixture
async def mesh(host: Host, agent: Effective) -> AsyncIterator[Mesh]:
    made = Mesh(host.mesh.registry, identity=Identity(subject="user:ann"))
    yield made
    await made.close()
