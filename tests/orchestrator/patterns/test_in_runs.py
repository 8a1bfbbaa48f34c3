"""Patterns of submitted workflows: compiled against a mesh, carried out by the interpreter, forgotten in the middle."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.orchestrator.executor import Handler, Trial
from tests.orchestrator.lab import call, spec, world

from weft.agents.orchestrator.plan.compile import compile_workflow
from weft.agents.orchestrator.plan.model import Plan
from weft.agents.orchestrator.run.turns import OpenCall, OpenStep
from weft.v1.workflow_pb2 import DebateResult

WORLD = world()
WHO = ["anna", "ben", "cleo", "dan", "eve"]


def person(name: str, text: str, opinion: str) -> dict[str, Any]:
    """A participant that calls Work, which gives a text and number by chance for what it is asked."""
    asked = call(fields={"by_path": {"text": f"'{name} ' + question + {text}"}})
    return {"name": name, "call": asked, "opinion": f"weft.v1.Opinion{{{opinion}}}"}


PEERS = "string(size(peers))"
ANSWER = "answer: reply.text, score: reply.score, errors_named: reply.n % 2 == 0 ? ['zero'] : []"
PATTERNS: dict[str, dict[str, Any]] = {
    "debate": {
        "participants": [person(name, f"{PEERS} + string(round)", ANSWER) for name in WHO],
        "rounds": 4,
        "least": 2,
        "judge": person("judge", "positions[0].answer", "answer: 'a'"),
    },
    "panel": {
        "experts": [person(name, "''", ANSWER) for name in WHO],
        "least": 2,
        "synthesizer": person("sam", "reports[0].id", "answer: reply.text, evidence: ['r1', 'r8']"),
    },
    "verification": {
        "author": person("anna", "string(size(issues)) + draft.answer", ANSWER),
        "verifier": person("vera", "draft.answer", "score: reply.score, errors_named: ['zero']"),
        "enough": 0.95,
        "revisions": 5,
    },
    "supervision": {
        "supervisor": person(
            "boss",
            "string(size(done))",
            "answer: reply.n % 5 == 0 ? '' : workers[reply.n % size(workers)], argument: reply.text",
        ),
        "workers": [person(name, "task", ANSWER) for name in WHO],
        "most": 5,
    },
    "peer_review": {
        "participants": [person(name, "stage + draft.answer", ANSWER) for name in WHO],
    },
}


def compiled(pattern: str) -> Plan:
    node = {"id": "talk", pattern: {"question": "input.text", **PATTERNS[pattern]}}
    return compile_workflow(spec(nodes=[node]), WORLD)


def working(plan: Plan) -> Handler:
    def handle(step: OpenStep) -> Any:
        assert isinstance(step, OpenCall)
        chance = random.Random(f"{step.key}{step.request}")
        made = plan.types.new("lab.v1.Result")
        made.text, made.n, made.score = chance.choice("ab"), chance.randrange(10), chance.random()
        return made

    return handle


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_run_that_is_forgotten_goes_on_where_it_was(pattern: str, seed: int) -> None:
    plan = compiled(pattern)
    given = plan.types.new("lab.v1.Order")
    given.text = f"why {seed}?"
    calm = Trial(plan, given, working(plan))
    ended = calm.run()
    assert ended.failure is None
    shaken = Trial(plan, given, working(plan), chance=random.Random(seed), crashes=0.5)
    assert shaken.run() == ended
    assert sorted(shaken.done) == sorted(calm.done), "nothing is done twice, and nothing else"
    assert len(set(shaken.done)) == len(shaken.done)
    assert ended.output is not None
    assert type(ended.output).__module__.startswith("weft.v1"), "a message of this process's own"


def test_a_participant_whose_request_cannot_be_computed_has_failed() -> None:
    ill = person("fay", "peers[0].answer", ANSWER)
    people = [*PATTERNS["debate"]["participants"], ill]
    node = {"id": "talk", "debate": {"question": "input.text", "participants": people}}
    plan = compile_workflow(spec(nodes=[node]), WORLD)
    ended = Trial(plan, plan.types.new("lab.v1.Order"), working(plan)).run()
    assert isinstance(ended.output, DebateResult)
    assert list(ended.output.rounds[0].failures) == ["fay"]
    assert ended.output.rounds[0].failures["fay"].reason == "EXPRESSION_FAILED"
