"""Backups of servers of one's own: what goes along, what is refused, and from where to where it goes."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis
from tests.broker.servers import Cluster, Server, find_program, running
from tests.deploy.processes import finished
from tests.ports import free_port

from weft import embedded

pytestmark = pytest.mark.timeout(240)
SCHEMA = """
CREATE SCHEMA IF NOT EXISTS public; CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;
CREATE SCHEMA desk; CREATE TABLE desk.weft_migrations ();
CREATE TABLE desk.notes (id int, meaning public.vector(3) DEFAULT '[1,2,3]');
CREATE INDEX ON desk.notes USING hnsw (meaning public.vector_cosine_ops);
INSERT INTO desk.notes VALUES (7);
"""


@pytest.fixture
async def settings(database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """A database with a schema, and a Redis."""
    admin = await asyncpg.connect(database_url)
    await admin.execute(SCHEMA)
    await admin.close()
    return {
        "WEFT_DATA": str(tmp_path / "data"),
        "WEFT_DATABASE_URL": database_url,
        "WEFT_REDIS_URL": redis_url,
    }


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "backup"


async def notes(url: str) -> list[int]:
    admin = await asyncpg.connect(url)
    try:
        return [row[0] for row in await admin.fetch("SELECT id FROM desk.notes")]
    finally:
        await admin.close()


async def fill(redis: Redis) -> None:
    """What a broker uses: streams whose groups have entries in hand, hashes, sorted sets, keys that expire, a function."""
    await redis.function_load(
        "#!lua name=greeter\nredis.register_function('greet', function() return 1 end)",
        replace=True,
    )
    for number in range(200):
        await redis.set(f"{{w{number}}}:k", number)
    await redis.set("{w1}:soon", "x", ex=500)
    await redis.zadd("{w2}:z", {"a": 1.5, "b": 2.25})
    await redis.hset("{w3}:m", mapping={"depth": 3})
    for text in ("one", "two", "three"):
        await redis.xadd("{w4}:1", {"e": text})
    await redis.xgroup_create("{w4}:1", "w", id="0")
    await redis.xreadgroup("w", "broker-1", {"{w4}:1": ">"}, count=2)


async def check(redis: Redis) -> None:
    assert await redis.dbsize() == 204
    assert await redis.get("{w199}:k") == b"199"
    assert 400 < await redis.ttl("{w1}:soon") <= 500
    assert await redis.zscore("{w2}:z", "b") == 2.25
    assert await redis.hgetall("{w3}:m") == {b"depth": b"3"}
    pending = await redis.xpending_range("{w4}:1", "w", "-", "+", 10)
    assert [each["consumer"] for each in pending] == [b"broker-1", b"broker-1"]
    ((_, entries),) = await redis.xreadgroup("w", "broker-2", {"{w4}:1": ">"})
    assert [fields[b"e"] for _, fields in entries] == [b"three"]


async def test_what_is_there_is_replaced_only_if_that_is_asked_for(
    settings: dict[str, str], to: Path
) -> None:
    async with embedded.redis_client(settings["WEFT_REDIS_URL"]) as redis:
        await fill(redis)
        made = await finished("backup", "--to", f"{to.parent}/{{time}}", "--json", **settings)
        assert made.json["postgres"]["schemas"] == ["desk"]
        (made_there,) = to.parent.glob("20??-??-??T??????Z")
        made_there.rename(to)
        refused = await finished("backup", "--to", str(to), **settings)
        assert (refused.code, "is not empty" in refused.err) == (1, True)

        refused = await finished("restore", "--from", str(to), **settings)
        assert (refused.code, "desk" in refused.err, "--force" in refused.err) == (1, True, True)
        refused = await finished("restore", "--from", str(to), "--only", "redis", **settings)
        assert (refused.code, "204 keys" in refused.err) == (1, True)

        admin = await asyncpg.connect(settings["WEFT_DATABASE_URL"])
        await admin.execute("INSERT INTO desk.notes VALUES (8)")
        await admin.close()
        await redis.set("later", "x")
        told = await finished("restore", "--from", str(to), "--force", "--json", **settings)
        assert told.json["postgres"]["schemas"] == ["desk"]
        assert await notes(settings["WEFT_DATABASE_URL"]) == [7]
        await check(redis)
    # A database that has nothing, not the extension either.
    fresh = urlsplit(settings["WEFT_DATABASE_URL"])
    name = f"{fresh.path[1:]}_fresh"
    admin = await asyncpg.connect(settings["WEFT_DATABASE_URL"])
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        url = fresh._replace(path=f"/{name}").geturl()
        told = await finished(
            *("restore", "--from", str(to), "--only", "postgres"), WEFT_DATABASE_URL=url
        )
        assert told.code == 0, told.err
        assert await notes(url) == [7]
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


async def test_nothing_is_restored_from_a_backup_that_is_damaged(
    settings: dict[str, str], to: Path
) -> None:
    assert (await finished("backup", "--to", str(to), **settings)).code == 0
    whole = (to / "postgres.dump").read_bytes()
    force = ("restore", "--from", str(to), "--force")
    admin = await asyncpg.connect(settings["WEFT_DATABASE_URL"])
    await admin.execute("INSERT INTO desk.notes VALUES (8)")
    await admin.close()
    manifest = json.loads((to / "manifest.json").read_text())
    for damage, says in (
        (
            lambda: (to / "postgres.dump").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1])),
            "is not what was written",
        ),
        ((to / "postgres.dump").unlink, "lacks postgres.dump"),
        (
            lambda: (to / "manifest.json").write_text(json.dumps(manifest | {"format": 9})),
            "another format",
        ),
        (
            lambda: (to / "manifest.json").write_text(
                json.dumps(manifest | {"secrets": ["../identity.pem"]})
            ),
            "no file of the backup",
        ),
        (lambda: (to / "manifest.json").write_text("{"), "cannot be read"),
        ((to / "manifest.json").unlink, "no finished backup"),
    ):
        damage()
        refused = await finished(*force, **settings)
        assert (refused.code, says in refused.err) == (1, True), refused.err
        assert "Traceback" not in refused.err
    assert await notes(settings["WEFT_DATABASE_URL"]) == [7, 8]


async def test_a_mesh_that_runs_is_not_overwritten(settings: dict[str, str], to: Path) -> None:
    assert (await finished("backup", "--to", str(to), **settings)).code == 0
    part = await asyncpg.connect(
        settings["WEFT_DATABASE_URL"], server_settings={"application_name": "weft-gateway"}
    )
    refused = await finished("restore", "--from", str(to), "--force", **settings)
    assert (refused.code, "connected to the database: weft-gateway" in refused.err) == (1, True)
    await part.close()
    async with embedded.redis_client(settings["WEFT_REDIS_URL"]) as redis:
        broker = await redis.connection_pool.get_connection()
        await broker.send_command("CLIENT", "SETNAME", "weft-broker")
        await broker.read_response()
        refused = await finished("restore", "--from", str(to), "--force", **settings)
        assert (refused.code, "A broker is connected" in refused.err) == (1, True)
        await redis.connection_pool.release(broker)


async def test_without_servers_it_says_what_to_name(tmp_path: Path) -> None:
    refused = await finished(
        "backup", "--to", str(tmp_path / "to"), WEFT_DATA=str(tmp_path / "none")
    )
    assert (refused.code, "--database-url" in refused.err) == (1, True)
    unreachable = await finished(
        *("backup", "--to", str(tmp_path / "to"), "--only", "redis"),
        WEFT_REDIS_URL="redis://127.0.0.1:1",
    )
    assert (unreachable.code, "Redis cannot be reached" in unreachable.err) == (1, True)
    assert "Traceback" not in unreachable.err


async def test_a_redis_with_a_password_goes_to_a_cluster_and_back(
    short_folder: Path, to: Path, tmp_path: Path
) -> None:
    (short_folder / "many").mkdir()
    program = await find_program()
    one = Server(program, short_folder / "one", port=free_port(), requirepass="se:cr@t")
    cluster = Cluster(program, short_folder / "many")
    async with running(one, cluster):
        url = f"redis://:se%3Acr%40t@127.0.0.1:{one.port}/0"
        async with embedded.redis_client(url) as redis:
            await fill(redis)
        only = ("--only", "redis")
        made = await finished("backup", "--to", str(to), *only, WEFT_REDIS_URL=url)
        assert made.code == 0, made.err
        assert "cr@t" not in made.out + made.err + (to / "manifest.json").read_text()

        told = await finished("restore", "--from", str(to), *only, WEFT_REDIS_URL=cluster.url)
        assert told.code == 0, told.err
        there = [int(await node.do("DBSIZE")) for node in cluster.nodes]
        assert (sum(there), min(there) > 0) == (204, True)
        assert all([await node.do("FUNCTION", "LIST") for node in cluster.nodes])

        again = tmp_path / "again"
        made = await finished("backup", "--to", str(again), *only, WEFT_REDIS_URL=cluster.url)
        assert made.code == 0, made.err
        assert len(list(again.glob("*.rdb"))) == 3
        back = ("restore", "--from", str(again), *only, "--force")
        told = await finished(*back, WEFT_REDIS_URL=url)
        assert told.code == 0, told.err
        async with embedded.redis_client(url) as redis:
            await check(redis)
