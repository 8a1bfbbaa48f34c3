"""Whoever dies, nothing acknowledged is lost and nobody is left behind."""

import asyncio
import contextlib
import os
import signal
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
import redis.exceptions

from weft import embedded
from weft.embedded import _redis, _supervisor
from weft.embedded._child import Guard
from weft.rpc.testing import wait_until

pytestmark = pytest.mark.failure

PATIENCE = timedelta(seconds=20)
ELSEWHERE = "redis://elsewhere:6379/0"
# All the ways in which asyncpg says that a connection broke.
BROKEN = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
OTHER_DATABASE = "postgresql://elsewhere/other"


async def redis_pid(servers: embedded.Endpoints) -> int:
    async with embedded.redis_client(servers.redis_url) as client:
        return int((await client.info("server"))["process_id"])


def postmaster(data: Path) -> int:
    return int(next(data.glob("pg/*/postmaster.pid")).read_text().split()[0])


@pytest.mark.parametrize("guard", [Guard.BOTH, Guard.WATCHDOG], ids=["both", "watchdog alone"])
async def test_servers_end_with_a_killed_launcher(
    warm, launcher_of, servers_in, watchdogs_of, guard
):
    launcher = await launcher_of(warm, guard.value)
    pids = servers_in(warm)
    assert {"valkey-server", "postgres"} <= set(pids.values())
    assert len(watchdogs_of(pids)) == 2
    await launcher.kill()
    await wait_until(lambda: not servers_in(warm), PATIENCE)
    await wait_until(lambda: not watchdogs_of(pids), PATIENCE)


async def test_servers_end_by_the_death_signal_alone(warm, launcher_of, servers_in, watchdogs_of):
    launcher = await launcher_of(warm, Guard.BOTH.value)
    pids = servers_in(warm)
    for watchdog in watchdogs_of(pids):
        os.kill(watchdog, signal.SIGKILL)
    await wait_until(lambda: not watchdogs_of(pids))
    assert servers_in(warm)
    await launcher.kill()
    await wait_until(lambda: not servers_in(warm), PATIENCE)


async def test_left_overs_are_ended_and_all_they_had_is_there(warm, launcher_of, servers_in):
    launcher = await launcher_of(warm, 0)
    servers = embedded.endpoints(warm)
    async with embedded.redis_client(servers.redis_url) as client:
        await client.delete("notes")
        await client.xadd("notes", {"text": "kept"})
    connection = await asyncpg.connect(servers.database_url)
    await connection.execute(
        "drop table if exists notes; create table notes as select 'kept' as text"
    )
    await launcher.kill()
    left = set(servers_in(warm))
    assert left
    assert embedded.endpoints(warm) is None

    async with embedded.launch(warm) as servers:
        assert not left & set(servers_in(warm))
        async with embedded.redis_client(servers.redis_url) as client:
            assert await client.xlen("notes") == 1
        fresh = await asyncpg.connect(servers.database_url)
        assert await fresh.fetchval("select count(*) from notes") == 1
        await fresh.close()
    connection.terminate()


async def test_a_left_over_that_hangs_is_killed(data, launcher_of, monkeypatch):
    monkeypatch.setattr(_redis, "_LEFT_OVER_LIMIT", timedelta(seconds=0.2))
    launcher = await launcher_of(data, 0, database_url=OTHER_DATABASE)
    pid = await redis_pid(embedded.endpoints(data))
    os.kill(pid, signal.SIGSTOP)
    await launcher.kill()
    async with embedded.launch(data, database_url=OTHER_DATABASE) as servers:
        assert await redis_pid(servers) != pid


async def test_killed_redis_comes_back_on_its_socket_with_every_acknowledged_entry(data):
    acknowledged: set[bytes] = set()

    async def write(number: int) -> None:
        async with embedded.redis_client(servers.redis_url) as client:
            while not done.is_set():
                try:
                    acknowledged.add(await client.xadd("notes", {"by": number, "text": "x" * 500}))
                except redis.exceptions.ConnectionError:
                    await asyncio.sleep(0.01)

    async with embedded.launch(data, database_url=OTHER_DATABASE) as servers:
        done = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for number in range(8):
                tasks.create_task(write(number))
            for _ in range(3):
                goal = len(acknowledged) + 300
                await wait_until(lambda goal=goal: len(acknowledged) > goal, PATIENCE)
                os.kill(await redis_pid(servers), signal.SIGKILL)
            goal = len(acknowledged) + 300
            await wait_until(lambda: len(acknowledged) > goal, PATIENCE)
            done.set()
        async with embedded.redis_client(servers.redis_url) as client:
            stored = {entry for entry, _ in await client.xrange("notes")}
    assert len(acknowledged) > 1200
    assert acknowledged <= stored


