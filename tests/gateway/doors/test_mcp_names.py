"""Names of tools."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from weft.gateway.doors.mcp.names import tool_names, words
from weft.gateway.transcoding.catalog import Agent, Skill


@dataclass(frozen=True, eq=False)
class Named:
    """What of a method its name is made of."""

    agent: Agent
    path: str
    skill: Skill = field(default_factory=Skill)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def named(agent: str, path: str, tool_name: str = "") -> Any:
    return cast("Any", Named(Agent(name=agent), path, Skill(tool_name=tool_name)))


def names(*methods: Any) -> dict[str, str]:
    return {name: method.path for name, method in tool_names(methods).items()}


def test_agent_and_method() -> None:
    assert names(named("support-research", "/p.S/GetArticle"), named("a", "/p.A/Do")) == {
        "a_do": "/p.A/Do",
        "support-research_get_article": "/p.S/GetArticle",
    }


def test_an_option_goes_before_a_made_name() -> None:
    found = names(named("a", "/p.A/Do"), named("b", "/p.B/Do", "a_do"))
    assert found["a_do"] == "/p.B/Do"
    assert sorted(found.values()) == ["/p.A/Do", "/p.B/Do"]


@pytest.mark.parametrize("tool_name", ["", "same"])
def test_who_comes_later_takes_no_name_away(tool_name: str) -> None:
    one, two = named("a", "/p.v1.A/Do", tool_name), named("a", "/p.v2.A/Do", tool_name)
    found = names(one, two)
    assert found == names(two, one)
    assert len(found) == 2
    assert not {"a_do", "same"} & found.keys()


def test_names_are_short_and_valid() -> None:
    long = named("a" * 60, "/p.A/DoSomethingThatTakesLong")
    other = named("a" * 60, "/p.A/DoSomethingThatTakesLonger")
    found = names(long, other, named("b", "/p.B/Do", "not valid!"))
    assert len(found) == 3
    assert all(len(name) <= 64 for name in found)
    assert "b_do" in found


def test_words() -> None:
    assert words("GetHTTPBody2") == ["get", "http", "body2"]
