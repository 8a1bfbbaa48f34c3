"""A worker that goes on with a graph of three calls: REGISTRY DATABASE_URL THREAD."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from weft.agents import Mesh
from weft.agents.langgraph import AsyncpgSaver, ThreadTaken, agent_node
from weft.echo.v1 import echo_pb2, echo_pb2_grpc


class State(TypedDict, total=False):
    said: str


def saying(mesh: Mesh, text: str) -> Any:
    return agent_node(
        mesh,
        echo_pb2_grpc.EchoServiceServicer.SayOnce,
        request=lambda _: echo_pb2.SayOnceRequest(say={"text": text}),
        into={"said": "said.text"},
        state=State,
    )


def graph(mesh: Mesh, saver: AsyncpgSaver) -> Any:
    builder = StateGraph(State)
    for before, name in ((START, "one"), ("one", "two"), ("two", "three")):
        builder.add_node(name, saying(mesh, name))
        builder.add_edge(before, name)
    builder.add_edge("three", END)
    return builder.compile(checkpointer=saver)


async def main(registry: str, database_url: str, thread: str) -> None:
    mesh = Mesh(registry)
    async with AsyncpgSaver.opened(database_url) as saver:
        made = graph(mesh, saver)
        while True:
            try:
                async with saver.lease(thread, life=timedelta(seconds=1)) as lease:
                    begun = await saver.aget_tuple(lease.config)
                    done = await made.ainvoke(
                        {} if begun is None else None, lease.config, durability="sync"
                    )
                    break
            except ThreadTaken:
                await asyncio.sleep(0.05)
    sys.stdout.write(done["said"] + "\n")
    await mesh.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