async def test_killed_postgres_comes_back_on_its_socket_with_every_committed_row(warm):
    committed: set[int] = set()

    async def write() -> None:
        while not done.is_set():
            try:
                connection = await asyncpg.connect(servers.database_url)
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.01)
                continue
            with contextlib.suppress(*BROKEN):
                while not done.is_set():
                    committed.add(
                        await connection.fetchval("insert into notes default values returning id")
                    )
            connection.terminate()

    async with embedded.launch(warm, redis_url=ELSEWHERE) as servers:
        connection = await asyncpg.connect(servers.database_url)
        await connection.execute("drop table if exists notes; create table notes (id bigserial)")
        await connection.close()
        done = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(write())
            for _ in range(2):
                goal = len(committed) + 200
                await wait_until(lambda goal=goal: len(committed) > goal, PATIENCE)
                os.kill(postmaster(warm), signal.SIGKILL)
            goal = len(committed) + 200
            await wait_until(lambda: len(committed) > goal, PATIENCE)
            done.set()
        connection = await asyncpg.connect(servers.database_url)
        stored = {row[0] for row in await connection.fetch("select id from notes")}
        await connection.close()
    assert len(committed) > 600
    assert committed <= stored


async def test_a_client_finds_a_restarted_redis_by_itself(data):
    async with (
        embedded.launch(data, database_url=OTHER_DATABASE) as servers,
        embedded.redis_client(servers.redis_url) as client,
    ):
        pid = int((await client.info("server"))["process_id"])
        os.kill(pid, signal.SIGKILL)

        async def answers() -> bool:
            try:
                return int((await client.info("server"))["process_id"]) != pid
            except redis.exceptions.ConnectionError:
                return False

        await wait_until(answers, PATIENCE)


async def test_a_late_answer_is_an_error_and_not_a_second_entry(data):
    async with embedded.launch(data, database_url=OTHER_DATABASE) as servers:
        pid = await redis_pid(servers)
        async with embedded.redis_client(
            servers.redis_url, timeout=timedelta(seconds=0.2)
        ) as client:
            await client.ping()
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(redis.exceptions.TimeoutError):
                await client.xadd("notes", {"text": "once"})
            os.kill(pid, signal.SIGCONT)
            await wait_until(lambda: client.xlen("notes"))
            assert await client.xlen("notes") == 1


async def test_a_server_that_keeps_dying_ends_the_block_loudly(data, monkeypatch):
    monkeypatch.setattr(_supervisor, "_FIRST_PAUSE", 0.001)
    said: list[str] = []

    async def kill_six_times() -> None:
        async with embedded.launch(
            data, database_url=OTHER_DATABASE, on_progress=said.append
        ) as servers:
            for restarts in range(6):
                await wait_until(lambda n=restarts: said.count("redis: ready again") == n, PATIENCE)
                os.kill(await redis_pid(servers), signal.SIGKILL)
            await asyncio.Event().wait()

    with pytest.raises(embedded.ServerLost, match="redis died 6 times"):
        await kill_six_times()
    assert embedded.endpoints(data) is None
    assert asyncio.current_task().cancelling() == 0


async def test_a_pid_file_that_names_a_stranger_does_not_keep_postgres_out(warm):
    folder = next(warm.glob("pg/*/PG_VERSION")).parent
    async with embedded.launch(warm, redis_url=ELSEWHERE):
        lines = (folder / "postmaster.pid").read_text().splitlines()
        owner = folder.stat()
    # PostgreSQL takes a living process of its own user for the postmaster.
    as_postgres = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    stranger = await asyncio.create_subprocess_exec("sleep", "60", **as_postgres)
    try:
        (folder / "postmaster.pid").write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        os.chown(folder / "postmaster.pid", owner.st_uid, owner.st_gid)
        async with embedded.launch(warm, redis_url=ELSEWHERE) as servers:
            connection = await asyncpg.connect(servers.database_url)
            assert await connection.fetchval("select 1") == 1
            await connection.close()
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()
