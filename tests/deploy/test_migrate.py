"""`weft migrate`: what it does, says, and leaves to others."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.deploy.processes import finished, parts_of
from tests.ports import free_port

from weft.cli.schemas import SCHEMAS

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def environment(database_url: str) -> dict[str, str]:
    return {"WEFT_DATABASE_URL": database_url}


async def test_it_makes_every_schema_once(environment: dict[str, str], database_url: str):
    checked = await finished("migrate", "--check", "--json", **environment)
    assert checked.code == 1
    to_do = json.loads(checked.out)["pending"]
    assert {"schema": "gateway", "migration": "0010_jobs.sql"} in to_do
    assert {step["schema"] for step in to_do} == {schema.name for schema in SCHEMAS}
    done = await finished("migrate", "--json", **environment)
    assert (done.code, json.loads(done.out)["migrated"]) == (0, to_do), done.err
    for again in ("--check",), ():
        told = await finished("migrate", *again, **environment)
        assert (told.code, told.out) == (0, "Everything is up to date.\n")
    admin = await asyncpg.connect(database_url)
    for schema in SCHEMAS:
        assert await admin.fetchval(f"select count(*) from {schema.name}.weft_migrations")
    await admin.close()


async def test_parts_that_may_not_migrate_wait_for_it(environment: dict[str, str]):
    off = {**environment, "WEFT_MIGRATE": "off", "WEFT_REDIS_URL": "redis://127.0.0.1:1"}
    for part in ("registry", "gateway", "broker"):
        refused = await finished(part, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", **off)
        assert refused.code == 1
        assert "Run `weft migrate`" in refused.err
        assert "Traceback" not in refused.err
    # It is this command that they wait for, so it is not bound by the setting.
    assert (await finished("migrate", **off)).code == 0


async def test_agents_of_one_s_own_are_migrated_too(environment: dict[str, str], tmp_path: Path):
    folder = tmp_path / "shop_sql"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "0001_orders.sql").write_text("CREATE TABLE orders (id int);")
    own = {**environment, "PYTHONPATH": ":".join([str(tmp_path), *sys.path[1:]])}
    told = await finished("migrate", "--also", "shop=shop_sql", "--json", **own)
    assert {"schema": "shop", "migration": "0001_orders.sql"} in json.loads(told.out)["migrated"]
    for wrong in ("shop", "Shop=shop_sql", "shop=no.such.package"):
        refused = await finished("migrate", "--also", wrong, **own)
        assert (refused.code, wrong.rpartition("=")[2] in refused.err) == (2, True)


async def test_a_migration_that_fails_is_told_in_a_line(
    environment: dict[str, str], tmp_path: Path
):
    folder = tmp_path / "bad_sql"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "0001_bad.sql").write_text("CREATE TABLE a (id int); CREATE TABEL b;")
    own = {**environment, "PYTHONPATH": ":".join([str(tmp_path), *sys.path[1:]])}
    told = await finished("migrate", "--also", "bad=bad_sql", **own)
    assert (told.code, "0001_bad.sql failed, nothing was changed" in told.err) == (1, True)
    assert "Traceback" not in told.err


async def test_parts_need_no_right_to_make_anything(
    environment: dict[str, str], database_url: str, redis_url: str, tmp_path: Path
):
    assert (await finished("migrate", **environment)).code == 0
    role = f"parts_{urlsplit(database_url).path[1:]}"
    admin = await asyncpg.connect(database_url)
    await admin.execute(f"CREATE ROLE {role} LOGIN; ALTER ROLE {role} SET weft.migrate = 'off'")
    for schema in SCHEMAS:
        for what in ("TABLES", "SEQUENCES"):
            rights = "SELECT, INSERT, UPDATE, DELETE" if what == "TABLES" else "USAGE"
            await admin.execute(f"GRANT {rights} ON ALL {what} IN SCHEMA {schema.name} TO {role}")
        await admin.execute(f"GRANT USAGE ON SCHEMA {schema.name} TO {role}")
    anywhere = "127.0.0.1:0"
    settings = {
        "WEFT_DATA": str(tmp_path / "data"),
        "WEFT_DATABASE_URL": database_url.replace("postgres@", f"{role}@", 1),
        "WEFT_REDIS_URL": redis_url,
        "WEFT_REGISTRY_LISTEN": f"127.0.0.1:{free_port()}",
        "WEFT_BROKER_LISTEN": f"127.0.0.1:{free_port()}",
        "WEFT_GATEWAY_LISTEN": anywhere,
        "WEFT_GATEWAY_GRPC_LISTEN": anywhere,
        **dict.fromkeys(
            (f"WEFT_{part}_METRICS" for part in ("REGISTRY", "BROKER", "GATEWAY", "AGENTS")),
            anywhere,
        ),
    }
    settings["WEFT_REGISTRY"] = settings["WEFT_REGISTRY_LISTEN"]
    settings["WEFT_BROKER"] = settings["WEFT_BROKER_LISTEN"]
    try:
        async with parts_of(tmp_path) as parts:
            started = []
            for command in (
                ("registry",),
                ("broker",),
                ("gateway",),
                ("agents", "serve", "support", "orchestrator", "weft.agents.echo:Echo"),
            ):
                started.append(parts.start(*command, **settings))
                await started[-1].ready()
            call = ("send", "echo.Say", '{"text": "hello"}', "--wait", "20s", "--json")
            assert (await finished(*call, **settings)).json["text"] == "hello"
            for part in reversed(started):
                assert await part.stop() == 0
            assert not any("permission denied" in part.said() for part in started)
    finally:
        await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await admin.close()
