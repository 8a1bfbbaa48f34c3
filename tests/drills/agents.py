"""Agents that can be brought into trouble."""

from __future__ import annotations

import asyncio
from typing import Any

from weft import config
from weft.agents import Mesh, serving
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc


class Thinker(echo_pb2_grpc.EchoServiceServicer):
    """Has a model say something: that of the table of `[models]` which the request names."""

    def __init__(self, mesh: Mesh) -> None:
        assert mesh.models is not None
        self._models = mesh.models

    async def Say(self, request: echo_pb2.SayRequest, context: Any) -> echo_pb2.SayResponse:
        del context
        reply = await self._models[request.text].generate("What is a drill?")
        return echo_pb2.SayResponse(text=reply.text)


async def narrow() -> None:
    """An agent that works on one call at a time."""
    async with serving.running(config.load(), "agents") as host:
        host.add(Echo(), agent="narrow", max_concurrency=1)
        await host.start()
        await serving.stopped(host)


if __name__ == "__main__":
    asyncio.run(narrow())
