"""Tools by settings: what a file says is what agents get, and credentials are in no text."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.tools.callers import serving, signed
from tests.tools.test_query import of_role
from tests.tools.web import answer, site

from weft import config
from weft.agents.tools import MemoryAudit, Toolbox, tools_of

KEY = "tvly-very-secret"
TOML = """
[tools.calculator]

[tools.fetch]
hosts = ["example.org", "*.example.org"]
ports = 443
timeout = 7
per_second = 2
burst = 5

[tools.web_search]
kind = "tavily"
url = "{url}"
key_env = "SEARCH_KEY"
scopes = "web"

[tools.own_search]
kind = "searxng"
url = "{url}"
timeout = 3

[tools.shop]
kind = "query"
url = "{database}"
key_file = "{folder}/password"
tables = "shop_settings.orders"
rows = 1
about = "Orders."
"""


def load(folder: Path, text: str) -> config.Settings:
    path = folder / "weft.toml"
    path.write_text(text)
    return config.load({"WEFT_CONFIG": str(path)})


async def test_tools_are_as_the_settings_say(tmp_path, database_url, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "password").write_text("x\n")
    admin = await asyncpg.connect(database_url)
    await admin.execute(
        "create schema shop_settings; create table shop_settings.orders as select 7 as id;"
        "do $$ begin create role clerk3 login password 'x'; exception when duplicate_object then null; end $$;"
        "grant usage on schema shop_settings to clerk3; grant select on shop_settings.orders to clerk3"
    )
    found = b'{"results": [{"url": "https://a.example/", "title": "A", "content": "c"}]}'
    async with site() as web:
        web.pages["/search"] = answer(found, kind="application/json")
        web.pages["/search?q=a&format=json"] = answer(found, kind="application/json")
        database = of_role(database_url, "clerk3").replace(":x@", "@")
        settings = load(tmp_path, TOML.format(url=web.url, database=database, folder=tmp_path))
        again = config.load(config.environment(settings))
        assert again.tools == settings.tools
        async with tools_of(again, {"SEARCH_KEY": KEY}) as tools:
            assert list(tools) == ["calculator", "fetch", "web_search", "own_search", "shop"]
            assert [each.name for each in tools.values()] == list(tools)
            assert tools["web_search"].required == ("web",)
            assert tools["shop"].required == ("tools.shop",)
            assert "Orders." in tools["shop"].description
            rate = tools["fetch"].rate
            assert rate is not None
            assert (rate.per_second, rate.burst) == (2, 5)
            assert tools["fetch"].timeout == timedelta(seconds=7)
            assert tools["own_search"].timeout == timedelta(seconds=3)
            told = await _used(tools)
            assert KEY not in repr((tools, settings))
        headers = [each[1] for each in web.asked]
    assert told["web_search"].json["hits"][0]["url"] == "https://a.example/"
    assert told["own_search"].json["hits"][0]["url"] == "https://a.example/"
    assert told["shop"].json == {"rows": [{"id": 7.0}]}
    assert told["fetch"].text == "INVALID_ARGUMENT: Its host is not one of those that are allowed."
    assert [each.get("authorization") for each in headers] == [f"Bearer {KEY}", None]
    assert KEY not in caplog.text
    await admin.execute("drop schema shop_settings cascade; drop owned by clerk3; drop role clerk3")
    await admin.close()


async def _used(tools: Any) -> dict[str, Any]:
    arguments = {
        "fetch": {"url": "https://example.com/"},
        "web_search": {"query": "a"},
        "own_search": {"query": "a"},
        "shop": {"sql": "select id from orders"},
    }
    async with Toolbox(tools.values(), audit=MemoryAudit()) as toolbox:

        async def model() -> dict[str, Any]:
            offers = {each.name: each for each in toolbox}
            return {name: await offers[name](given) for name, given in arguments.items()}

        return await serving(signed("user:root", all_scopes=True), model)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tools.search]\n", "give its kind = one of calculator, fetch, tavily, searxng, query"),
        ('[tools.a]\nkind = "bing"\n', "kind must be one of calculator"),
        ('[tools.a]\nkind = "searxng"\n', "give url ="),
        ('[tools.a]\nkind = "query"\nurl = "postgresql://u@h/d"\n', "give tables ="),
        ('[tools.fetch]\ntables = "a.b"\n', "tables is no setting of a tool of the kind fetch"),
        ('[tools.fetch]\nports = "443"\n', "ports cannot be"),
        ('[tools.fetch]\nnetworks = "10.0.0.1/8"\n', "tools: fetch: 10.0.0.1/8"),
        ("[tools.fetch]\nplaintext = 1\n", "plaintext cannot be 1"),
        ("[tools.fetch]\ntimeout = -1\n", "less than nothing"),
        ("[tools.tavily]\n", "give key_env ="),
        ('[tools.tavily]\nkey = "tvly-1"\n', "no setting 'key'"),
        ('[tools.tavily]\nkey_env = "A"\nkey_file = "b"\n', "two credentials"),
        ('[tools.tavily]\nkey_env = "A"\n', "tools: tavily: the variable A holds no credential"),
        ('[tools.tavily]\nkey_file = "/nowhere"\n', "/nowhere cannot be read"),
        ('[tools.searxng]\nurl = "file:///x"\n', "url must begin with https:// or http://"),
        ('[tools.query]\nurl = "https://h/d"\ntables = "a.b"\n', "begin with postgresql://"),
        ('[tools.query]\nurl = "postgresql://u:p@h/d"\ntables = "a.b"\n', "hold no password"),
        (
            '[tools.query]\nurl = "postgresql://u@h/d?password=p"\ntables = "a.b"\n',
            "hold no password",
        ),
        ('[tools.query]\nurl = "postgresql://u@h/d"\ntables = "a"\n', "tables are named as in"),
        ('[tools."a b"]\nkind = "calculator"\n', "is no name for a tool"),
    ],
)
async def test_what_is_wrong_is_told(tmp_path, text, told) -> None:
    with pytest.raises(config.SettingError, match=told):
        async with asyncio.timeout(5), tools_of(load(tmp_path, text), {}):
            pass
