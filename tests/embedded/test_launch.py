import asyncio
import os
import shutil
import stat
import sys
from pathlib import Path

import asyncpg
import pytest

from weft import embedded
from weft.rpc.testing import wait_until

ELSEWHERE = "redis://elsewhere:6379/0"
OTHER_DATABASE = "postgresql://elsewhere/other"


async def remember(servers: embedded.Endpoints) -> None:
    async with embedded.redis_client(servers.redis_url) as client:
        await client.delete("notes")
        await client.xadd("notes", {"text": "kept"})
    await remember_in_postgres(servers)


async def remember_in_postgres(servers: embedded.Endpoints) -> None:
    connection = await asyncpg.connect(servers.database_url)
    await connection.execute("drop table if exists notes; create table notes as select 'kept'")
    await connection.close()


async def recall(servers: embedded.Endpoints) -> tuple[int, int]:
    async with embedded.redis_client(servers.redis_url) as client:
        in_redis = await client.xlen("notes")
    connection = await asyncpg.connect(servers.database_url)
    in_postgres = await connection.fetchval("select count(*) from notes")
    await connection.close()
    return in_redis, in_postgres


def test_a_cold_start_tells_what_it_does(cold_start):
    _, said = cold_start
    assert [text.partition(" (")[0].rstrip("0123456789.") for text in said] == [
        "redis: valkey ",
        "redis: ready",
        "postgres: postgresql ",
        "postgres: creating the database",
        "postgres: ready",
    ]


async def test_a_warm_start_keeps_everything_and_leaves_no_process(warm, servers_in):
    said: list[str] = []
    async with embedded.launch(warm, on_progress=said.append) as servers:
        await remember(servers)
        assert len(servers_in(warm)) > 2
    assert not servers_in(warm)
    assert "postgres: creating the database (once)" not in said
    async with embedded.launch(warm) as servers:
        assert await recall(servers) == (1, 1)


async def test_settings_that_durability_and_scale_rest_on(servers):
    async with embedded.redis_client(servers.redis_url) as client:
        settings = await client.config_get("append*", "maxmemory-policy", "save", "port")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["maxmemory-policy"] == "noeviction"
    assert (settings["save"], settings["port"]) == ("", "0")
    connection = await asyncpg.connect(servers.database_url)
    shown = {
        name: await connection.fetchval(f"show {name}")
        for name in ("max_connections", "shared_buffers", "listen_addresses")
    }
    # These tests turn it off by ALTER SYSTEM: what counts is what stands behind that.
    shown["fsync"] = await connection.fetchval(
        """
        select coalesce((select setting from pg_file_settings
                         where name = 'fsync' and sourcefile not like '%postgresql.auto.conf'
                         order by seqno desc limit 1), boot_val)
        from pg_settings where name = 'fsync' and source = 'configuration file'
        """
    )
    await connection.close()
    assert shown == {
        "fsync": "on",
        "max_connections": "200",
        "shared_buffers": "64MB",
        "listen_addresses": "",
    }


async def test_endpoints_are_known_exactly_while_the_launcher_runs(data):
    assert embedded.endpoints(data) is None
    async with embedded.launch(data, database_url=OTHER_DATABASE) as servers:
        assert embedded.endpoints(data) == servers
        assert stat.S_IMODE((data / "endpoints.json").stat().st_mode) == 0o600
    assert embedded.endpoints(data) is None


async def test_endpoints_of_a_killed_launcher_are_not_believed(data):
    async with embedded.launch(data, database_url=OTHER_DATABASE):
        left_behind = (data / "endpoints.json").read_text()
    (data / "endpoints.json").write_text(left_behind.replace(str(os.getpid()), "1"))
    async with embedded.launch(data, database_url=OTHER_DATABASE) as servers:
        assert embedded.endpoints(data) == servers


async def test_a_second_launcher_attaches_and_stops_nothing(data):
    async with embedded.launch(data, database_url=OTHER_DATABASE) as first:
        async with embedded.launch(data) as second:
            assert second == first
        async with embedded.redis_client(first.redis_url) as client:
            assert await client.ping()


async def test_a_launcher_that_comes_during_a_start_waits_for_it(data, servers_in):
    async def use() -> embedded.Endpoints:
        async with embedded.launch(data, database_url=OTHER_DATABASE) as servers:
            await both_up.wait()
            assert len(servers_in(data)) == 1
            return servers

    both_up = asyncio.Barrier(2)
    first, second = await asyncio.gather(use(), use())
    assert first == second


async def test_attaching_keeps_a_url_that_is_given(data):
    async with (
        embedded.launch(data, database_url=OTHER_DATABASE),
        embedded.launch(data, redis_url=ELSEWHERE) as second,
    ):
        assert second.redis_url == ELSEWHERE
        assert second.database_url == OTHER_DATABASE


