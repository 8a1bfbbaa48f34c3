"""Workers that are killed, stopped, told to end; a database that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.orchestrator.conftest import (
    ANN,
    QUICK,
    Mesh,
    Opening,
    Orchestrator,
    begin,
    chain,
    ended,
    once,
    said,
    say,
    spec,
    states,
    way,
)

from weft.agents.orchestrator import fleet
from weft.agents.orchestrator.engine.bells import Bells
from weft.agents.orchestrator.engine.log import Log
from weft.agents.orchestrator.engine.settings import WorkerSettings
from weft.agents.orchestrator.engine.store import LeaseLost, RunStore
from weft.rpc.testing import wait_until
from weft.v1 import orchestrator_pb2 as pb
from weft.v1.workflow_pb2 import TypedMessage

LEASE = timedelta(seconds=1)
PATIENCE = timedelta(seconds=20)
_SCRIPT = Path(__file__).with_name("worker_process.py")

Starting = Callable[[], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def starting(database_url: str, mesh: Mesh) -> AsyncIterator[Starting]:
    """Starts workers, as processes of their own."""
    started: list[asyncio.subprocess.Process] = []

    async def start() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(str(_SCRIPT), database_url, mesh.registry, mesh.address, "1000"),
            stdout=asyncio.subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"working\n"
        return process

    yield start
    for process in started:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()


@pytest.fixture
async def front(opening: Opening) -> AsyncIterator[Orchestrator]:
    """An orchestrator that works itself on nothing."""
    async with opening(worker=WorkerSettings(at_once=0)) as made:
        yield made


def graph() -> Any:
    """Fan-out, a join, a way round."""
    nodes = [say(each) for each in ("a", "b", "c", "d")]
    nodes += [say("again", max_visits=2), say("end")]
    edges = [
        *(way("a", "b"), way("a", "c"), way("b", "d"), way("c", "d"), way("d", "again")),
        way("again", "again", when="visits.again < 2"),
        way("again", "end", otherwise=True),
    ]
    return spec(nodes=nodes, edges=edges)


async def test_a_killed_worker_is_taken_over(
    front: Orchestrator, starting: Starting, mesh: Mesh
) -> None:
    ann = await front.client(ANN)
    one = await starting()
    mesh.agent.held["b"] = asyncio.Event()
    runs = [await begin(ann, chain("a", "b", "c")) for _ in range(4)]
    await wait_until(lambda: mesh.agent.calls["b"] == len(runs), timeout=PATIENCE)
    await starting()
    one.kill()
    await one.wait()
    killed = time.monotonic()
    await wait_until(lambda: mesh.agent.calls["b"] == 2 * len(runs), timeout=PATIENCE)
    took = time.monotonic() - killed
    mesh.agent.held["b"].set()
    for run in runs:
        assert said(await ended(ann, run.id)) == "c"
    assert took < LEASE.total_seconds() + 1
    # No finished step was repeated, and no effect doubled.
    assert mesh.agent.calls["a"] == len(runs)
    for text in ("a", "b", "c"):
        assert len(mesh.agent.effects[text]) == len(runs)


async def test_a_stopped_worker_writes_nothing_afterwards(
    front: Orchestrator, starting: Starting, mesh: Mesh, database_url: str
) -> None:
    ann = await front.client(ANN)
    stopped = await starting()
    mesh.agent.held["b"] = asyncio.Event()
    nodes = [say("a"), say("b"), once("c")]
    effects = spec(nodes=nodes, edges=[way("a", "b"), way("b", "c")], output="c.said")
    run = await begin(ann, effects)
    await wait_until(lambda: mesh.agent.calls["b"] == 1, timeout=PATIENCE)
    stopped.send_signal(signal.SIGSTOP)
    await starting()
    await wait_until(lambda: mesh.agent.calls["b"] == 2, timeout=PATIENCE)
    mesh.agent.held["b"].set()
    assert said(await ended(ann, run.id)) == "c"
    async with await fleet.database(database_url) as database:
        logged = await database.fetch("read_events", 1, 0, 1000)
        # Its answer to "b" is there now: it would say so, were it let.
        stopped.send_signal(signal.SIGCONT)
        stopped.terminate()
        await asyncio.wait_for(stopped.wait(), 20)
        assert await database.fetch("read_events", 1, 0, 1000) == logged
    assert mesh.agent.calls["c"] == 1
    assert len(mesh.agent.effects["b"]) == 1


async def test_two_workers_share_and_finish_each_run_once(
    front: Orchestrator, starting: Starting, mesh: Mesh
) -> None:
    ann = await front.client(ANN)
    await starting()
    await starting()
    runs = await asyncio.gather(*(begin(ann, graph(), id=f"r{n}") for n in range(30)))
    for run in runs:
        assert said(await ended(ann, run.id)) == "end"
    for text, count in {"a": 1, "b": 1, "c": 1, "d": 1, "again": 2, "end": 1}.items():
        assert mesh.agent.calls[text] == count * len(runs)
        assert len(mesh.agent.effects[text]) == count * len(runs)


async def test_a_worker_that_ends_gives_its_runs_back(
    front: Orchestrator, starting: Starting, mesh: Mesh
) -> None:
    ann = await front.client(ANN)
    one = await starting()
    mesh.agent.held["a"] = asyncio.Event()
    quick = await begin(ann, chain("a", "b"))
    await wait_until(lambda: "a" in mesh.agent.under_way, timeout=PATIENCE)
    one.terminate()
    assert one.stdout is not None
    assert await one.stdout.readline() == b"stopping\n"
    mesh.agent.held["a"].set()  # within the grace: its answer is stored
    await asyncio.wait_for(one.wait(), 20)
    got = (await ann.GetRun(pb.GetRunRequest(id=quick.id))).run
    assert states(got) == {"a@1": "SUCCEEDED"}
    assert got.state == pb.RUN_STATE_QUEUED
    await starting()
    assert said(await ended(ann, quick.id)) == "b"
    assert mesh.agent.calls["a"] == 1


async def test_a_run_goes_on_after_a_crash_at_every_event(
    front: Orchestrator, opening: Opening, mesh: Mesh, database_url: str
) -> None:
    ann = await front.client(ANN)
    async with opening():
        whole = await begin(ann, graph(), id="whole")
        await ended(ann, whole.id)
    async with await fleet.database(database_url) as database:
        rows = await database.fetch("read_events", 1, 0, 1000)
    admin = await asyncpg.connect(database_url, server_settings={"search_path": "orchestrator"})
    crashed: dict[str, dict[str, int]] = {}
    for cut in range(1, len(rows)):
        # As its worker left it: its lease has run out.
        id_ = f"cut{cut}"
        await begin(ann, graph(), id=id_)
        number = await admin.fetchval(
            "update runs set state = 'RUNNING', fence = 1 where id = $1 returning number", id_
        )
        await admin.executemany(
            "insert into run_events values ($1, $2, $3)",
            [(number, row["number"], row["event"]) for row in rows[1:cut]],
        )
        steps = [pb.RunEvent.FromString(row["event"]).step for row in rows[1:cut]]
        crashed[id_] = {
            step.key: step.state for step in steps if step.state == pb.STEP_STATE_SUCCEEDED
        }
    await admin.close()
    async with opening():
        for id_, before in crashed.items():
            done = await ended(ann, id_)
            assert said(done) == "end"
            keys = {key for found in mesh.agent.effects.values() for key in found}
            mine = {key.partition("/")[2] for key in keys if key.startswith(f"{id_}/")}
            assert mine == {step.key for step in done.steps} - before.keys()


async def test_postgres_goes_away_and_nothing_is_lost(
    front: Orchestrator, opening: Opening, mesh: Mesh, database_url: str
) -> None:
    ann = await front.client(ANN)
    # A lease that outlasts the time without a database: what is lost with a lease may be called again.
    async with opening(worker=replace(QUICK, lease=PATIENCE)):
        mesh.agent.held["b"] = asyncio.Event()
        run = await begin(ann, chain("a", "b", "c"))
        await wait_until(lambda: "b" in mesh.agent.under_way)
        admin = await asyncpg.connect(urlsplit(database_url)._replace(path="/postgres").geturl())
        name = urlsplit(database_url).path.lstrip("/")
        mesh.agent.held["b"].set()
        for _ in range(40):  # whoever connects is thrown out, for a second
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name
            )
            await asyncio.sleep(0.025)
        await admin.close()

        async def over() -> bool:
            with contextlib.suppress(Exception):
                return said(await ended(ann, run.id, 5)) == "c"
            return False

        await wait_until(over, timeout=PATIENCE)
    assert mesh.agent.calls["a"] == mesh.agent.calls["b"] == mesh.agent.calls["c"] == 1


async def test_a_database_that_lets_nobody_in_is_waited_for(
    front: Orchestrator, opening: Opening, mesh: Mesh, database_url: str
) -> None:
    ann = await front.client(ANN)
    name = urlsplit(database_url).path.lstrip("/")
    admin = await asyncpg.connect(urlsplit(database_url)._replace(path="/postgres").geturl())
    # Out of service (55000), then refusing changes (25006), as while it is restored or behind a fail-over.
    closed = {
        f"alter database {name} allow_connections false": (
            f"alter database {name} allow_connections true"
        ),
        f"alter database {name} set default_transaction_read_only = on": (
            f"alter database {name} reset default_transaction_read_only"
        ),
    }

    async def cut() -> None:
        await admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1", name
        )

    async with opening():
        for number, (close, reopen) in enumerate(closed.items()):
            run_id = f"run{number}"
            mesh.agent.calls.clear()
            mesh.agent.held["b"] = asyncio.Event()
            await begin(ann, chain("a", "b", "c"), id=run_id)
            await wait_until(lambda: "b" in mesh.agent.under_way, timeout=PATIENCE)
            await admin.execute(close)
            await cut()
            mesh.agent.held["b"].set()
            await asyncio.sleep(1.5 * LEASE.total_seconds())  # its lease runs out meanwhile
            await admin.execute(reopen)
            await cut()

            async def over(run_id: str = run_id) -> bool:
                with contextlib.suppress(Exception):
                    return said(await ended(ann, run_id, 5)) == "c"
                return False

            await wait_until(over, timeout=PATIENCE)
            assert mesh.agent.calls == {"a": 1, "b": 1, "c": 1}
    await admin.close()


async def test_only_calls_without_side_effects_go_ahead_of_the_log(
    orch: Orchestrator, mesh: Mesh, database_url: str
) -> None:
    ann = await orch.client(ANN)
    mesh.agent.held["a"] = asyncio.Event()
    nodes = [say("a"), say("b"), once("c")]
    edges = [way("a", "b"), way("b", "c")]
    run = await begin(ann, spec(nodes=nodes, edges=edges, output="c.said"))
    await wait_until(lambda: "a" in mesh.agent.under_way, timeout=PATIENCE)
    admin = await asyncpg.connect(database_url, server_settings={"search_path": "orchestrator"})
    async with admin.transaction():
        await admin.execute("lock table run_events in exclusive mode")
        mesh.agent.held["a"].set()
        await wait_until(lambda: bool(mesh.agent.effects["b"]), timeout=PATIENCE)
        await asyncio.sleep(0.3)
        assert not mesh.agent.calls["c"]
        assert await admin.fetchval("select count(*) from run_events") <= 2  # "a" is under way
    assert said(await ended(ann, run.id)) == "c"
    numbers = await admin.fetch("select number from run_events order by number")
    assert [row["number"] for row in numbers] == list(range(1, len(numbers) + 1))
    assert mesh.agent.calls == {"a": 1, "b": 1, "c": 1}
    await admin.close()


async def test_nothing_is_stored_behind_what_cannot_be(
    front: Orchestrator, database_url: str
) -> None:
    ann = await front.client(ANN)
    for _ in range(2):
        await begin(ann, chain("a"))
    async with await fleet.database(database_url) as database:
        one, other = await RunStore(database).claim(10, timedelta(seconds=30))
        log = Log(database, Bells())
        async with log.writing():
            wrong = log.append(one.number, one.fence, 2**70, [b""])
            behind = log.append(one.number, one.fence, 3, [b""])
            fine = log.append(other.number, other.fence, 2, [b""])
            assert await fine
            for entry in (wrong, behind):
                with pytest.raises(Exception, match=r"2\*\*|range|stored|value"):
                    await entry
        counted = await database.fetch("read_logs", [one.number, other.number])
        assert [row["run"] for row in counted] == [one.number, other.number, other.number]


async def test_what_is_begun_is_held_where_there_is_room(opening: Opening, mesh: Mesh) -> None:
    async with opening(worker=replace(QUICK, at_once=1)) as orch:
        ann = await orch.client(ANN)
        mesh.agent.held["a"] = asyncio.Event()
        held, waits = [await begin(ann, chain("a")) for _ in range(2)]
        assert (held.state, waits.state) == (pb.RUN_STATE_RUNNING, pb.RUN_STATE_QUEUED)
        mesh.agent.held["a"].set()
        for run in (held, waits):
            assert said(await ended(ann, run.id)) == "a"
        assert mesh.agent.calls["a"] == 2


async def test_a_run_has_more_time_than_the_call_that_began_it(
    orch: Orchestrator, mesh: Mesh
) -> None:
    ann = await orch.client(ANN)
    mesh.agent.held["a"] = asyncio.Event()
    request = pb.StartRunRequest(spec=chain("a", "b"), id="longer")
    began = time.monotonic()
    run = (await ann.StartRun(request, timeout=1)).run
    assert run.state == pb.RUN_STATE_RUNNING
    await wait_until(lambda: time.monotonic() - began > 1.1, timeout=PATIENCE)
    mesh.agent.held["a"].set()
    assert said(await ended(ann, run.id)) == "b"
    assert mesh.agent.calls == {"a": 1, "b": 1}


async def test_a_run_that_another_one_began_and_lost_is_taken_within_its_lease(
    front: Orchestrator, starting: Starting, mesh: Mesh, database_url: str
) -> None:
    ann = await front.client(ANN)
    await starting()
    run = await begin(ann, chain("a"))
    await ended(ann, run.id)
    admin = await asyncpg.connect(database_url, server_settings={"search_path": "orchestrator"})
    # Nobody is told of a run that is held from the first.
    await admin.execute("""
        WITH made AS (
            INSERT INTO runs (tenant, id, workflow, name, version, subject, identity, traceparent, origin, asked,
                              input, deadline, state, fence, due)
            SELECT tenant, 'lost', workflow, name, version, subject, identity, traceparent, 'lost', asked, input,
                   deadline, 'RUNNING', 1, now() + interval '1 second'
            FROM runs RETURNING number
        )
        INSERT INTO run_events SELECT made.number, 1, event FROM made, run_events WHERE run_events.number = 1
        """)
    await admin.close()
    began = time.monotonic()
    await wait_until(lambda: mesh.agent.calls["a"] == 2, timeout=PATIENCE)
    assert time.monotonic() - began < LEASE.total_seconds() + 1
    assert said(await ended(ann, "lost")) == "a"


async def test_a_zombie_is_refused(front: Orchestrator, database_url: str) -> None:
    ann = await front.client(ANN)
    await begin(ann, chain("a"))
    async with await fleet.database(database_url) as database:
        store, log = RunStore(database), Log(database, Bells())
        (zombie,) = await store.claim(10, timedelta(0))
        (owner,) = await store.claim(10, timedelta(seconds=30))
        assert owner.fence == zombie.fence + 1
        async with log.writing():
            # Both within one statement.
            late = log.append(zombie.number, zombie.fence, 2, [b"zombie"])
            assert await log.append(owner.number, owner.fence, 2, [b""])
            assert not await late
        with pytest.raises(LeaseLost):
            await store.suspend(zombie, (3, [b"zombie"]), zombie.deadline, zombie.wakes)
        with pytest.raises(LeaseLost):
            await store.end(zombie, (3, [b"zombie"]), pb.Run(state=pb.RUN_STATE_FAILED))
        await store.release(zombie)
        rows = await database.fetch("read_events", owner.number, 1, 10)
        assert [row["event"] for row in rows] == [b""]
        assert await store.renew({owner.number: owner.fence}, LEASE) == {owner.number: 0}
        assert await store.renew({owner.number: zombie.fence}, LEASE) == {}


async def test_a_run_that_cannot_be_carried_out_fails_and_harms_no_other(
    front: Orchestrator, opening: Opening, mesh: Mesh, database_url: str
) -> None:
    ann = await front.client(ANN)
    runs = [await begin(ann, chain("a", "b")) for _ in range(3)]
    admin = await asyncpg.connect(database_url, server_settings={"search_path": "orchestrator"})
    # Events that are none, and an input that is none of its type: the interpreter cannot be made of them.
    await admin.execute("insert into run_events values (1, 2, 'broken')")
    given = TypedMessage(type="weft.echo.v1.SayRequest", binary=b"broken")
    await admin.execute("update runs set input = $1 where number = 2", given.SerializeToString())
    await admin.close()
    async with opening():
        assert said(await ended(ann, runs[2].id)) == "b"
        second = await ended(ann, runs[1].id)
        assert (second.failure.code, second.failure.reason) == ("INTERNAL", "INTERNAL")

        async def failed() -> bool:
            listed = await ann.ListRuns(pb.ListRunsRequest(state=pb.RUN_STATE_FAILED))
            return {run.id for run in listed.runs} == {runs[0].id, runs[1].id}

        await wait_until(failed)


async def test_long_pauses_hold_no_worker(
    front: Orchestrator, opening: Opening, mesh: Mesh
) -> None:
    ann = await front.client(ANN)
    mesh.agent.failing["a"] = 1
    node = say("a", retry={"attempts": 2, "first_pause": "2s"})
    async with opening():
        run = await begin(ann, spec(nodes=[node, say("b")], edges=[way("a", "b")]))

        async def waits() -> bool:
            got = (await ann.GetRun(pb.GetRunRequest(id=run.id))).run
            return got.state == pb.RUN_STATE_WAITING

        await wait_until(waits)
    # Whoever takes it draws the same pause.
    async with opening():
        done = await ended(ann, run.id)
    assert said(done) == "b"
    assert done.steps[0].attempts == 2


async def test_an_agent_may_ask_for_a_longer_pause(
    front: Orchestrator, opening: Opening, mesh: Mesh
) -> None:
    ann = await front.client(ANN)
    mesh.agent.failing["a"] = 1
    mesh.agent.retry_after = timedelta(seconds=1.5)
    node = say("a", retry={"attempts": 2, "first_pause": "0.001s"})
    began = time.monotonic()
    async with opening():
        run = await begin(ann, spec(nodes=[node]))

        async def waits() -> bool:
            return (await ann.GetRun(pb.GetRunRequest(id=run.id))).run.state == pb.RUN_STATE_WAITING

        await wait_until(waits)
    # Whoever takes it reads it in the log.
    async with opening():
        assert said(await ended(ann, run.id)) == "a"
    assert time.monotonic() - began >= 1.5
