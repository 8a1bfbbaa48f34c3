"""`weft run` and `weft approvals`, with the mesh of `weft up`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from weft.cli import steps
from weft.v1 import orchestrator_pb2 as pb

pytestmark = pytest.mark.timeout(120)  # the first of them starts the house
ROOT = Path(__file__).parents[2]
ANSWER = str(ROOT / "docs/workflows/answer.yaml")
SAY = """
name: said
input_type: weft.echo.v1.SayRequest
nodes:
  - id: greeting
    wait: {name: greeting, type: weft.echo.v1.SayResponse}
  - id: say
    call:
      agent: echo
      method: weft.echo.v1.EchoService/Say
      fields: {text: greeting.text + input.text, fail_with: input.fail_with}
edges:
  - {from: greeting, to: say}
"""


@pytest.fixture
def graph(tmp_path: Path) -> str:
    file = tmp_path / "graph.yaml"
    file.write_text(SAY)
    return str(file)


def test_a_graph_is_run_to_its_end(weft: Any) -> None:
    told = weft("run", ANSWER, "--input", '{"text": "Where is my card?"}')
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    steps = [line.split()[1] for line in lines if line.startswith("✓")]
    assert steps == ["triage", "research", "solution", "quality", "release"]
    result = json.loads(told.out[told.out.index("\n{") :])
    assert "card" in result["text"]
    assert result["citations"][0]["number"] == 1
    assert "succeeded after" in told.err


def test_a_run_has_a_budget_and_shows_what_it_spent(weft: Any, graph: str) -> None:
    begin = ("run", graph, "--id", "bounded", "--detach")
    assert weft(*begin, "--budget-tokens", "5000", "--budget-usd", "0.5").code == 0
    shown = weft("run", "get", "bounded", "--json").json
    assert shown["budget"] == {"tokens": "5000", "usd": 0.5}
    told = weft("run", "get", "bounded").out
    assert "spent     0 tokens, 0.0 USD of 5,000 tokens, 0.5 USD" in told
    assert weft("run", "cancel", "bounded").code == 0
    assert weft(*begin, "--budget-tokens", "0").code == 2


def test_what_was_spent_is_told_by_agent_and_model() -> None:
    run = pb.Run(spending=pb.Spending(tokens=1_200, usd=0.0123))
    assert steps.spent(run) == "1,200 tokens, 0.0123 USD"
    part = pb.SpendingPart(
        agent="triage", model="small", requests=2, unpriced=1, tokens=1_200, usd=0.0123
    )
    assert steps.part(part) == (
        "triage by small: 1,200 tokens, 0.0123 USD, 2 requests, the cost of 1 is not known"
    )
    assert steps.spent(pb.Run()) == ""


def test_somebody_else_approves_and_may_edit(weft: Any, tmp_path: Path) -> None:
    stolen = '{"text": "My card was stolen, block it now!!"}'
    told = weft("run", ANSWER, "--input", stolen, "--id", "stolen", "--detach")
    assert told.out == "stolen\n", told.err
    waiting = weft("run", "get", "stolen", "--json").json
    while waiting["state"] != "RUN_STATE_WAITING":
        waiting = weft("run", "get", "stolen", "--json").json
    (approval,) = weft("approvals", "list", "--run", "stolen", "--json").json
    id_, digest = approval["id"], approval["digest"]
    assert approval["title"] == "Answer to: My card was stolen, block it now!!"
    shown = weft("approvals", "show", id_).out
    assert digest in shown
    assert "editable  yes" in shown
    # Not by whoever began it, not unseen, not something else than was seen.
    own = weft("approvals", "approve", id_, "--yes")
    assert (own.code, "PERMISSION_DENIED" in own.err) == (1, True)
    assert weft("approvals", "approve", id_, "--as", "ada").code == 2
    other = weft("approvals", "approve", id_, "--as", "ada", "--digest", "0" * 64)
    assert (other.code, "has changed" in other.err) == (1, True)
    edited = weft("approvals", "edit", id_, "--with", '{"text": "Blocked."}', "--as", "ada")
    assert edited.code == 0, edited.err
    followed = weft("run", "watch", "stolen", "--json").lines
    assert followed[-1]["ended"]["output"]["json"] == {"text": "Blocked."}
    assert [each["number"] for each in followed] == [str(n + 1) for n in range(len(followed))]
    drawn = weft("run", "draw", "stolen", "--output", str(tmp_path / "run.svg"))
    assert drawn.code == 0, drawn.err
    root = ET.parse(tmp_path / "run.svg").getroot()
    told = root.find("{http://www.w3.org/2000/svg}desc")
    assert told is not None
    assert "person (approval): succeeded" in str(told.text)
    assert "stolen" not in weft("approvals").out


def test_a_run_waits_for_a_message_fails_and_is_tried_again(weft: Any, graph: str) -> None:
    given = '{"text": "Ann", "failWith": 9}'
    submitted = weft("run", "submit", graph, "--json").json
    assert submitted["name"] == "said"
    assert "said" in weft("run", "workflows").out
    assert weft("run", "workflows", "said").out.startswith("name: said\n")
    run = weft("run", "start", "said", "--input", given, "--detach").out.strip()
    wrong = weft("run", "signal", run, "nothing", "{}")
    assert (wrong.code, "no step of this run waits for it" in wrong.err) == (1, True)
    assert weft("run", "signal", run, "greeting", '{"text": "Hello, "}').code == 0
    failed = weft("run", "watch", run)
    assert (failed.code, "✗ say" in failed.out, "FAILED_PRECONDITION" in failed.err) == (
        1,
        True,
        True,
    )
    listed = weft("run", "list", "--workflow", "said", "--state", "failed", "--json").json
    assert run in [each["id"] for each in listed]
    again = weft("run", "retry", run, "--id", f"{run}-2", "--json")
    assert again.code == 1
    assert again.lines[-1]["ended"]["retryOf"] == run
    other = weft("run", graph, "--input", '{"text": "Bob"}', "--detach").out.strip()
    assert weft("run", "cancel", other).code == 0
    assert weft("run", "watch", other).code == 1
    assert "cancelled" in weft("run", "get", other).out


def test_faults_have_lines(weft: Any, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(SAY.replace("input.text,", "input.txt,").replace("agent: echo", "agent: ecko"))
    checked = weft("run", "check", str(file))
    assert checked.code == 1
    agent, field = checked.out.splitlines()
    assert agent.startswith(f"{file}:9:7: nodes[1].call.agent: ")
    assert field.startswith(f'{file}:11:16: nodes[1].call.fields.by_path["text"]: ')
    assert checked.out.splitlines() == [
        line.strip() for line in weft("run", str(file)).err.splitlines()[1:]
    ]
    found = weft("run", "check", str(file), "--json")
    assert [each["line"] for each in json.loads(found.out)["faults"]] == [9, 11]
    assert "is right; it gives weft.support.v1.Answer" in weft("run", "check", ANSWER).out


def test_a_debate_is_made_of_agents(weft: Any) -> None:
    made = weft(
        "run", "debate", "Is 91 prime?", "--with", "echo.Say", "--with", "echo.Say", "--show"
    )
    assert made.code == 0, made.err
    assert "question: '\"Is 91 prime?\"'" in made.out
    assert "opinion: 'weft.v1.Opinion{answer: reply.text}'" in made.out
    assert weft("run", "debate", "x", "--with", "echo.Say").code == 2
    wrong = weft("run", "debate", "x", "--with", "echo.Say", "--with", "echo.Sai")
    assert (wrong.code, "Did you mean 'Say'?" in wrong.err) == (1, True)


def test_nobody_debates_where_nobody_is_a_debater(weft: Any) -> None:
    told = weft("run", "debate", "Is 91 prime?")
    assert told.code == 1
    assert "in service is none" in told.err
    assert 'docs/patterns.md, "A debater of your own"' in told.err
    assert "--with AGENT.METHOD" in told.err


def test_a_file_is_drawn_without_a_mesh(nowhere: Any, graph: str, tmp_path: Path) -> None:
    assert nowhere("run", "draw", graph).out.startswith("<svg ")
    assert "flowchart TD" in nowhere("run", "draw", graph, "--format", "mermaid").out
    told = nowhere("run", "draw", "said")
    assert (told.code, "cannot be reached" in told.err) == (1, True)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: x\nnods: []\n")
    told = nowhere("run", "check", str(wrong))
    assert told.code == 1
    assert f"{wrong}:2:1: WorkflowSpec has no field 'nods'; did you mean 'nodes'?" in told.err
    told = nowhere("run", "strat", "said")
    assert (told.code, "Did you mean 'start'?" in told.err) == (2, True)
    assert nowhere("run", str(tmp_path / "none.yaml")).code == 2


def test_the_picture_in_the_documentation_is_the_command_s(nowhere: Any) -> None:
    drawn = nowhere("run", "draw", ANSWER).out
    assert drawn == (ROOT / "docs/workflows/answer.svg").read_text()


def test_the_documentation_has_the_graph_that_is_run() -> None:
    told = (ROOT / "docs/workflows.md").read_text()
    assert f"```yaml\n{Path(ANSWER).read_text()}```" in told


def test_a_terminal_shows_steps_as_they_are(house: Any, tools: Any) -> None:
    env = tools.environment(house.data, **house.environment())
    text = '{"text": "Where is my card?"}'
    code, shown = tools.on_terminal(("run", ANSWER, "--input", text), env)
    assert code == 0, shown
    assert "✓ release" in shown
    assert "succeeded" in shown
