"""LangGraph: a chain of nodes that do nothing, AsyncPostgresSaver on a pool, durability "sync"."""

from __future__ import annotations

import uuid
from typing import TypedDict

import uvloop
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from steps import arguments, measure

URL, STEPS, RUNS, AT_ONCE = arguments()


class State(TypedDict):
    text: str


async def nothing(state: State) -> State:
    return {"text": state["text"]}


async def main() -> None:
    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(URL, kwargs=settings, max_size=10, open=False) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        builder = StateGraph(State)
        before = START
        for number in range(STEPS):
            builder.add_node(f"n{number}", nothing)
            builder.add_edge(before, f"n{number}")
            before = f"n{number}"
        builder.add_edge(before, END)
        graph = builder.compile(checkpointer=saver)

        async def one() -> None:
            config = {
                "configurable": {"thread_id": uuid.uuid4().hex},
                "recursion_limit": STEPS + 10,
            }
            done = await graph.ainvoke({"text": "begin"}, config, durability="sync")
            assert done == {"text": "begin"}

        await measure(one, RUNS, AT_ONCE)


uvloop.run(main())
