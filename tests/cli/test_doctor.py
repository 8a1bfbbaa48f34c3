"""`weft doctor` finds what is broken: here it is, for real."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.broker.servers import Cluster, find_program, running

from weft import config, embedded, rpc
from weft.cli.doctor import Finding, clocks, machine, postgres, redis
from weft.postgres import Database

pytestmark = pytest.mark.timeout(120)


def by_check(found: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in found}


def states(told) -> dict[str, str]:
    return {each["check"]: each["state"] for each in json.loads(told.out)}


def paused(weft) -> dict[str, dict[str, str]]:
    found = json.loads(weft("doctor", "--json").out)
    return {each["check"]: each for each in found if each["what"] == "is paused"}


def settings(**given: object) -> config.Settings:
    return config.Settings(**given)  # type: ignore[arg-type]


@pytest.fixture
def no_proxy(monkeypatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


# The whole


def test_a_mesh_in_good_health_has_nothing_that_does_not_work(weft, no_proxy):
    told = weft("doctor", "--json")
    found = states(told)
    assert told.code == 0, told.out
    assert "fail" not in found.values()
    for check in ("registry", "gateway", "broker", "postgres", "redis", "redis persistence"):
        assert found[check] == "ok"
    assert found["agent support-triage"] == "ok"
    assert found["schema registry"] == found["schema orchestrator"] == "ok"
    assert found["clock of postgres"] == found["clock of redis"] == "ok"


def test_people_are_told_what_is_wrong_alone(weft, no_proxy):
    assert "instances" not in weft("doctor").out
    assert "instances" in weft("doctor", "--all").out


def test_where_nothing_runs_everything_fails_and_says_what_to_do(nowhere, no_proxy):
    told = nowhere("doctor", "--json")
    assert told.code == 1
    found = {each["check"]: each for each in json.loads(told.out)}
    for check in ("registry", "gateway", "broker", "postgres", "redis"):
        assert found[check]["state"] == "fail"
        assert found[check]["why"]
        assert "weft up" in found[check]["do"]
    shown = nowhere("doctor")
    assert shown.code == 1
    assert "weft up" in shown.out


def test_queues_that_stand_still_are_found(weft, no_proxy):
    resume = "`weft queues resume echo`"
    assert weft("queues", "pause", "echo").code == 0
    try:
        found = paused(weft)["queue echo"]
        assert (found["state"], found["do"]) == ("warn", resume)
        assert resume.strip("`") in weft("doctor").out
    finally:
        assert weft("queues", "resume", "echo").code == 0
    assert "queue echo" not in paused(weft)


def test_dead_letters_are_found(weft, tools, no_proxy):
    weft("send", "echo.Say", '{"text": "nobody takes this", "failWith": 3}')
    tools.wait_for(lambda: weft("dead", "list", "echo", "--json").json)
    found = [each for each in json.loads(weft("doctor", "--json").out) if "dead" in each["what"]]
    assert [(each["check"], each["state"]) for each in found] == [("queue echo", "warn")]
    assert "weft dead list echo" in weft("doctor").out


# The machine


def test_few_open_files_are_found():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_000, hard))
    try:
        (finding,) = (f for f in machine.look(settings(), {}) if f.check == "open files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert finding.state == "fail"
    assert "ulimit" in finding.do
    assert machine.files(2_000).state == "warn"
    assert machine.files(resource.RLIM_INFINITY).state == "ok"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_found(small_disk: Path):
    finding = machine.disk(small_disk / "data" / "not" / "there")
    assert finding.state == "fail"
    assert str(small_disk) in finding.what


async def test_a_proxy_in_the_way_is_found_where_grpc_takes_it(monkeypatch, no_proxy):
    """What the finding says is what the gRPC core does."""

    async def reached() -> bool:
        server = rpc.Server()
        async with server, rpc.Channel(server.address) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            with contextlib.suppress(grpc.aio.AioRpcError):
                await check(b"", timeout=1)
                return True
        return False

    def state() -> str:
        found = list(machine.proxy(["127.0.0.1:7070"], os.environ))
        return found[0].state

    assert await reached()
    assert state() == "ok"
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert not await reached()
        assert state() == "fail"
        for exceptions in ("127.0.0.1", "localhost,127.0.0.0/8"):
            monkeypatch.setenv("no_proxy", exceptions)
            assert await reached()
            assert state() == "ok"
        monkeypatch.setenv("no_proxy", "example.org")
        assert not await reached()
        assert state() == "fail"


def test_a_bootstrap_that_misleads_is_found(tmp_path: Path):
    def state(environ: dict[str, str]) -> str:
        (finding,) = machine.bootstrap("10.0.0.1:7070", environ)
        return finding.state

    file = tmp_path / "bootstrap.json"
    assert state({}) == "ok"
    assert state({"GRPC_XDS_BOOTSTRAP": str(file)}) == "fail"
    file.write_text("{}")
    assert state({"GRPC_XDS_BOOTSTRAP": str(file)}) == "fail"
    file.write_text(rpc.bootstrap.xds_bootstrap("10.0.0.2:7070"))
    assert state({"GRPC_XDS_BOOTSTRAP": str(file)}) == "warn"
    file.write_text(rpc.bootstrap.xds_bootstrap("10.0.0.1:7070"))
    assert state({"GRPC_XDS_BOOTSTRAP": str(file)}) == "ok"
    assert state({"GRPC_XDS_BOOTSTRAP_CONFIG": "nonsense"}) == "fail"


@pytest.mark.parametrize(("days", "state"), [(90, "ok"), (5, "warn"), (-1, "fail")])
def test_a_certificate_that_ends_is_found(tmp_path: Path, days: int, state: str):
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "gateway.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    given = settings(gateway_tls_certificate=str(file))
    assert by_check(machine.look(given, {}))["certificate"].state == state
    file.write_text("none")
    assert machine.expiry(file).state == "fail"


def test_clocks_that_differ_are_found():
    assert clocks.compared("clock", 0.2).state == "ok"
    assert clocks.compared("clock", -2).state == "warn"
    assert clocks.compared("clock", 3_600).state == "fail"


# The servers


async def test_a_redis_that_forgets_is_found(redis_url: str):
    before = {"appendonly": "yes", "appendfsync": "always", "save": ""}
    before |= {"maxmemory": "0", "maxmemory-policy": "noeviction"}
    assert {f.state for f in await redis.look(redis_url)} == {"ok"}
    async with embedded.redis_client(redis_url) as client:

        async def state(check: str, **given: str) -> Finding:
            for name, value in given.items():
                await client.config_set(name.replace("_", "-"), value)
            found = by_check(await redis.look(redis_url))
            return found[check]

        try:
            loses = await state("redis persistence", appendfsync="everysec")
            assert loses.state == "warn"
            forgets = await state("redis persistence", appendonly="no")
            assert forgets.state == "fail"
            assert "nothing on disk" in forgets.what
            assert "appendonly yes" in forgets.do
            evicts = await state("redis eviction", maxmemory="1gb", maxmemory_policy="allkeys-lru")
            assert evicts.state == "fail"
            used = int((await client.info("memory"))["used_memory"])
            limit = str(int(used * 1.1))
            full = await state("redis memory", maxmemory_policy="noeviction", maxmemory=limit)
            assert full.state == "warn"
        finally:
            for name, value in before.items():
                await client.config_set(name, value)
    assert {f.state for f in await redis.look(redis_url)} == {"ok"}


async def test_a_redis_that_is_old_or_a_replica_is_found():
    told = {
        "redis_version": "6.2.1",
        "role": "slave",
        "used_memory": 1,
        "aof_last_write_status": "err",
    }
    given = {"appendonly": "yes", "appendfsync": "always", "save": ""}
    given |= {"maxmemory": "0", "maxmemory-policy": "noeviction"}
    found = by_check(list(redis.judged(told, given)))
    for check in ("redis", "redis role", "redis aof_last_write_status"):
        assert found[check].state == "fail"


async def test_a_managed_redis_that_does_not_tell_its_settings_is_judged_by_the_rest(
    redis_url: str,
):
    async with embedded.redis_client(redis_url) as client:
        await client.acl_setuser(
            "guest", enabled=True, passwords=["+s"], commands=["+@all", "-config"], keys=["*"]
        )
        try:
            guest = urlsplit(redis_url)._replace(netloc=f"guest:s@{urlsplit(redis_url).netloc}")
            found = by_check(await redis.look(guest.geturl()))
        finally:
            await client.acl_deluser("guest")
    assert {check: finding.state for check, finding in found.items()} == {
        "redis": "ok",
        "redis persistence": "warn",
        "redis eviction": "ok",
        "redis memory": "ok",
    }
    assert "appendfsync" in found["redis persistence"].what


async def test_every_primary_of_a_redis_cluster_is_looked_at(short_folder: Path):
    program = await find_program()
    (short_folder / "doctor").mkdir()
    cluster = Cluster(program, short_folder / "doctor")
    async with running(cluster):
        found = by_check(await redis.look(cluster.url))
        for node in cluster.nodes:
            assert found[f"redis at {node.where}"].state == "ok"
        await cluster.nodes[1].do("CONFIG", "SET", "appendonly", "no")
        found = by_check(await redis.look(cluster.url))
        assert found[f"redis persistence at {cluster.nodes[1].where}"].state == "fail"
    away = by_check(await redis.look(cluster.url))
    assert away["redis"].state == "fail"


async def test_a_database_that_does_not_show_everything(database_url: str):
    name = urlsplit(database_url).path.strip("/")
    async with await Database.opened(database_url, "gateway", "weft.gateway.sql"):
        pass
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(f'CREATE ROLE "guest-{name}" LOGIN')
        guest = urlsplit(database_url)
        host = guest.netloc.rpartition("@")[2]
        guest = guest._replace(netloc=f"guest-{name}@{host}")
        found = by_check(await postgres.look(guest.geturl()))
        assert found["postgres connections"].state == "ok"
        assert found["postgres"].state == "warn"
        assert "permission denied" in found["postgres"].what
    finally:
        await connection.execute(f'DROP ROLE "guest-{name}"')
        await connection.close()


async def test_migrations_that_differ_are_found(database_url: str):
    async with await Database.opened(database_url, "gateway", "weft.gateway.sql"):
        pass
    connection = await asyncpg.connect(database_url)
    check = "schema gateway"

    async def finding() -> Finding:
        return by_check(await postgres.look(database_url))[check]

    try:
        assert (await finding()).state == "ok"
        await connection.execute("INSERT INTO gateway.weft_migrations VALUES ('9999_future', 'x')")
        newer = await finding()
        assert newer.state == "warn"
        assert "9999_future" in newer.what
        await connection.execute("DELETE FROM gateway.weft_migrations WHERE name > '0010'")
        missing = await finding()
        assert missing.state == "warn"
        assert "0030_a2a" in missing.what
        await connection.execute("UPDATE gateway.weft_migrations SET digest = 'other'")
        changed = [f for f in await postgres.look(database_url) if f.state == "fail"]
        assert [f.check for f in changed] == [check]
    finally:
        await connection.close()


async def test_connections_that_run_out_are_found(database_url: str):
    first = await asyncpg.connect(database_url)
    most = int(await first.fetchval("SHOW max_connections"))
    others = await first.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    )
    assert by_check(await postgres.look(database_url))["postgres connections"].state == "ok"
    wanted = int(most * 0.85) - others
    opened = await asyncio.gather(*(asyncpg.connect(database_url) for _ in range(wanted)))
    try:
        found = by_check(await postgres.look(database_url))["postgres connections"]
        assert found.state == "warn"
        assert f"of {most}" in found.what
    finally:
        await asyncio.gather(*(each.close() for each in [first, *opened]))


async def test_a_database_that_only_reads_is_found(database_url: str):
    name = urlsplit(database_url).path.strip("/")
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        found = by_check(await postgres.look(database_url))
        assert found["postgres writes"].state == "fail"
    finally:
        await connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await connection.close()
    assert "postgres writes" not in by_check(await postgres.look(database_url))
