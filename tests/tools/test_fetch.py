"""What is read of a page: as much as is allowed, of what is text, as a reader sees it."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tools.callers import serving, signed
from tests.tools.test_fetch_guard import WITH_PUBLIC, Names, read
from tests.tools.web import PUBLIC, answer, certificate_of, site

from weft import rpc
from weft.agents.tools import MemoryAudit, Toolbox
from weft.agents.tools.fetch import FetchRefused, FetchSettings, fetch
from weft.agents.tools.fetch.charsets import decoded
from weft.agents.tools.fetch.html import text_of

PAGE = """<!DOCTYPE html><html><head><title>A &amp; B</title><style>p{}</style>
<script>if (a < b) alert("</p>")</script><meta charset=utf-8></head>
<body><nav><a href="/home">Home</a></nav><!-- <p>hidden</p> -->
<h1>Big <em>news</em></h1><p>One   two<br>three &lt;four&gt; &#x20AC;5</p>
<ul><li>first<li>second</ul><table><tr><th>a<th>b<tr><td>1<td>2</table>
<p title="a > b">quoted</p><a href='other?x=1&amp;y=2'>go on</a><a href="javascript:x()">no link</a>
<pre>  kept
   as it is</pre><noscript>no</noscript>1 < 2</body></html>"""


async def test_a_page_is_told_as_a_reader_sees_it() -> None:
    async with site() as web:
        web.pages["/a/b"] = answer(PAGE.encode(), kind="text/html; charset=utf-8")
        found = await read(f"{web.url}/a/b#part", WITH_PUBLIC)
    assert (found.status, found.media_type, found.title) == (200, "text/html", "A & B")
    assert found.url == f"{web.url}/a/b"
    lines = [line for line in found.text.splitlines() if line]
    assert lines == [
        f"[Home]({web.url}/home)",
        "# Big news",
        "One two",
        "three <four> €5",
        "- first",
        "- second",
        "| a | b",
        "| 1 | 2",
        "quoted",
        f"[go on]({web.url}/a/other?x=1&y=2)no link",
        "kept",
        "as it is",
        "1 < 2",
    ]


async def test_other_texts_are_told_as_they_are() -> None:
    async with site() as web:
        web.pages["/json"] = answer(b'{"a": "<b>"}', kind="application/json")
        web.pages["/svg"] = answer(b"<svg/>", kind="image/svg+xml")
        web.pages["/none"] = answer(b"plain", kind=None)
        web.pages["/latin"] = answer("é".encode("latin-1"), kind="text/plain; charset=ISO-8859-1")
        texts = [(await read(web.url + path, WITH_PUBLIC)).text for path in web.pages]
        missing = await read(f"{web.url}/missing", WITH_PUBLIC)
    assert texts == ['{"a": "<b>"}', "<svg/>", "plain", "é"]
    assert (missing.status, missing.text) == (404, "nothing here")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/pdf", b"%PDF"),
        ("image/png", b"x"),
        ("application/octet-stream", b"x"),
        (None, b"a\0b"),
    ],
)
async def test_what_is_no_text_is_refused(kind, body) -> None:
    async with site() as web:
        web.pages["/"] = answer(body, kind=kind)
        with pytest.raises(FetchRefused, match="text"):
            await read(f"{web.url}/", WITH_PUBLIC)


async def test_a_long_page_is_read_piece_by_piece() -> None:
    text = "".join(f"{number:06}" for number in range(10_000))
    async with site() as web:
        web.pages["/"] = answer(text.encode())
        tool = fetch(FetchSettings(plaintext=True, ports=None, networks=(f"{PUBLIC}/32",)))
        async with Toolbox([tool], audit=MemoryAudit()) as toolbox:

            async def model() -> list[Any]:
                found, offset = [], 0
                while True:
                    (offer,) = toolbox
                    told = await offer({"url": f"{web.url}/", "offset": offset})
                    found.append(told.json)
                    offset = told.json.get("nextOffset", 0)
                    if not offset:
                        return found

            pieces = await serving(signed("user:ann", "tools.fetch"), model)
    assert [len(each["text"]) for each in pieces] == [20_000, 20_000, 20_000]
    assert "".join(each["text"] for each in pieces) == text


async def test_equal_questions_are_asked_once() -> None:
    async with site() as web:
        web.pages["/"] = answer(b"here")
        async with Toolbox([fetch(WITH_PUBLIC)], audit=MemoryAudit()) as toolbox:

            async def model() -> None:
                (offer,) = toolbox
                for _ in range(3):
                    await offer({"url": f"{web.url}/"})

            await serving(signed("user:ann", "tools.fetch"), model)
        assert web.connections == 1


async def test_only_so_much_is_read() -> None:
    sent = 0

    async def for_ever(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    async with site() as web:
        web.pages["/"] = for_ever
        found = await read(f"{web.url}/", WITH_PUBLIC)
    assert found.truncated
    assert (len(found.text), found.next_offset) == (20_000, 20_000)
    assert sent < 20 * 1024 * 1024


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_what_is_packed_is_unpacked_as_far_as_it_may_be(coding) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    bomb = pack(b"0" * 50_000_000)
    async with site() as web:
        web.pages["/"] = answer(pack(b"hello"), headers={"content-encoding": coding})
        web.pages["/bomb"] = answer(bomb, headers={"content-encoding": coding})
        web.pages["/torn"] = answer(b"\x1f\x8bno", headers={"content-encoding": coding})
        web.pages["/br"] = answer(b"x", headers={"content-encoding": "br"})
        assert (await read(f"{web.url}/", WITH_PUBLIC)).text == "hello"
        assert (await read(f"{web.url}/bomb", WITH_PUBLIC)).truncated
        with pytest.raises(rpc.Unavailable):
            await read(f"{web.url}/torn", WITH_PUBLIC)
        with pytest.raises(FetchRefused):
            await read(f"{web.url}/br", WITH_PUBLIC)


@pytest.mark.parametrize("kind", ["silent", "headers", "body"])
async def test_a_slow_server_has_its_time_and_no_more(kind) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        if kind == "headers":
            writer.write(b"HTTP/1.1 200 OK\r\n")
        elif kind == "body":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
        while True:
            if kind != "silent":
                writer.write(b"x: y\r\n" if kind == "headers" else b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    patience = FetchSettings(
        plaintext=True, ports=None, networks=(f"{PUBLIC}/32",), time=timedelta(milliseconds=300)
    )
    async with site() as web:
        web.pages["/"] = drip
        began = time.monotonic()
        with pytest.raises(rpc.Error) as late:
            await read(f"{web.url}/", patience)
        assert time.monotonic() - began < 5
        assert late.value.code.name in {"DEADLINE_EXCEEDED", "UNAVAILABLE"}


async def test_a_server_that_cannot_be_reached_tells_nothing_of_what_is_inside() -> None:
    async with site() as web:
        port = web.port
    with pytest.raises(rpc.Unavailable) as away:
        await read(f"http://{PUBLIC}:{port}/", WITH_PUBLIC)
    assert away.value.message == "It cannot be read (ConnectError)."


@pytest.mark.parametrize("name", ["fetch.test", "other.test"])
async def test_the_certificate_must_be_that_of_the_name(name, tmp_path: Path, monkeypatch) -> None:
    serving_tls, believed = certificate_of("fetch.test", tmp_path)
    Names(monkeypatch, fetch_test=[[PUBLIC]], other_test=[[PUBLIC]])
    https = FetchSettings(ports=None, networks=(f"{PUBLIC}/32",))
    async with site(tls=serving_tls) as web:
        web.pages["/"] = answer(b"here")
        reading = read(f"https://{name}:{web.port}/", https, tls=believed)
        if name == "fetch.test":
            assert (await reading).text == "here"
        else:
            with pytest.raises(rpc.Unavailable):
                await reading
            assert web.asked == []


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        ("é".encode(), "", "é"),
        ("é".encode("utf-16"), "", "é"),
        (b"\xef\xbb\xbfa", "latin-1", "a"),
        ("é".encode("windows-1252"), "windows-1252", "é"),
        (
            b'<meta charset="shift_jis">' + "日".encode("shift_jis"),
            "",
            '<meta charset="shift_jis">日',
        ),
        (b"a\xff", "utf-8", "a\N{REPLACEMENT CHARACTER}"),
        (b"abc", "rot13", "abc"),
        (b"abc", "idna", "abc"),
        (b"abc", "zip", "abc"),
        (b"abc", "no such thing", "abc"),
    ],
)
def test_bytes_become_text(body, charset, text) -> None:
    assert decoded(body, charset) == text


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("", ""),
        ("just text", "just text"),
        ("a<b", "a"),
        ("a < b", "a < b"),
        ("<p>a<!-- b", "a"),
        ("<p>a<script>b", "a"),
        ("<p>a<SCRIPT>b</Script >c", "ac"),
        ("<p title='>'>a", "a"),
        ("<p it's>a", "a"),
        ('<p title=">a', "a"),
        ("<![CDATA[x]]>a", "a"),
        ("<?php x ?>a", "a"),
        ("&amp;&nbsp;&bogus;&#65;&#0;", "& &bogus;A\N{REPLACEMENT CHARACTER}"),
        ("&#" + "9" * 5_000 + ";", "&#" + "9" * 5_000 + ";"),
        ("<a href='x'><a href='y'>z</a></a>", "[z](http://h/x)"),
        ("<a href='http://h/a b(c)'>z</a>", "z"),
        ("</></p x>a", "a"),
    ],
)
def test_odd_pages(page, text) -> None:
    assert text_of(page, "http://h/")[1] == text


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="<>/!-=\"'ab &;#xscriptTITLE\n", max_size=200))
def test_no_page_breaks_it(page) -> None:
    text_of(page, "http://h/")


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "<a ",
        "<!--",
        "</",
        "<a b='",
        '<a b="',
        "<script>",
        "<title>",
        "&#",
        "&am",
        "<a href=x>",
        "<p>",
        "<![",
        "='",
        '<x y="',
    ],
)
def test_the_time_a_page_takes_grows_with_its_size_and_not_faster(unit) -> None:
    def took(size: int) -> float:
        page = unit * (size // len(unit))
        best = 9.0
        for _ in range(2):
            began = time.process_time()
            text_of(page, "http://h/")
            best = min(best, time.process_time() - began)
        return best

    small, large = took(40_000), took(320_000)
    assert large < max(small, 0.002) * 8 * 4, (small, large)  # 64 times, were it quadratic
