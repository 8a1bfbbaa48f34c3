"""API keys against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import secrets
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from weft import rpc
from weft.gateway.guards import keys
from weft.gateway.guards.key_check import KeyCheck
from weft.gateway.guards.key_store import KeyStore
from weft.postgres import Database

HOUR = timedelta(hours=1)


class Counting:
    """A store that counts look-ups and can be switched off; otherwise the real one."""

    def __init__(self, store):
        self.store = store
        self.finds = 0
        self.down = False
        self.hangs = False

    async def find(self, key_id):
        self.finds += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.down:
            raise rpc.Unavailable("no database")
        return await self.store.find(key_id)


@pytest.fixture
async def store(database_url):
    async with await Database.connect(database_url, schema="gateway") as database:
        await database.migrate("weft.gateway.sql")
        yield KeyStore(database)


@pytest.fixture
def counting(store):
    return Counting(store)


@pytest.fixture
def check(counting, clock):
    return KeyCheck(counting, clock=clock, patience=timedelta(milliseconds=50))


def bearer(text):
    return [(b"host", b"x"), (b"authorization", f"Bearer {text}".encode())]


def forged(text):
    """The same id with another secret."""
    return text[:18] + secrets.token_urlsafe(32)


async def refusal(check, text):
    with pytest.raises(rpc.Error) as refused:
        await check.identify(bearer(text))
    return refused.value.reason


# The store


async def test_a_key_is_made_listed_and_revoked(store):
    later = datetime.now(UTC) + HOUR
    first = await store.create("  web shop ", scopes=["support.write", "support.read"])
    second = await store.create("nightly", expires_at=later)
    assert first.key.name == "web shop"
    assert first.key.scopes == ("support.read", "support.write")
    assert second.key.expires_at == later
    assert await store.list_keys() == [second.key, first.key]

    revoked = await store.revoke(first.key.id)
    assert revoked.revoked_at is not None
    assert await store.revoke(first.key.id) == revoked
    assert {key.id for key in await store.list_keys() if key.revoked_at} == {first.key.id}


async def test_an_unknown_key_cannot_be_revoked(store):
    with pytest.raises(rpc.NotFound):
        await store.revoke("aaaaaaaaaaaa")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "n" * 201}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"scopes": ["fine", "Not fine"]}, "scopes[1]"),
        ({"scopes": [""]}, "scopes[0]"),
        ({"expires_at": datetime(2000, 1, 1, tzinfo=UTC)}, "expires_at"),
        ({"expires_at": datetime(2100, 1, 1)}, "expires_at"),  # noqa: DTZ001 the point
    ],
)
async def test_values_out_of_range_are_refused_by_name(store, wrong, field):
    with pytest.raises(rpc.InvalidArgument) as refused:
        await store.create(**{"name": "x", **wrong})
    assert [path for path, _ in refused.value.violations] == [field]


async def test_the_database_never_holds_the_secret(store, database_url):
    made = await store.create("x")
    connection = await asyncpg.connect(database_url)
    row = await connection.fetchval("SELECT api_keys::text FROM gateway.api_keys")
    await connection.close()
    secret = made.text.removeprefix(f"weft_{made.key.id}_")
    assert secret not in row
    assert secret.encode().hex() not in row


async def test_nothing_shows_or_logs_the_secret(store, check, caplog):
    with caplog.at_level(logging.DEBUG):
        made = await store.create("x")
        await check.identify(bearer(made.text))
        await refusal(check, forged(made.text))
    secret = made.text.removeprefix(f"weft_{made.key.id}_")
    assert secret not in repr(made)
    assert secret not in repr(await store.find(made.key.id))
    assert secret not in caplog.text


# The check


async def test_a_valid_key_is_an_identity(store, check):
    made = await store.create("web shop", scopes=["support.write"])
    identity = await check.identify(bearer(made.text))
    assert identity.subject == f"key:{made.key.id}"
    assert identity.display_name == "web shop"
    assert list(identity.scopes) == ["support.write"]


async def test_only_the_holder_of_the_secret_learns_why(store, check):
    now = datetime.now(UTC)
    valid, revoked = await store.create("x"), await store.create("x")
    expired = await store.create("x", expires_at=now + HOUR)
    await store.revoke(revoked.key.id)
    late = KeyCheck(store, now=lambda: now + 2 * HOUR)
    assert await refusal(late, revoked.text) == "KEY_REVOKED"
    assert await refusal(late, expired.text) == "KEY_EXPIRED"
    _, never_made = keys.generate()
    guesses = [forged(made.text) for made in (valid, revoked, expired)]
    for guess in (never_made, *guesses):
        assert await refusal(late, guess) == "KEY_UNKNOWN"


async def test_a_key_works_until_the_moment_it_expires(store):
    made = await store.create("x", expires_at=datetime.now(UTC) + HOUR)
    assert made.key.expires_at is not None
    times = [made.key.expires_at - timedelta(microseconds=1), made.key.expires_at]
    check = KeyCheck(store, now=lambda: times.pop(0))
    await check.identify(bearer(made.text))
    assert await refusal(check, made.text) == "KEY_EXPIRED"


async def test_the_database_is_asked_once_a_second_however_many_call(store, check, counting, clock):
    made = await store.create("x")
    await asyncio.gather(*(check.identify(bearer(made.text)) for _ in range(200)))
    await asyncio.gather(*(refusal(check, forged(made.text)) for _ in range(200)))
    assert counting.finds == 1
    clock.advance(1)
    await asyncio.gather(*(check.identify(bearer(made.text)) for _ in range(200)))
    assert counting.finds == 2


async def test_a_revocation_is_seen_within_a_second(store, check, clock):
    made = await store.create("x")
    await check.identify(bearer(made.text))
    await store.revoke(made.key.id)
    clock.advance(1)
    assert await refusal(check, made.text) == "KEY_REVOKED"


async def test_unknown_ids_are_remembered_but_not_without_bound(store, counting, clock):
    check = KeyCheck(counting, clock=clock, capacity=10)
    made = await store.create("x")
    await check.identify(bearer(made.text))
    _, unknown = keys.generate()
    for _ in range(5):
        assert await refusal(check, unknown) == "KEY_UNKNOWN"
    assert counting.finds == 2
    for _ in range(50):
        await refusal(check, keys.generate()[1])
    assert len(check._unknown) == 10
    await check.identify(bearer(made.text))
    assert counting.finds == 52  # the flood pushed no valid key out


async def test_a_cancelled_caller_takes_nobody_with_it(store, check, counting):
    made = await store.create("x")
    first, second = (asyncio.create_task(check.identify(bearer(made.text))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).subject == f"key:{made.key.id}"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_known_keys_outlive_an_outage_of_the_database(store, check, counting, clock):
    made = await store.create("x")
    await check.identify(bearer(made.text))
    counting.down = True
    for _ in range(29):
        clock.advance(1)
        await check.identify(bearer(made.text))
    clock.advance(1)
    with pytest.raises(rpc.Unavailable) as refused:
        await check.identify(bearer(made.text))
    assert refused.value.reason == "KEYS_UNAVAILABLE"
    assert refused.value.retry_after == timedelta(seconds=1)
    assert await refusal(check, keys.generate()[1]) == "KEYS_UNAVAILABLE"

    counting.down = False
    clock.advance(1)
    await check.identify(bearer(made.text))


async def test_a_hanging_database_is_waited_for_once(store, check, counting, clock):
    made = await store.create("x")
    await check.identify(bearer(made.text))
    clock.advance(1)
    counting.hangs = True
    began = asyncio.get_running_loop().time()
    strangers = [refusal(check, keys.generate()[1]) for _ in range(1_000)]
    answers = await asyncio.gather(check.identify(bearer(made.text)), *strangers)
    assert answers[0].subject == f"key:{made.key.id}"
    assert set(answers[1:]) == {"KEYS_UNAVAILABLE"}
    assert asyncio.get_running_loop().time() - began < 1
