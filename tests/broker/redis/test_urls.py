"""The forms of a Redis URL."""

from __future__ import annotations

import logging

import pytest

from weft.broker.redis import StoreUnfit
from weft.broker.redis.url import Account, Address, Kind, parse


@pytest.mark.parametrize(
    ("text", "kind", "addresses", "database", "name"),
    [
        ("redis://h:1/2", Kind.PRIMARY, [Address("h", 1)], 2, ""),
        ("redis://h", Kind.PRIMARY, [Address("h", 6379)], 0, ""),
        ("redis://[::1]:7,h:8", Kind.PRIMARY, [Address("::1", 7), Address("h", 8)], 0, ""),
        ("redis://[::1]", Kind.PRIMARY, [Address("::1", 6379)], 0, ""),
        ("unix:///tmp/a%20b/s?db=3", Kind.PRIMARY, [Address("/tmp/a b/s")], 3, ""),
        ("redis-cluster://a:1,b:2", Kind.CLUSTER, [Address("a", 1), Address("b", 2)], 0, ""),
        (
            "sentinel://a,b:2/main/4",
            Kind.SENTINEL,
            [Address("a", 26379), Address("b", 2)],
            4,
            "main",
        ),
    ],
)
def test_forms(text, kind, addresses, database, name):
    url = parse(text)
    assert (url.kind, list(url.addresses), url.database, url.name) == (
        *(kind, addresses, database),
        name,
    )


def test_an_account():
    url = parse("redis://me:p%40ss@h:1,g:2")
    assert url.account == Account(user="me", password="p@ss")
    assert "p@ss" not in f"{url!r} {url}"
    assert parse("unix://:secret@/s").account == Account(user="", password="secret")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "redis://",
            "redis:///0",
            "http://h",
            "redis://h:port",
            "redis://h/a",
            "redis://h/0/1",
        ),
        *("sentinel://a:1", "redis-cluster://a:1/2", "h:6379"),
    ],
)
def test_what_is_no_url(text):
    with pytest.raises(StoreUnfit):
        parse(text)


async def test_a_password_is_used_and_never_told(redis_server, connect, caplog):
    caplog.set_level(logging.DEBUG)
    server = redis_server(requirepass="s3cret")
    await server.start()
    redis = await connect(server.url.replace("unix://", "unix://:s3cret@"))
    assert await redis.send(0, "ECHO", "a") == b"a"
    with pytest.raises(StoreUnfit) as caught:
        await connect(server.url.replace("unix://", "unix://:wr0ng@"))
    assert "wr0ng" not in caplog.text + str(caught.value)
    with pytest.raises(StoreUnfit, match="NOAUTH"):
        await connect(server.url)