async def test_with_both_urls_nothing_is_started_or_made(data):
    given = {"redis_url": ELSEWHERE, "database_url": OTHER_DATABASE}
    async with embedded.launch(data, **given) as servers:
        assert servers == embedded.Endpoints(**given)
    assert not data.exists()


async def test_with_one_url_only_the_other_server_is_started(data, servers_in):
    async with embedded.launch(data, database_url=OTHER_DATABASE) as servers:
        assert list(servers_in(data).values()) == ["valkey-server"]
        assert servers.database_url == OTHER_DATABASE


async def test_a_path_unfit_for_a_socket_gets_its_sockets_elsewhere(data, warm):
    folder = data / f"a, b & ü {'long' * 30}"
    shutil.copytree(warm, folder)
    async with embedded.launch(folder) as servers:
        run = Path(servers.redis_url.removeprefix("unix://").partition("?")[0]).parent
        assert not run.is_relative_to(data)
        assert run.stat().st_uid == os.geteuid()
        assert not stat.S_IMODE(run.stat().st_mode) & 0o066
        await remember(servers)
        assert await recall(servers) == (1, 1)
    assert not run.exists()


async def test_a_socket_folder_that_others_can_write_to_is_refused(data):
    folder = data / ("long" * 30)
    async with embedded.launch(folder, database_url=OTHER_DATABASE) as servers:
        run = Path(servers.redis_url.removeprefix("unix://").partition("?")[0]).parent
    run.mkdir()
    run.chmod(0o777)
    try:
        with pytest.raises(embedded.FolderUnusable, match="belongs to this user alone"):
            async with embedded.launch(folder, database_url=OTHER_DATABASE):
                pass
    finally:
        run.rmdir()


async def test_a_data_folder_that_is_a_file_is_refused(data):
    data.write_text("")
    with pytest.raises(embedded.FolderUnusable, match="WEFT_DATA"):
        async with embedded.launch(data):
            pass


async def test_only_the_main_thread_may_launch(data):
    async def attempt() -> None:
        async with embedded.launch(data, database_url=OTHER_DATABASE):
            pass

    with pytest.raises(embedded.NotMainThread):
        await asyncio.to_thread(asyncio.run, attempt())
    async with embedded.launch(data, database_url=OTHER_DATABASE):  # the lock was given back
        pass


async def test_a_server_that_cannot_start_says_why(warm):
    settings = next(warm.glob("pg/*/postgresql.conf"))
    settings.write_text("no_such_setting = on\n")
    with pytest.raises(embedded.StartFailed, match="no_such_setting"):
        async with embedded.launch(warm, redis_url=ELSEWHERE):
            pass


async def test_cancelling_a_start_leaves_nothing(data, servers_in):
    started = asyncio.Event()

    async def use() -> None:
        async with embedded.launch(
            data, on_progress=lambda text: "creating" in text and started.set()
        ):
            pytest.fail("was cancelled before")

    task = asyncio.create_task(use())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until(lambda: not servers_in(data))
    assert embedded.endpoints(data) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers under another account")
async def test_root_runs_postgres_as_nobody_even_in_a_closed_folder(warm):
    async with embedded.launch(warm, redis_url=ELSEWHERE) as servers:
        await remember_in_postgres(servers)
    owner = next(warm.glob("pg/*/PG_VERSION")).stat().st_uid
    assert owner != 0

    mode = stat.S_IMODE(warm.parent.stat().st_mode)
    warm.parent.chmod(0o700)
    try:
        async with embedded.launch(warm, redis_url=ELSEWHERE) as servers:
            connection = await asyncpg.connect(servers.database_url)
            assert await connection.fetchval("select count(*) from notes") == 1
            await connection.close()
    except embedded.NoAccount as refused:
        assert "WEFT_DATA" in str(refused)  # noqa: PT017 - this machine allows no user namespace
    finally:
        assert stat.S_IMODE(warm.parent.stat().st_mode) == 0o700
        warm.parent.chmod(mode)


AS_A_LONELY_ROOT = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
LAUNCH = """
import asyncio, sys
from pathlib import Path
from weft import embedded

async def main():
    async with embedded.launch(Path(sys.argv[1]), redis_url="redis://elsewhere"):
        pass

asyncio.run(main())
"""


async def test_root_that_cannot_lend_an_account_is_told_what_to_do(data, tmp_path):
    # In a user namespace of its own this limit binds nobody else, and no other user exists.
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--user", "--map-root-user", "/bin/sh", "-c", AS_A_LONELY_ROOT, "sh"),
        *(sys.executable, "-c", LAUNCH, str(data)),
        cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    said = stderr.decode()
    if said.startswith(("unshare:", "sh:", "/bin/sh:")):
        pytest.skip("this machine allows no user namespace")
    assert "NoAccount: PostgreSQL refuses to run as root" in said
    assert "WEFT_DATA" in said
