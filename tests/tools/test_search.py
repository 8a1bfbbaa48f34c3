"""Searching the web, against servers that speak the engines' APIs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from tests.agents.remote.conftest import http_server
from tests.tools.callers import serving, signed

from weft import rpc
from weft.agents.tools import MemoryAudit, Toolbox
from weft.agents.tools.search import Engine, Hit, SearXNG, Tavily, web_search

KEY = "tvly-secret"
PAGES = [
    {
        "url": "https://a.example/1",
        "title": "  One \n page ",
        "content": "About " + "x" * 2_000,
        "score": 0.9,
        "published_date": "2026-01-02",
        "publishedDate": "2026-01-02",
    },
    {"url": "https://a.example/1", "title": "Twice", "content": "", "score": 0.8},
    {"url": "javascript:alert(1)", "title": "Odd", "content": ""},
    {"url": "https://b.example/2", "title": None, "content": None, "publishedDate": None},
    "no hit",
    {"title": "without a URL"},
    {"url": "http://c.example/3", "title": "Three", "content": "c", "raw_content": None},
]


class Engines:
    """Both APIs in one server; answers something else when told to."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.otherwise: tuple[int, bytes, dict[str, str]] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        body = (await receive()).get("body", b"")
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = {name: value[0] for name, value in parse_qs(scope["query_string"].decode()).items()}
        status, answer, more = self.otherwise or self._answer(scope, headers, query, body)
        started = [(name.encode(), value.encode()) for name, value in more.items()]
        await send({"type": "http.response.start", "status": status, "headers": started})
        await send({"type": "http.response.body", "body": answer})

    def _answer(self, scope: Any, headers: Any, query: Any, body: bytes) -> Any:
        if scope["path"] != "/search":
            return 404, b"", {}
        if scope["method"] == "POST":
            if headers.get("authorization") != f"Bearer {KEY}":
                return (
                    401,
                    b'{"detail": {"error": "Unauthorized: missing or invalid API key."}}',
                    {},
                )
            asked = json.loads(body)
            self.asked.append(asked)
            found = {"query": asked["query"], "results": PAGES[: asked["max_results"] + 4]}
            return 200, json.dumps(found).encode(), {}
        if query.get("format") != "json":
            return 403, b"Forbidden", {}
        self.asked.append(query)
        return 200, json.dumps({"query": query["q"], "results": PAGES, "answers": []}).encode(), {}


@pytest.fixture
async def engines() -> AsyncIterator[tuple[Engines, dict[str, Engine]]]:
    served = Engines()
    async with http_server(served) as url, httpx.AsyncClient(trust_env=False, timeout=5) as client:
        tavily = Tavily(client, KEY, depth="advanced", url=url)
        yield served, {"tavily": tavily, "searxng": SearXNG(client, url + "/", language="de")}


@pytest.mark.parametrize("name", ["tavily", "searxng"])
async def test_hits_are_the_engines_in_its_order(name, engines) -> None:
    served, made = engines
    found = await made[name].search("weft & mesh", 3)
    assert [each.url for each in found] == [
        "https://a.example/1",
        "https://b.example/2",
        "http://c.example/3",
    ]
    assert found[0].title == "One page"
    assert found[0].published == "2026-01-02"
    assert len(found[0].excerpt) == 1_000
    assert found[1] == Hit(url="https://b.example/2", title="", excerpt="")
    assert served.asked == [
        {"query": "weft & mesh", "max_results": 3, "search_depth": "advanced"}
        if name == "tavily"
        else {"q": "weft & mesh", "format": "json", "language": "de"}
    ]
    assert len(await made[name].search("weft", 1)) == 1


@pytest.mark.parametrize("name", ["tavily", "searxng"])
@pytest.mark.parametrize(
    ("status", "body", "headers", "code"),
    [
        (401, b"secret", {}, "FAILED_PRECONDITION"),
        (403, b"secret", {}, "FAILED_PRECONDITION"),
        (429, b"secret", {"retry-after": "7"}, "RESOURCE_EXHAUSTED"),
        (429, b"secret", {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, "RESOURCE_EXHAUSTED"),
        (432, b"secret", {}, "RESOURCE_EXHAUSTED"),
        (500, b"secret", {}, "UNAVAILABLE"),
        (302, b"", {"location": "http://169.254.169.254/"}, "INTERNAL"),
        (400, b"secret", {}, "INTERNAL"),
        (200, b"<html>", {}, "UNAVAILABLE"),
        (200, b"[]", {}, "UNAVAILABLE"),
        (200, b"{}", {}, "UNAVAILABLE"),
        (200, b'{"results": 1}', {}, "UNAVAILABLE"),
        (200, b" " * 5_000_000, {}, "UNAVAILABLE"),
    ],
)
async def test_what_goes_wrong_is_said_and_nothing_else(
    name, status, body, headers, code, engines
) -> None:
    served, made = engines
    served.otherwise = (status, body, headers)
    with pytest.raises(rpc.Error) as failed:
        await made[name].search("weft", 3)
    assert failed.value.code.name == code
    assert "secret" not in failed.value.message
    assert KEY not in failed.value.message
    if headers.get("retry-after") == "7":
        assert failed.value.retry_after == timedelta(seconds=7)  # type: ignore[attr-defined]


async def test_an_engine_that_is_away() -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(rpc.Unavailable):
            await SearXNG(client, "http://127.0.0.1:1").search("weft", 3)


async def test_a_model_searches(engines) -> None:
    served, made = engines
    async with Toolbox([web_search(made["searxng"])], audit=MemoryAudit()) as toolbox:

        async def model() -> Any:
            (offer,) = toolbox
            return [
                await offer({"query": " weft   mesh "}),
                await offer({"query": " weft   mesh "}),
                await offer({"query": "weft", "count": 2}),
                await offer({"query": "   "}),
                await offer({"query": "x" * 401}),
            ]

        told = await serving(signed("user:ann", "tools.web_search"), model)
    assert [each.is_error for each in told] == [False, False, False, True, True]
    assert told[0].json is not None
    assert len(told[0].json["hits"]) == 3
    assert len(told[2].json["hits"]) == 2
    assert [each["q"] for each in served.asked] == ["weft mesh", "weft"]
