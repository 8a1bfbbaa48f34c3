"""`weft remote`: what docs/remote.md says to paste works when pasted, and `weft up` runs what the settings say."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from tests.cli.test_readme import paste

from weft import config
from weft.cli.commands.remote import remote as group
from weft.cli.house.house import _remote_command

DOCS = Path(__file__).parents[2] / "docs" / "remote.md"
MARK = "<!-- pasted by tests/cli/test_remote.py -->\n"


def blocks() -> list[str]:
    found = [
        re.match(r"```sh\n(.*?)```", each, re.DOTALL) for each in DOCS.read_text().split(MARK)[1:]
    ]
    return [each[1] for each in found if each]


@pytest.mark.timeout(120)
def test_an_mcp_server_is_an_agent(house, tools, tmp_path: Path):
    printed = paste(blocks()[0], house, tools, tmp_path)
    assert printed.count('"1:35"') == 1
    assert printed.count('"1:01"') == 1


@pytest.mark.timeout(120)
def test_an_a2a_agent_is_an_agent(house, tools, tmp_path: Path):
    printed = paste(blocks()[1], house, tools, tmp_path)
    assert "TASK_STATE_COMPLETED" in printed
    assert "intent" in printed


@pytest.mark.parametrize(
    "further",
    [
        {},
        {
            "protocol": "a2a",
            "token_file": "/a b",
            "header": "X-Key",
            "scopes": ("a.b", "c"),
            "timeout": 2.5,
            "refresh": 5.0,
            "hosts": ("one", "two:81"),
            "ca_file": "ca.pem",
            "plaintext": True,
        },
        {"token_env": "TOKEN"},
    ],
)
def test_a_process_is_told_all_that_the_settings_say(further):
    given = config.Remote(**{"name": "r", "protocol": "mcp", "url": "https://a/b", **further})
    first, protocol, *line = _remote_command(given)
    assert first == group.name
    params = group.commands[protocol].make_context(protocol, line, resilient_parsing=False).params
    names = {each.name for each in dataclasses.fields(given)}
    told = {name: value for name, value in params.items() if name in names}
    assert config.Remote(protocol=protocol, **told) == given


def test_what_cannot_be_used_is_said(nowhere):
    told = nowhere("remote", "mcp", "x", "http://example.com/mcp")
    assert told.code == 2
    assert "plaintext" in told.err
    told = nowhere("remote", "mcp", "Bad Name", "https://example.com/mcp")
    assert told.code == 2
    assert "no name for an agent" in told.err


def test_the_remotes_of_the_settings_are_listed(nowhere, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weft.toml").write_text('[remotes.weather]\nmcp = "https://a/mcp"\n')
    assert "https://a/mcp" in nowhere("remote").out
    assert nowhere("remote", "--json").json[0]["name"] == "weather"
