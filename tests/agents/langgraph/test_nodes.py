"""Graphs whose nodes call agents."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated, Any, TypedDict

import asyncpg
import pytest

pytest.importorskip("langgraph", reason="needs the extra weft[langgraph]")

from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt
from tests.agents.langgraph.conftest import Effective

from weft import rpc
from weft.agents import Mesh
from weft.agents.langgraph import AsyncpgSaver, NotStored, agent_node
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.call import Call, serve_as
from weft.v1.identity_pb2 import Identity

Servicer = echo_pb2_grpc.EchoServiceServicer


class State(TypedDict, total=False):
    question: str
    answer: str
    caller: str
    whole: dict[str, Any]


class Nothing(TypedDict):
    """What nodes at one time may change of a state."""


def asking(mesh: Mesh, method: Any = Servicer.SayOnce, **further: Any) -> Any:
    return agent_node(
        mesh,
        method,
        request={"say.text": "question"},
        into={"answer": "said.text", "caller": "said.caller"},
        state=State,
        **further,
    )


def grown(log: list[str], added: list[list[str]]) -> list[str]:
    return [*log, *(each for some in added for each in some)]


class Growing(TypedDict):
    log: Annotated[list[str], DeltaChannel(grown, snapshot_frequency=3)]


def graph(node: Any, saver: Any = None, **further: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("ask", node, **further)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


def thread(name: str = "t", **further: Any) -> Any:
    return {"configurable": {"thread_id": name, **further}}


async def test_an_agent_answers_into_the_state(
    mesh: Mesh, agent: Effective, saver: AsyncpgSaver
) -> None:
    node = asking(mesh, timeout=timedelta(seconds=3))
    state = await graph(node, saver).ainvoke({"question": "why"}, thread())
    assert state == {"question": "why", "answer": "WHY", "caller": "user:ann"}
    assert 0 < agent.left[0] < 3.1  # gRPC rounds what is left up
    (key,) = agent.effects["why"]
    name, checkpoint, step, task = key.split("/")
    found = await saver.aget_tuple(thread(checkpoint_id=checkpoint))
    assert (name, step) == ("t", "ask")
    assert found is not None
    assert task


async def test_identity_deadline_and_trace_of_the_call_being_served_go_on(
    mesh: Mesh, agent: Effective, saver: AsyncpgSaver
) -> None:
    async def served() -> Any:
        traced = (("traceparent", f"00-{'a' * 32}-{'b' * 16}-00"),)
        entry = ("weft-identity-bin", Identity(subject="user:bob").SerializeToString())
        serve_as(Call.at_door("/x", traced, rpc.Deadline.after_seconds(2), entry))
        return await graph(asking(mesh), saver).ainvoke({"question": "why"}, thread())

    assert (await asyncio.create_task(served()))["caller"] == "user:bob"
    assert agent.seen[0].trace_id == "a" * 32
    assert agent.left[0] < 2.1


async def test_a_run_has_a_caller_and_a_trace_of_its_own(mesh: Mesh, agent: Effective) -> None:
    node = asking(mesh, identity=lambda runtime: Identity(subject=runtime.context["user"]))
    traced = thread(traceparent=f"00-{'c' * 32}-{'b' * 16}-00")
    done = graph(node).ainvoke({"question": "why"}, traced, context={"user": "user:cat"})
    assert (await done)["caller"] == "user:cat"
    assert rpc.current_call() is None


async def test_each_message_of_a_stream_is_written_and_the_last_is_the_response(
    mesh: Mesh,
) -> None:
    node = agent_node(
        mesh,
        Servicer.Repeat,
        request=lambda state: echo_pb2.RepeatRequest(text=state["question"], count=3),
        into="whole",
        state=State,
    )
    running = graph(node).astream({"question": "why"}, stream_mode=["custom", "values"])
    parts = [part async for part in running]
    written = [part for mode, part in parts if mode == "custom"]
    assert written == [{"text": "why"}, *({"text": "why", "number": n} for n in (1, 2))]
    assert parts[-1][1]["whole"] == {"text": "why", "number": 2}


async def test_an_attempt_that_is_repeated_has_the_same_key(
    mesh: Mesh, agent: Effective, saver: AsyncpgSaver
) -> None:
    agent.refusing["why"] = 1
    retry = RetryPolicy(
        initial_interval=0.01, jitter=False, retry_on=rpc.Unavailable, max_attempts=2
    )
    await graph(asking(mesh), saver, retry_policy=retry).ainvoke({"question": "why"}, thread())
    assert agent.calls["why"] == 2
    assert len(agent.effects["why"]) == 1


async def test_a_graph_that_failed_goes_on_with_the_same_key(
    mesh: Mesh, agent: Effective, saver: AsyncpgSaver
) -> None:
    agent.refusing["why"] = 1
    made = graph(asking(mesh), saver)
    with pytest.raises(rpc.Unavailable):
        await made.ainvoke({"question": "why"}, thread("täg"))
    assert (await made.ainvoke(None, thread("täg")))["answer"] == "WHY"
    assert agent.calls["why"] == 2
    assert len(agent.effects["why"]) == 1
    await made.ainvoke({"question": "why"}, thread("täg"))
    assert len(agent.effects["why"]) == 2


async def test_nodes_at_one_time_and_in_subgraphs_have_keys_of_their_own(
    mesh: Mesh, agent: Effective, saver: AsyncpgSaver
) -> None:
    inner = StateGraph(State, output_schema=Nothing)
    inner.add_node("ask", asking(mesh))
    inner.add_edge(START, "ask")
    builder = StateGraph(State)
    builder.add_node("spread", lambda _: {})
    builder.add_node("inner", inner.compile())
    builder.add_edge(START, "spread")
    sends = [Send("inner", {"question": "why"}) for _ in range(3)]
    builder.add_conditional_edges("spread", lambda _: sends, ["inner"])
    made = builder.compile(checkpointer=saver)
    agent.refusing["why"] = 1
    with pytest.raises(rpc.Unavailable):
        await made.ainvoke({}, thread("x" * 300))
    await made.ainvoke(None, thread("x" * 300))
    assert len(agent.effects["why"]) == 3
    assert all(len(key) <= 255 for key in agent.effects["why"])


async def test_no_effect_before_the_checkpoint_is_stored(
    mesh: Mesh, agent: Effective, saver: AsyncpgSaver
) -> None:
    made = graph(asking(mesh), saver)
    with pytest.raises(NotStored):
        await made.ainvoke({"question": "why"}, thread(), durability="exit")
    assert not agent.calls

    class Slow(AsyncpgSaver):
        async def aput(self, *args: Any) -> Any:
            await stored.wait()
            return await super().aput(*args)

        async def has(self, config: Any) -> bool:
            found = await super().has(config)
            looked.set()
            return found

    stored, looked = asyncio.Event(), asyncio.Event()
    slow = graph(asking(mesh), Slow(saver._database))
    running = asyncio.create_task(slow.ainvoke({"question": "b"}, thread("b")))
    await looked.wait()
    assert not agent.calls
    stored.set()
    assert (await running)["answer"] == "B"


async def test_any_saver_will_do(mesh: Mesh, agent: Effective) -> None:
    made = graph(asking(mesh), InMemorySaver())
    assert (await made.ainvoke({"question": "why"}, thread()))["answer"] == "WHY"


async def test_interrupts_history_and_changes_of_the_state(saver: AsyncpgSaver) -> None:
    def ask(state: State) -> State:
        return {"answer": interrupt(state["question"])}

    made = graph(ask, saver)
    async with saver.lease("t") as lease:
        paused = await made.ainvoke({"question": "may I?"}, lease.config)
        assert [one.value for one in paused["__interrupt__"]] == ["may I?"]
        await made.aupdate_state(lease.config, {"caller": "x" * 1000})
        done = await made.ainvoke(Command(resume="yes"), lease.config)
    assert done == {"question": "may I?", "answer": "yes", "caller": "x" * 1000}
    history = [one.values async for one in made.aget_state_history(thread())]
    assert history[0] == done
    assert history[-1] == {}
    assert [one async for one in made.aget_state_history(thread(), limit=2)][1].next == ("ask",)
    await saver.aprune(["t"])
    assert (await made.aget_state(thread())).values == done
    assert len([one async for one in made.aget_state_history(thread())]) == 1


async def test_lost_connections_are_made_again(saver: AsyncpgSaver, database_url: str) -> None:
    admin = await asyncpg.connect(database_url)

    async def cut(_: State) -> State:
        await admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        return {"answer": "x" * 1000}

    made = graph(cut, saver)
    done = await made.ainvoke({"question": "why"}, thread(), durability="sync")
    await admin.close()
    assert (await made.aget_state(thread())).values == done


async def test_what_a_delta_channel_is_rebuilt_from_is_kept(saver: AsyncpgSaver) -> None:
    builder = StateGraph(Growing)
    builder.add_node("say", lambda state: {"log": [f"said {len(state['log'])}"]})
    builder.add_edge(START, "say")
    builder.add_edge("say", END)
    made = builder.compile(checkpointer=saver)
    for _ in range(4):
        done = await made.ainvoke({"log": ["asked"]}, thread())
    before = len([one async for one in saver.alist(thread())])
    await saver.aprune(["t"])
    assert (await made.aget_state(thread())).values == done
    assert len(done["log"]) == 8
    assert len([one async for one in saver.alist(thread())]) < before
