"""`weft run debate`, and the debaters of docs/patterns.md as their reader serves them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(120)  # the first of them starts the house
ROOT = Path(__file__).parents[2]
PATTERNS = (ROOT / "docs/patterns.md").read_text()
SECTION = PATTERNS[PATTERNS.index("### A debater of your own") :]
SERVE = "weft agents serve anna=debaters:Small ben=debaters:Fermat cleo=debaters:Patient"
SHOWN = re.findall(r"```console\n\$ (weft run debate .*)\n((?:.*\n)*?)```", SECTION)


@pytest.fixture(scope="module")
def debaters(house: Any, tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the page says to save and to serve."""
    folder = tmp_path_factory.mktemp("debaters")
    code = re.search(r"```python\n((?:.*\n)*?)```", SECTION)
    assert code is not None
    (folder / "debaters.py").write_text(code[1])
    assert f"```sh\n{SERVE}\n```" in SECTION
    log = folder / "log.txt"
    with log.open("wb") as file:
        serving = subprocess.Popen(
            (sys.executable, "-m", "weft.cli", *shlex.split(SERVE)[1:]),
            cwd=folder,
            env=tools.environment(house.data, **house.environment()),
            stdout=file,
            stderr=file,
        )
    try:
        tools.wait_for(lambda: "ready: " in log.read_text())
        assert "agents anna ben cleo" in log.read_text()
        yield
    finally:
        serving.terminate()
        assert serving.wait(20) == 0, log.read_text()


def plain(shown: str) -> list[str]:
    """Lines without what is another one each time."""
    text = re.sub(r" +[\d.]+ m?s\b", " N ms", shown)
    return [line.rstrip() for line in re.sub(r"run \w+", "run ID", text).splitlines() if line]


def test_the_page_has_the_debaters_of_the_file() -> None:
    file = ROOT / "docs/workflows/debaters.py"
    assert f"```python\n{file.read_text()}```" in SECTION


@pytest.mark.parametrize("number", range(3))
def test_a_debate_is_shown_as_the_page_says(
    house: Any, tools: Any, debaters: None, number: int
) -> None:
    assert len(SHOWN) == 3
    command, expected = SHOWN[number]
    env = tools.environment(house.data, **house.environment())
    code, shown = tools.on_terminal(tuple(shlex.split(command)[1:]), env)
    assert code == 0, shown
    wanted = plain(expected.removeprefix("...\n"))
    found = plain(shown)
    assert found[-len(wanted) :] == wanted


def test_a_run_of_a_debate_is_shown_again(
    weft: Any, house: Any, tools: Any, debaters: None
) -> None:
    run = weft("run", "debate", "Is 91 prime?", "--detach").out.strip()
    assert (
        weft("run", "watch", run, "--json").lines[-1]["ended"]["output"]["json"]["answer"] == "no"
    )
    env = tools.environment(house.data, **house.environment())
    code, shown = tools.on_terminal(("run", "watch", run), env)
    wanted = plain(SHOWN[0][1])
    assert (code, plain(shown)[-len(wanted) :]) == (0, wanted)


def test_debaters_are_chosen_by_name(weft: Any, debaters: None) -> None:
    told = weft("run", "debate", "Is 91 prime?", "--with", "anna", "--with", "cleo", "--show")
    assert re.findall(r"agent: (\w+)", told.out) == ["anna", "cleo"]
    assert "method" not in told.out
    told = weft("run", "debate", "Is 91 prime?", "--judge", "cleo", "--show")
    assert re.findall(r"agent: (\w+)", told.out) == ["anna", "ben", "cleo"]
    assert told.out.count("- name:") == 2
    mixed = weft("run", "debate", "Is 91 prime?", "--with", "anna", "--with", "echo.Say", "--json")
    (result,) = [each["ended"]["output"]["json"] for each in mixed.lines if "ended" in each]
    said = {name: each["answer"] for name, each in result["rounds"][0]["opinions"].items()}
    assert said == {"anna": "yes", "echo": "Is 91 prime?"}
    refused = weft("run", "debate", "x", "--with", "anna", "--with", "echo")
    assert (refused.code, "echo is no debater" in refused.err) == (1, True)
    full = "anna.weft.v1.DebaterService/Answer"
    told = weft("run", "debate", "Is 91 prime?", "--with", full, "--with", "ben", "--show")
    assert "method" not in told.out


def test_the_judge_is_no_debater_and_one_alone_is_too_few(weft: Any, debaters: None) -> None:
    told = weft("run", "debate", "Is 91 prime?", "--rule", "judge", "--judge", "ben", "--json")
    assert told.lines[-1]["ended"]["output"]["json"]["answer"] == "no"
    named = set(re.findall(r"round0/(\w+)", told.out))
    assert named == {"anna", "cleo"}


def test_agents_of_a_contract_need_names_and_ports(weft: Any, debaters: None) -> None:
    told = weft("agents", "--json").json
    names = {"anna", "ben", "cleo"}
    addresses = {each["instances"][0]["address"] for each in told if each["name"] in names}
    assert len(addresses) == 3


def test_one_port_is_not_enough_for_two_agents_of_a_contract(nowhere: Any) -> None:
    both = ("a=weft.agents.echo:Echo", "b=weft.agents.echo:Echo")
    told = nowhere("agents", "serve", *both, "--listen", "127.0.0.1:7999")
    assert (told.code, "let --listen end with :0" in told.err) == (2, True)
