"""Calls and messages at a steady pace, and what became of each."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc
import httpx
from tests.faults.rolling.world import World

from weft import rpc
from weft.agents import Mesh
from weft.echo.v1 import echo_pb2, echo_pb2_grpc

_CALL = 10.0  # seconds


@dataclass(slots=True)
class Tally:
    """One kind of call.

    Attributes:
        done: how many were answered.
        failed: how many were not, by what went wrong.
        slowest: seconds of the slowest one, by the part that was restarting.
    """

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)

    def took(self, seconds: float, amid: str) -> None:
        self.done += 1
        self.slowest[amid] = max(self.slowest.get(amid, 0.0), seconds)


class Load:
    """Calls by `xds:///echo` and at the gateways, in turn, and messages.

    Args:
        world: what they go to.
        rate: of calls a second, and of messages.
    """

    def __init__(self, world: World, rate: float) -> None:
        self._world = world
        self._rate = rate
        self.amid = "start"
        self.direct, self.gateway, self.messages = Tally(), Tally(), Tally()
        self.accepted: list[str] = []
        self._ends = asyncio.Event()

    def end(self) -> None:
        """Begins nothing more."""
        self._ends.set()

    async def run(self) -> None:
        """Makes calls and sends messages until `end`, and returns when each has come to its own."""
        async with (
            Mesh(self._world.registries, brokers=self._world.brokers) as mesh,
            httpx.AsyncClient(
                timeout=_CALL, limits=httpx.Limits(max_keepalive_connections=16)
            ) as http,
        ):
            stub = mesh.stub(echo_pb2_grpc.EchoServiceStub)

            async def direct(number: int) -> None:
                await stub.Say(echo_pb2.SayRequest(text=f"call-{number}"), timeout=_CALL)

            async def at_gateway(number: int) -> None:
                await self._ask(http, number)

            async def message(number: int) -> None:
                text = f"message-{number}"
                request = echo_pb2.SayRequest(text=text)
                with rpc.Deadline.after_seconds(60).applied():
                    await mesh.send(echo_pb2_grpc.EchoServiceServicer.Say, request, id=text)
                self.accepted.append(text)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._at(self._rate / 2, self.direct, direct))
                tasks.create_task(self._at(self._rate / 2, self.gateway, at_gateway))
                tasks.create_task(self._at(self._rate, self.messages, message))

    async def _at(self, rate: float, tally: Tally, act: Callable[[int], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        due, number = loop.time(), 0
        async with asyncio.TaskGroup() as tasks:
            while not self._ends.is_set():
                tasks.create_task(self._one(tally, act, number))
                number += 1
                due = max(due + 1 / rate, loop.time() - 1)
                await asyncio.sleep(max(0.0, due - loop.time()))

    async def _one(self, tally: Tally, act: Callable[[int], Awaitable[None]], number: int) -> None:
        began, amid = time.perf_counter(), self.amid
        try:
            await act(number)
        except grpc.aio.AioRpcError as failed:
            tally.failed[f"{amid}: {failed.code().name} {failed.details()}"] += 1
        except (rpc.Error, httpx.HTTPError, RuntimeError) as failed:
            tally.failed[f"{amid}: {failed!r}"[:300]] += 1
        else:
            tally.took(time.perf_counter() - began, amid)

    async def _ask(self, http: httpx.AsyncClient, number: int) -> None:
        """Asks a gateway, as whatever stands before several does: where there is no connection, the next one."""
        urls = self._world.gateways
        for attempt in range(2 * len(urls)):
            url = urls[(number + attempt) % len(urls)]
            try:
                answer = await http.get(f"{url}/v1/echo/call-{number}")
            except httpx.TransportError:
                if attempt == 2 * len(urls) - 1:
                    raise
                continue
            if answer.status_code != 200:
                raise RuntimeError(f"{answer.status_code} {answer.text}")
            return
