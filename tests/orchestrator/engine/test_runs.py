"""Runs, as their callers see them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tests.orchestrator.conftest import (
    ANN,
    BOB,
    ELSEWHERE,
    Mesh,
    Opening,
    Orchestrator,
    begin,
    chain,
    ended,
    said,
    say,
    spec,
    states,
    way,
)

from weft import rpc
from weft.agents.orchestrator.engine.settings import WorkerSettings
from weft.agents.orchestrator.runs import RunLimits
from weft.echo.v1 import echo_pb2
from weft.rpc.testing import wait_until
from weft.v1 import orchestrator_pb2 as pb
from weft.v1.workflow_pb2 import TypedMessage


def reason(failed: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> tuple[str, str]:
    error = rpc.error_from_call(failed.value)
    return error.code.name, error.reason


async def test_steps_run_in_order_in_the_name_of_whom_began_the_run(ann: Any, mesh: Mesh) -> None:
    run = await begin(ann, chain("a", "b", "c"))
    assert run.state == pb.RUN_STATE_RUNNING  # where it was begun there is room
    done = await ended(ann, run.id)
    assert done.state == pb.RUN_STATE_SUCCEEDED
    assert said(done) == "c"
    assert states(done) == {"a@1": "SUCCEEDED", "b@1": "SUCCEEDED", "c@1": "SUCCEEDED"}
    assert [call.identity.subject for call in mesh.agent.seen if call.identity] == ["user:ann"] * 3
    assert mesh.agent.effects["b"] == {f"{run.id}/b@1"}
    assert {call.trace_id for call in mesh.agent.seen} == {run.trace_id}


async def test_failed_attempts_are_tried_again(ann: Any, mesh: Mesh) -> None:
    mesh.agent.failing["a"] = 2
    node = say("a", retry={"attempts": 3, "first_pause": "0.05s"})
    done = await ended(ann, (await begin(ann, spec(nodes=[node]))).id)
    assert done.state == pb.RUN_STATE_SUCCEEDED
    assert done.steps[0].attempts == 3
    assert mesh.agent.calls["a"] == 3
    assert len(mesh.agent.effects["a"]) == 1


async def test_a_failure_without_a_way_fails_the_run_and_undoes_what_was_done(
    ann: Any, mesh: Mesh
) -> None:
    undo = {"agent": "echo", "method": "weft.echo.v1.EchoService/Say"}
    nodes = [
        say(id_, compensation={**undo, "fields": {"by_path": {"text": f"'undo {id_}'"}}})
        for id_ in ("a", "b")
    ]
    bad = say("bad", fields={"fail_with": "9"})
    graph = spec(nodes=[*nodes, bad], edges=[way("a", "b"), way("b", "bad")])
    done = await ended(ann, (await begin(ann, graph)).id)
    assert done.state == pb.RUN_STATE_FAILED
    assert (done.failure.code, done.failure.reason) == ("FAILED_PRECONDITION", "ASKED")
    assert states(done)["a@1"] == states(done)["b@1"] == "COMPENSATED"
    order = [text for text in mesh.agent.effects if text.startswith("undo")]
    assert order == ["undo b", "undo a"]
    assert mesh.agent.effects["undo a"] == {f"{done.id}/a@1~undo"}


async def test_a_run_is_begun_once_by_its_id(ann: Any, orch: Orchestrator) -> None:
    graph = chain("a")
    one = await begin(ann, graph, id="mine")
    await ended(ann, "mine")
    again = await begin(ann, graph, id="mine")
    assert again.create_time == one.create_time
    assert again.state == pb.RUN_STATE_SUCCEEDED
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await begin(ann, graph, id="mine", given=echo_pb2.SayRequest(text="else"))
    assert reason(failed) == ("ALREADY_EXISTS", "RUN_EXISTS")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await begin(ann, chain("b"), id="mine")
    assert reason(failed) == ("ALREADY_EXISTS", "RUN_EXISTS")
    # Another tenant has runs of its own.
    other = await orch.client(ELSEWHERE)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await other.GetRun(pb.GetRunRequest(id="mine"))
    assert reason(failed) == ("NOT_FOUND", "RUN_NOT_FOUND")
    assert not (await other.ListRuns(pb.ListRunsRequest())).runs
    assert (await begin(other, chain("b"), id="mine")).id == "mine"


async def test_a_run_stays_with_the_version_it_began_with(ann: Any, mesh: Mesh) -> None:
    mesh.agent.held["one"] = asyncio.Event()
    first = spec(nodes=[say("a", "'one'"), say("b", "'first'")], edges=[way("a", "b")])
    submitted = (await ann.SubmitWorkflow(pb.SubmitWorkflowRequest(spec=first))).workflow
    assert submitted.version == 1
    same = (await ann.SubmitWorkflow(pb.SubmitWorkflowRequest(spec=first))).workflow
    assert same.version == 1
    run = await begin(ann, "tried")
    await wait_until(lambda: mesh.agent.under_way)
    second = spec(nodes=[say("b", "'second'")])
    newer = (await ann.SubmitWorkflow(pb.SubmitWorkflowRequest(spec=second))).workflow
    assert newer.version == 2
    mesh.agent.held["one"].set()
    assert said(await ended(ann, run.id)) == "first"
    assert said(await ended(ann, (await begin(ann, "tried")).id)) == "second"
    assert said(await ended(ann, (await begin(ann, "tried@1")).id)) == "first"
    listed = await ann.ListWorkflows(pb.ListWorkflowsRequest())
    assert [(each.name, each.version) for each in listed.workflows] == [("tried", 2)]
    got = await ann.GetWorkflow(pb.GetWorkflowRequest(name="tried", version=1))
    assert got.workflow.spec == first


async def test_a_workflow_with_faults_is_refused(ann: Any) -> None:
    bad = spec(nodes=[say("a", "nothing")], edges=[way("a", "b")])
    checked = await ann.CheckWorkflow(pb.CheckWorkflowRequest(spec=bad))
    assert {fault.place.partition("[")[0] for fault in checked.faults} == {"nodes", "edges"}
    for call in (
        ann.SubmitWorkflow(pb.SubmitWorkflowRequest(spec=bad)),
        begin(ann, bad),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call
        assert reason(failed) == ("INVALID_ARGUMENT", "WORKFLOW_INVALID")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await begin(ann, "nobody")
    assert reason(failed) == ("NOT_FOUND", "WORKFLOW_NOT_FOUND")


async def test_a_watch_goes_on_behind_a_number(ann: Any, mesh: Mesh) -> None:
    mesh.agent.held["b"] = asyncio.Event()
    run = await begin(ann, chain("a", "b"))
    first: list[pb.RunEvent] = []
    watch = ann.WatchRun(pb.WatchRunRequest(id=run.id), timeout=20)
    async for answer in watch:
        first.append(answer.event)
        if answer.event.step.key == "b@1":
            break
    watch.cancel()
    mesh.agent.held["b"].set()
    behind = first[-1].number
    rest = [
        answer.event
        async for answer in ann.WatchRun(pb.WatchRunRequest(id=run.id, after=behind), timeout=20)
    ]
    numbers = [event.number for event in [*first, *rest]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert rest[-1].ended.state == pb.RUN_STATE_SUCCEEDED
    assert rest[-1].ended.output.json.struct_value["text"] == "b"
    assert [
        event.step.output.json.struct_value["text"] for event in rest if event.HasField("step")
    ] == ["b"]
    last = ann.WatchRun(pb.WatchRunRequest(id=run.id, after=numbers[-1]), timeout=20)
    assert [answer async for answer in last] == []


async def test_cancel_drops_calls_under_way(ann: Any, mesh: Mesh) -> None:
    mesh.agent.held["b"] = asyncio.Event()
    undo = {"agent": "echo", "method": "weft.echo.v1.EchoService/Say"}
    a = say("a", compensation={**undo, "fields": {"by_path": {"text": "'undo'"}}})
    run = await begin(ann, spec(nodes=[a, say("b")], edges=[way("a", "b")]))
    await wait_until(lambda: "b" in mesh.agent.under_way)
    began = asyncio.get_running_loop().time()
    await ann.CancelRun(pb.CancelRunRequest(id=run.id))
    await wait_until(lambda: mesh.agent.dropped == ["b"])
    took = asyncio.get_running_loop().time() - began
    done = await ended(ann, run.id)
    assert done.state == pb.RUN_STATE_CANCELLED
    assert states(done) == {"a@1": "COMPENSATED", "b@1": "SKIPPED", "a@1~undo": "SUCCEEDED"}
    assert took < 0.5  # 0.1 on a machine of its own
    # Nothing happens to a run that has ended.
    again = (await ann.CancelRun(pb.CancelRunRequest(id=run.id))).run
    assert again.state == pb.RUN_STATE_CANCELLED


async def test_a_run_ends_when_its_time_is_over(ann: Any, mesh: Mesh) -> None:
    mesh.agent.held["a"] = asyncio.Event()
    graph = chain("a")
    graph.max_duration.FromTimedelta(timedelta(seconds=0.3))
    done = await ended(ann, (await begin(ann, graph)).id)
    assert done.state == pb.RUN_STATE_FAILED
    assert done.failure.code == "DEADLINE_EXCEEDED"


async def test_timers_and_signals(ann: Any, mesh: Mesh) -> None:
    wait = {"name": "go", "type": "weft.echo.v1.SayRequest"}
    graph = spec(
        nodes=[
            say("slow", fields={"delay": "duration('0.3s')"}),
            {"id": "first", "wait": wait},
            {"id": "second", "wait": wait},
            {"id": "pause", "timer": {"pause": "0.2s"}},
            say("last", "first.text + second.text"),
        ],
        edges=[
            way("slow", "first"),
            way("first", "second"),
            way("second", "pause"),
            way("pause", "last"),
        ],
    )
    run = await begin(ann, graph)
    # Before anybody waits for it, and the same one twice.
    for _ in range(2):
        message = json_format.ParseDict({"json": {"text": "one"}}, TypedMessage())
        await ann.SignalRun(pb.SignalRunRequest(id=run.id, name="go", message=message, key="1"))

    async def waits() -> bool:
        got = (await ann.GetRun(pb.GetRunRequest(id=run.id))).run
        return got.state == pb.RUN_STATE_WAITING and states(got).get("second@1") == "WAITING"

    await wait_until(waits)
    binary = TypedMessage(
        type="weft.echo.v1.SayRequest", binary=echo_pb2.SayRequest(text="two").SerializeToString()
    )
    await ann.SignalRun(pb.SignalRunRequest(id=run.id, name="go", message=binary))
    assert said(await ended(ann, run.id)) == "onetwo"
    for request, expected in (
        (pb.SignalRunRequest(id=run.id, name="go"), ("FAILED_PRECONDITION", "RUN_ENDED")),
        (pb.SignalRunRequest(id=run.id, name="no"), ("INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        (pb.SignalRunRequest(id="none", name="no"), ("NOT_FOUND", "RUN_NOT_FOUND")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await ann.SignalRun(request)
        assert reason(failed) == expected


async def test_a_message_that_does_not_come_fails_its_step(ann: Any) -> None:
    wait = {"name": "go", "type": "weft.echo.v1.SayRequest", "timeout": "0.2s"}
    graph = spec(
        nodes=[{"id": "first", "wait": wait}, say("late"), say("never")],
        edges=[way("first", "late", failed=True), way("first", "never")],
    )
    done = await ended(ann, (await begin(ann, graph)).id)
    assert said(done) == "late"
    assert next(s for s in done.steps if s.key == "first@1").failure.reason == "WAITED_TOO_LONG"


async def test_a_run_may_be_a_step(ann: Any, mesh: Mesh) -> None:
    inner = chain("a")
    inner.name = "inner"
    await ann.SubmitWorkflow(pb.SubmitWorkflowRequest(spec=inner))
    outer = spec(
        nodes=[
            {"id": "sub", "workflow": {"name": "inner", "message": "input"}},
            say("then", "sub.text + '!'"),
        ],
        edges=[way("sub", "then")],
    )
    run = await begin(ann, outer)
    done = await ended(ann, run.id)
    assert said(done) == "a!"
    child = next(step.child_run for step in done.steps if step.key == "sub@1")
    got = (await ann.GetRun(pb.GetRunRequest(id=child))).run
    assert (got.parent, got.workflow, got.subject) == (run.id, "inner", "user:ann")
    # What fails inside fails its step; what is cancelled outside is cancelled inside.
    mesh.agent.held["a"] = asyncio.Event()
    run = await begin(ann, outer)
    await wait_until(lambda: "a" in mesh.agent.under_way)
    await ann.CancelRun(pb.CancelRunRequest(id=run.id))
    assert (await ended(ann, run.id)).state == pb.RUN_STATE_CANCELLED
    await wait_until(lambda: mesh.agent.dropped == ["a"])


async def test_a_run_goes_on_from_the_step_that_failed(ann: Any, mesh: Mesh) -> None:
    mesh.agent.failing["b"] = 1
    nodes = [say("a"), say("b", retry={"attempts": 1}), say("beside"), say("c")]
    edges = [way("a", "b"), way("a", "beside"), way("b", "c"), way("beside", "c")]
    graph = spec(nodes=nodes, edges=edges)
    run = await begin(ann, graph)
    assert (await ended(ann, run.id)).state == pb.RUN_STATE_FAILED
    again = (await ann.RetryRun(pb.RetryRunRequest(id=run.id, new_id="again"))).run
    assert again.retry_of == run.id
    assert (await ended(ann, "again")).state == pb.RUN_STATE_SUCCEEDED
    assert mesh.agent.calls["a"] == 1
    assert mesh.agent.calls["b"] == 2
    # The same again is the same.
    same = (await ann.RetryRun(pb.RetryRunRequest(id=run.id, new_id="again"))).run
    assert same.state == pb.RUN_STATE_SUCCEEDED
    whole = (await ann.RetryRun(pb.RetryRunRequest(id="again", step="a@1"))).run
    assert (await ended(ann, whole.id)).state == pb.RUN_STATE_SUCCEEDED
    assert mesh.agent.calls["a"] == 2
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await ann.RetryRun(pb.RetryRunRequest(id="again", step="z@1"))
    assert reason(failed) == ("NOT_FOUND", "STEP_NOT_FOUND")


async def test_lists_have_pages(ann: Any) -> None:
    graph = chain("a")
    ids = [(await begin(ann, graph)).id for _ in range(5)]
    found: list[str] = []
    token = ""
    while True:
        request = pb.ListRunsRequest(page_size=2, page_token=token, workflow="tried")
        page = await ann.ListRuns(request)
        found += [run.id for run in page.runs]
        if not (token := page.next_page_token):
            break
    assert found == ids[::-1]
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await ann.ListRuns(pb.ListRunsRequest(page_token="nonsense"))
    assert reason(failed)[0] == "INVALID_ARGUMENT"


async def test_streams_give_their_last_message_and_bad_requests_name_the_field(
    ann: Any, orch: Orchestrator
) -> None:
    call = {"agent": "echo", "method": "weft.echo.v1.EchoService/Repeat"}
    fields = {"by_path": {"text": "input.text", "count": "3"}}
    graph = spec(nodes=[{"id": "a", "call": {**call, "fields": fields}}])
    done = await ended(ann, (await begin(ann, graph)).id)
    assert echo_pb2.RepeatResponse.FromString(done.output.binary).number == 2
    bob = await orch.client(BOB)
    assert (await bob.GetRun(pb.GetRunRequest(id=done.id))).run.subject == "user:ann"
    for request, field in (
        (pb.StartRunRequest(), "workflow"),
        (pb.StartRunRequest(workflow="No"), "workflow"),
        (pb.StartRunRequest(spec=graph, id="a b"), "id"),
        (pb.StartRunRequest(spec=graph, input=TypedMessage(type="x.Y")), "input.type"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await ann.StartRun(request)
        error = rpc.error_from_call(failed.value)
        assert isinstance(error, rpc.InvalidArgument)
        assert [place for place, _ in error.violations] == [field]


async def test_who_has_too_many_open_runs_waits(opening: Opening, mesh: Mesh) -> None:
    async with opening(limits=RunLimits(most_open=2)) as orch:
        ann, bob = await orch.client(ANN), await orch.client(BOB)
        mesh.agent.held["a"] = asyncio.Event()
        runs = [await begin(ann, chain("a")) for _ in range(2)]
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await begin(ann, chain("a"))
        assert reason(failed) == ("RESOURCE_EXHAUSTED", "TOO_MANY_RUNS")
        await begin(bob, chain("b"))
        mesh.agent.held["a"].set()
        for run in runs:
            await ended(ann, run.id)
        await begin(ann, chain("a"))


async def test_a_watch_in_another_process_hears_at_once(opening: Opening, mesh: Mesh) -> None:
    async with opening(worker=WorkerSettings(at_once=0)) as front, opening():
        ann = await front.client(ANN)
        mesh.agent.held["a"] = asyncio.Event()
        run = await begin(ann, chain("a", "b", "c"))
        began = asyncio.get_running_loop().time()
        seen = []
        async for answer in ann.WatchRun(pb.WatchRunRequest(id=run.id), timeout=20):
            seen.append(answer.event)
            mesh.agent.held["a"].set()
        assert seen[-1].HasField("ended")
        # Nobody waited until it is looked at again all the same, which is after 10 s.
        assert asyncio.get_running_loop().time() - began < 8
