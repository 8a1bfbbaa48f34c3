import asyncpg
import pytest

from weft import embedded


@pytest.mark.parametrize("attempt", [1, 2])
async def test_each_test_has_an_empty_database(database_url, attempt):
    connection = await asyncpg.connect(database_url)
    await connection.execute("create table only_mine (attempt int)")
    await connection.execute("insert into only_mine values ($1)", attempt)
    assert await connection.fetchval("select count(*) from only_mine") == 1
    await connection.close()


@pytest.mark.parametrize("attempt", range(17))
async def test_each_test_has_an_empty_redis(redis_url, attempt):
    async with embedded.redis_client(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("mine", attempt)


def test_servers_are_there_for_plain_tests_too(servers):
    assert servers.redis_url.startswith("unix://")
