"""Jobs as they are stored: whose they are, lists, keys, how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.gateway.jobs.conftest import ANN, ANN_ELSEWHERE, BOB, SAY_ONCE, Opening, Store, new_job

from weft import rpc
from weft.gateway.jobs import (
    Job,
    JobKeyReused,
    JobNotFound,
    JobRunning,
    Message,
    State,
    TooManyJobs,
)

LEASE = timedelta(seconds=30)


async def claim(store: Store, lease: timedelta = LEASE, room: int = 10) -> list[Job]:
    rows = await store.database.fetch("claim_jobs", room, lease, 5)
    return [Job.from_row(row) for row in rows]


async def end(store: Store, job: Job, state: State = State.SUCCEEDED) -> int:
    return await store.database.execute("end_job", job.id, job.fence, state, b"done", None)


async def test_a_job_is_stored_as_it_was_begun(store: Store) -> None:
    begun = await store.jobs.begin(new_job(request=b"r", context="c", note=b"n", kind="a2a"))
    found = await store.jobs.get(ANN, begun.id)
    assert found == begun
    assert (found.state, found.request, found.context, found.note) == (
        State.QUEUED,
        b"r",
        "c",
        b"n",
    )
    assert found.deadline - found.create_time == timedelta(minutes=1)


@pytest.mark.parametrize("stranger", [BOB, ANN_ELSEWHERE])
async def test_nobody_else_sees_a_job(store: Store, stranger: Any) -> None:
    job = await store.jobs.begin(new_job())
    (held,) = await claim(store)
    await end(store, held)
    for asked in (
        store.jobs.get(stranger, job.id),
        store.jobs.cancel(stranger, job.id),
        store.jobs.delete(stranger, job.id),
        store.jobs.wait(stranger, job.id, 0),
        store.jobs.messages(stranger, job.id),
        store.jobs.note(stranger, job.id, b""),
        anext(store.jobs.watch(stranger, job.id)),
    ):
        with pytest.raises(JobNotFound):
            await asked
    assert (await store.jobs.list(stranger)).jobs == []
    assert (await store.jobs.get(ANN, job.id)).state is State.SUCCEEDED


async def test_lists_come_in_pages_newest_first(store: Store) -> None:
    made = [await store.jobs.begin(new_job(context=f"{n % 2}")) for n in range(5)]
    await store.jobs.begin(new_job(BOB))
    first = await store.jobs.list(ANN, size=3)
    second = await store.jobs.list(ANN, size=3, token=first.next_token)
    listed = [job.id for page in (first, second) for job in page.jobs]
    assert listed == [job.id for job in reversed(made)]
    assert second.next_token == ""
    assert len((await store.jobs.list(ANN, context="1")).jobs) == 2
    assert (await store.jobs.list(ANN, state=State.RUNNING)).jobs == []
    with pytest.raises(rpc.InvalidArgument, match="another filter"):
        await store.jobs.list(BOB, token=first.next_token)


async def test_a_key_begins_one_job(store: Store) -> None:
    made = await asyncio.gather(
        *(store.jobs.begin(new_job(key="k", request=b"1")) for _ in range(8))
    )
    assert len({job.id for job in made}) == 1
    assert (await store.jobs.begin(new_job(BOB, key="k"))).id != made[0].id
    with pytest.raises(JobKeyReused):
        await store.jobs.begin(new_job(key="k", request=b"2"))


async def test_open_jobs_of_a_caller_are_bounded(opening: Opening) -> None:
    async with opening(most_open=2) as store:
        jobs = [await store.jobs.begin(new_job()) for _ in range(2)]
        with pytest.raises(TooManyJobs):
            await store.jobs.begin(new_job())
        await store.jobs.begin(new_job(BOB))
        await store.jobs.cancel(ANN, jobs[0].id)
        await store.jobs.begin(new_job())


async def test_a_job_is_held_by_one(store: Store, opening: Opening) -> None:
    for _ in range(20):
        await store.jobs.begin(new_job())
    async with opening() as other:
        taken = await asyncio.gather(*(claim(each, room=3) for each in (store, other) * 5))
    ids = [job.id for jobs in taken for job in jobs]
    assert sorted(ids) == sorted(set(ids))
    assert len(ids) == 20


async def test_a_job_ends_once(store: Store) -> None:
    job = await store.jobs.begin(new_job())
    (held,) = await claim(store)
    with pytest.raises(JobRunning):
        await store.jobs.delete(ANN, job.id)
    assert await end(store, held) == 1
    assert await end(store, held, State.FAILED) == 0
    ended = await store.jobs.cancel(ANN, job.id)
    assert (ended.state, ended.response) == (State.SUCCEEDED, b"done")
    assert ended.expire_time is not None
    assert ended.end_time is not None
    assert ended.expire_time - ended.end_time == timedelta(hours=1)
    await store.jobs.delete(ANN, job.id)
    with pytest.raises(JobNotFound):
        await store.jobs.get(ANN, job.id)


async def test_the_database_itself_keeps_the_end(store: Store) -> None:
    job = await store.jobs.begin(new_job())
    (held,) = await claim(store)
    await end(store, held)
    async with store.database._pool.acquire() as connection:
        with pytest.raises(Exception, match="has ended"):
            await connection.execute("UPDATE jobs SET state = 'FAILED' WHERE id = $1", job.id)


async def test_who_lost_its_lease_changes_nothing(store: Store) -> None:
    job = await store.jobs.begin(new_job())
    (first,) = await claim(store, lease=timedelta(0))
    (second,) = await claim(store)
    assert second.fence == first.fence + 1
    assert await end(store, first) == 0
    args = (first.id, first.fence, [b"m"], 0, 0, 0)
    assert await store.database.fetchval("add_job_messages", *args) is None
    renewed = await store.database.fetch("renew_job_leases", [first.id], [first.fence], LEASE)
    assert renewed == []
    assert await end(store, second) == 1
    assert (await store.jobs.get(ANN, job.id)).losses == 1


async def test_a_queued_job_is_cancelled_at_once(store: Store) -> None:
    job = await store.jobs.begin(new_job())
    cancelled = await store.jobs.cancel(ANN, job.id)
    assert cancelled.state is State.CANCELLED
    assert isinstance(cancelled.error, rpc.Cancelled)
    assert await claim(store) == []


async def test_watchers_see_changes_of_another_process(store: Store, opening: Opening) -> None:
    job = await store.jobs.begin(new_job())
    seen: list[Any] = []

    async def watch() -> None:
        async for change in store.jobs.watch(ANN, job.id):
            seen.append(change.number if isinstance(change, Message) else change.state)
            reached.set()

    reached = asyncio.Event()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group, opening() as other:
        group.create_task(watch())
        waiting = group.create_task(store.jobs.wait(ANN, job.id, 5))
        await reached.wait()
        (held,) = await claim(other)
        args = (held.id, held.fence, [b"a", b"b"], 0, 0, 0)
        assert await other.database.fetchval("add_job_messages", *args) == 1
        await end(other, held)
    assert (await waiting).state is State.SUCCEEDED
    assert [each for each in seen if isinstance(each, int)] == [1, 2]
    assert seen[0] is State.QUEUED
    assert seen[-1] is State.SUCCEEDED


async def test_waiting_ends_with_its_time(store: Store) -> None:
    job = await store.jobs.begin(new_job())
    assert (await store.jobs.wait(ANN, job.id, 0.05)).state is State.QUEUED


@pytest.mark.parametrize(
    ("further", "expected"),
    [
        ({"method": SAY_ONCE, "repeatable": False}, "JOB_OUTCOME_UNKNOWN"),
        ({"time": timedelta(0)}, "JOB_TOO_LATE"),
    ],
)
async def test_jobs_that_nobody_will_run_end(
    store: Store, further: dict[str, Any], expected: str, lost_statuses: Callable[[], Any]
) -> None:
    job = await store.jobs.begin(new_job(**further))
    await claim(store, lease=timedelta(0))
    await store.database.execute("end_lost_jobs", 10, *lost_statuses(), 5)
    found = await store.jobs.get(ANN, job.id)
    assert found.state is State.FAILED
    assert found.error is not None
    assert found.error.reason == expected


async def test_a_job_that_waits_is_resumed_cancelled_or_too_late(
    store: Store, lost_statuses: Callable[[], Any]
) -> None:
    status = rpc.status_proto(rpc.FailedPrecondition("Which?", reason="INPUT_REQUIRED"))
    told = status.SerializeToString()
    made = {}
    for what in ("resumed", "cancelled", "late"):
        keep = timedelta(seconds=-1) if what == "late" else timedelta(hours=1)
        made[what] = (await store.jobs.begin(new_job(resumable=True, keep=keep))).id
    for held in await claim(store):
        args = (held.id, held.fence, told, "INPUT_REQUIRED", lost_statuses()[2])
        assert await store.database.execute("wait_job", *args) == 1
    waiting = await store.jobs.wait(ANN, made["resumed"], 10)
    assert waiting.state is State.WAITING
    assert waiting.error is not None
    assert waiting.error.reason == waiting.waits_for == "INPUT_REQUIRED"
    with pytest.raises(JobRunning):
        await store.jobs.delete(ANN, waiting.id)
    # Nobody takes it.
    assert await claim(store, lease=timedelta(0)) == []
    assert (await store.jobs.cancel(ANN, made["cancelled"])).state is State.CANCELLED
    await store.database.execute("end_lost_jobs", 10, *lost_statuses(), 5)
    late = await store.jobs.get(ANN, made["late"])
    assert late.error is not None
    assert (late.state, late.error.reason) == (State.FAILED, "JOB_TOO_LATE")
    args = (ANN.tenant, ANN.subject, waiting.id, b"more", b"note", b"", LEASE, LEASE)
    assert await store.database.fetchrow("resume_job", *args) is not None
    again = await store.jobs.get(ANN, waiting.id)
    assert (again.state, again.request, again.fence, again.error) == (
        State.RUNNING,
        b"more",
        waiting.fence + 1,
        None,
    )
    assert await store.database.fetchrow("resume_job", *args) is None
    assert await end(store, again) == 1


async def test_jobs_expire(store: Store) -> None:
    job = await store.jobs.begin(new_job(keep=timedelta(seconds=-1)))
    kept = await store.jobs.begin(new_job())
    for held in await claim(store):
        await end(store, held)
    assert await store.database.execute("forget_jobs", 10) == 1
    with pytest.raises(JobNotFound):
        await store.jobs.get(ANN, job.id)
    await store.jobs.get(ANN, kept.id)
