"""Workers that die, stop, or work on one thread at a time."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict

import pytest

pytest.importorskip("langgraph", reason="needs the extra weft[langgraph]")

from langgraph.graph import END, START, StateGraph
from tests.agents.langgraph.conftest import Effective

from weft.agents import Host
from weft.agents.langgraph import AsyncpgSaver, LeaseLost, ThreadTaken
from weft.rpc.testing import wait_until

WORKER = Path(__file__).with_name("worker_process.py")
Begin = Callable[[], Awaitable[Process]]


@pytest.fixture
async def begin(host: Host, database_url: str) -> AsyncIterator[Begin]:
    """Begins workers on the thread `t`."""
    begun: list[Process] = []

    async def one() -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(str(WORKER), host.mesh.registry, database_url, "t"),
            stdout=asyncio.subprocess.PIPE,
        )
        begun.append(process)
        return process

    yield one
    for process in begun:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_graphs_of_killed_workers_go_on_and_no_effect_is_doubled(
    begin: Begin, agent: Effective
) -> None:
    # The first call of a graph is one of its own kind: LangGraph does not wait for the checkpoint before it.
    for text in ("one", "two"):
        agent.held[text] = asyncio.Event()
        worker = await begin()
        await wait_until(lambda: agent.calls[text], timeout=timedelta(seconds=20))  # noqa: B023 awaited here
        worker.kill()
        agent.held.pop(text).set()
    last = await begin()
    assert (await asyncio.wait_for(last.communicate(), 20))[0] == b"THREE\n"
    assert agent.calls == {"one": 2, "two": 2, "three": 1}
    effects = {text: len(keys) for text, keys in agent.effects.items()}
    assert effects == {"one": 1, "two": 1, "three": 1}


async def test_a_worker_that_was_stopped_for_longer_than_its_lease_writes_nothing(
    begin: Begin, agent: Effective, saver: AsyncpgSaver
) -> None:
    agent.held["two"] = asyncio.Event()
    first = await begin()
    await wait_until(lambda: agent.calls["two"], timeout=timedelta(seconds=20))
    first.send_signal(signal.SIGSTOP)
    agent.held.pop("two").set()
    second = await begin()
    assert (await asyncio.wait_for(second.communicate(), 20))[0] == b"THREE\n"
    thread: Any = {"configurable": {"thread_id": "t"}}
    before = [one async for one in saver.alist(thread)]
    first.send_signal(signal.SIGCONT)
    assert await asyncio.wait_for(first.wait(), 20) != 0
    assert [one async for one in saver.alist(thread)] == before
    assert len(agent.effects["two"]) == len(agent.effects["three"]) == 1
    assert agent.calls["three"] == 1


class State(TypedDict, total=False):
    said: str


def graph(saver: AsyncpgSaver, *nodes: Callable[[State], Awaitable[State]]) -> Any:
    builder = StateGraph(State)
    before = START
    for number, node in enumerate(nodes):
        builder.add_node(str(number), node)
        builder.add_edge(before, str(number))
        before = str(number)
    builder.add_edge(before, END)
    return builder.compile(checkpointer=saver)


async def test_one_of_two_writers_has_the_fence(saver: AsyncpgSaver) -> None:
    """The first is never told that it lost the lease: only its writes show."""
    going_on = asyncio.Event()

    async def waits(_: State) -> State:
        await going_on.wait()
        return {"said": "first"}

    async def says(_: State) -> State:
        return {"said": "second"}

    first = await saver._database.fetchval("take_lease", "t", timedelta(0))
    config: Any = {"configurable": {"thread_id": "t", "__weft_fence": first}}
    running = asyncio.create_task(graph(saver, waits, says).ainvoke({}, config, durability="sync"))

    async def has_begun() -> bool:
        return await saver.aget_tuple(config) is not None

    await wait_until(has_begun)
    async with saver.lease("t") as lease:
        assert lease.fence > first
        done = await graph(saver, says).ainvoke({}, lease.config, durability="sync")
        assert done == {"said": "second"}
        going_on.set()
        with pytest.raises(LeaseLost):
            await running
    newest = await saver.aget_tuple({"configurable": {"thread_id": "t"}})
    assert newest is not None
    assert newest.checkpoint["channel_values"]["said"] == "second"


async def test_a_leased_thread_is_written_to_by_its_holder_only(saver: AsyncpgSaver) -> None:
    async def says(_: State) -> State:
        return {"said": "it"}

    made = graph(saver, says)
    thread: Any = {"configurable": {"thread_id": "t"}}
    async with saver.lease("t") as lease:
        with pytest.raises(ThreadTaken):
            async with saver.lease("t"):
                pytest.fail("it was leased twice")
        with pytest.raises(ThreadTaken):
            await made.ainvoke({}, thread)
        with pytest.raises(ThreadTaken):
            await saver.adelete_thread("t")
        await made.ainvoke({}, lease.config)
        await made.ainvoke({}, {"configurable": {"thread_id": "other"}})
    with pytest.raises(LeaseLost):
        await made.ainvoke({}, lease.config)
    assert (await made.ainvoke({}, thread))["said"] == "it"
    await saver.adelete_thread("t")
    assert await saver.aget_tuple(thread) is None


async def test_a_lease_is_kept_and_whoever_loses_it_is_cancelled(saver: AsyncpgSaver) -> None:
    life = timedelta(seconds=0.3)

    async def holds() -> None:
        async with saver.lease("t", life=life) as lease:
            await asyncio.sleep(0.5)
            with pytest.raises(ThreadTaken):
                await saver.adelete_thread("t")
            await saver._database.execute("end_lease", "t", lease.fence)
            await asyncio.sleep(20)

    with pytest.raises(LeaseLost):
        await holds()
    async with saver.lease("t", life=life):
        await asyncio.sleep(0)
