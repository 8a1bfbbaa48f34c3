from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest

from weft import config
from weft.agents import llm
from weft.agents.llm.money.postgres import PostgresLedger
from weft.agents.llm.setup import entries_of
from weft.testing.messages_server import MessagesServer
from weft.testing.messages_server import scenarios as say

TOML = """
[endpoints.here]
kind = "vllm"
url = "{url}"
key_env = "HERE_KEY"
idle = 7

[models.default]
model = "claude-sonnet-5-5"
fallback = "small"
effort = "low"

[models.small]
endpoint = "here"
model = "qwen"
temperature = 0.3
max_tokens = 99
timeout = 12.5

[budgets.run]
tokens = 20000
usd = 0.5

[budgets."tenant:acme"]
tokens = 1000
per = "month"
"""


def load(tmp_path, text: str, **env: str) -> config.Settings:
    path = tmp_path / "weft.toml"
    path.write_text(text)
    return config.load({"WEFT_CONFIG": str(path), **env})


def test_settings_are_read_and_go_on_to_child_processes(tmp_path) -> None:
    settings = load(tmp_path, TOML.format(url="http://127.0.0.1:1"))
    assert settings.models["small"].temperature == 0.3
    assert settings.models["default"].fallback == ("small",)
    assert settings.budgets["tenant:acme"].per == "month"
    again = config.load(config.environment(settings))
    assert again.models == settings.models
    assert again.endpoints == settings.endpoints
    assert again.budgets == settings.budgets


def test_entries_are_as_the_settings_say(tmp_path) -> None:
    settings = load(tmp_path, TOML.format(url="http://127.0.0.1:1"))
    entries = entries_of(settings, {"HERE_KEY": "k-1", "ANTHROPIC_API_KEY": "k-2"})
    small = entries["small"]
    assert (small.endpoint.key, small.endpoint.name) == ("k-1", "here")
    assert small.endpoint.idle == timedelta(seconds=7)
    assert small.endpoint.temperature
    assert small.settings.max_tokens == 99
    assert small.settings.timeout == timedelta(seconds=12.5)
    default = entries["default"]
    assert default.endpoint.url == "https://api.anthropic.com"
    assert default.endpoint.key == "k-2"
    assert default.settings.temperature is None
    assert "k-1" not in repr(small)
    assert "k-2" not in repr(default)


def test_the_key_of_anthropic_goes_to_anthropic_alone(tmp_path) -> None:
    text = '[endpoints.proxy]\nurl = "https://proxy.example"\n[models.default]\nendpoint = "proxy"\nmodel = "m"\n'
    entries = entries_of(load(tmp_path, text), {"ANTHROPIC_API_KEY": "k-2"})
    assert entries["default"].endpoint.key == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[models.a]\n", "a: give model ="),
        ('[models.a]\nmodel = "m"\nendpoint = "b"\n', "no endpoint 'b'"),
        ('[models.a]\nmodel = "m"\nfallback = "b"\n', "no other model 'b'"),
        ('[models.a]\nmodel = "m"\nfallback = "a"\n', "no other model 'a'"),
        ('[models.a]\nmodel = "m"\ncolour = 1\n', "no setting 'colour'"),
        ('[models.a]\nmodel = "m"\nmax_tokens = "x"\n', "max_tokens cannot be 'x'"),
        ('[models.a]\nmodel = "m"\ncache = "1d"\n', "cache must be one of off, 5m, 1h"),
        ('[models.a]\nmodel = "m"\nretries = -1\n', "less than nothing"),
        ('[endpoints.a]\nkind = "openai"\n', "kind must be one of claude"),
        ('[endpoints.a]\nurl = "ftp://x"\n', "url must begin with"),
        ('[endpoints.a]\nurl = "https://me:secret@x"\n', "hold no password"),
        ('[endpoints.a]\nkey_env = "A"\nkey_file = "b"\n', "two credentials"),
        ('[endpoints.a]\nkey_env = "A"\n[models.a]\nmodel = "m"\nendpoint = "a"\n', "variable A"),
        ("[budgets.house]\ntokens = 1\n", "a budget is of a call"),
        ("[budgets.run]\n", "needs tokens or usd"),
        (
            'model_prices = "/nowhere"\n[models.a]\nmodel = "m"\nendpoint = "ollama"\n',
            "holds no prices",
        ),
    ],
)
async def test_what_is_wrong_with_settings_is_told(tmp_path, text, told) -> None:
    with pytest.raises(config.SettingError, match=told):
        async with llm.models_of(load(tmp_path, text), environ={}):
            pass


async def test_models_of_settings_answer_and_count_in_the_database(tmp_path, database_url) -> None:
    pytest.importorskip("anthropic")
    async with MessagesServer(flavour="vllm") as server:
        await answer_and_count(tmp_path, database_url, server)


async def answer_and_count(tmp_path, database_url, server) -> None:
    server.always("qwen", say.text("hello"))
    text = TOML.format(url=server.url)
    settings = load(tmp_path, text, WEFT_DATABASE_URL=database_url)
    environ = {"HERE_KEY": "k-1", "ANTHROPIC_API_KEY": "k-2"}
    async with llm.models_of(settings, environ=environ) as models:
        assert isinstance(models.books.ledger, PostgresLedger)
        await models.warm()
        reply = await models["small"].generate("hi")
        assert reply.text == "hello"
        assert reply.cost == 0  # it is our own machine
        spent = await models.books.ledger.spent(models.books.account("agent", "small"))
        assert spent.tokens == reply.usage.tokens
    assert server.requests[0].headers["authorization"] == "Bearer k-1"
    assert server.requests[0].body["temperature"] == 0.3


async def test_without_models_there_is_none(tmp_path) -> None:
    async with llm.models_of(load(tmp_path, "")) as models:
        assert models.get("support-solution") is None


def test_the_sdk_is_imported_by_nobody_who_does_not_ask_a_model() -> None:
    code = (
        "import sys, weft.agents, weft.agents.llm, weft.testing.messages_server\n"
        "assert not {'anthropic', 'httpx2', 'pydantic'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
