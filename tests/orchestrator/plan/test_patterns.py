"""Nodes made of parts: what their composites are given, and how the interpreter carries them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.orchestrator.executor import Trial, answering
from tests.orchestrator.lab import call, spec, world

from weft.agents.orchestrator.patterns import COMPOSITES, Composites
from weft.agents.orchestrator.plan.compile import compile_workflow
from weft.agents.orchestrator.plan.model import Scope
from weft.agents.orchestrator.plan.patterns import (
    DebatePlan,
    ForEachPlan,
    PanelPlan,
    PatternPlan,
    PeerReviewPlan,
    SupervisionPlan,
    VerificationPlan,
)
from weft.agents.orchestrator.run.composite import Course, Done, Finished, Part
from weft.v1.workflow_pb2 import (
    DebateResult,
    DecisionRule,
    Position,
    StepFailure,
)

WORLD = world()


class Two:
    """Two rounds with all participants, and the answer of the second one's last."""

    made: list[PatternPlan]

    def __init__(self, plan: DebatePlan) -> None:
        self._plan = plan

    def begin(self, scope: Scope, seed: int) -> Course:
        return _TwoRounds(self._plan, self._plan.question.text(scope), seed)


class _TwoRounds:
    def __init__(self, plan: DebatePlan, question: str, seed: int) -> None:
        self._plan, self._question, self._seed = plan, question, seed

    def next(self, done: Mapping[str, Done]) -> Sequence[Part] | Finished:
        first = [self._part(0, each.name, []) for each in self._plan.participants]
        if any(part.key not in done for part in first):
            return first
        opinions = [done[part.key].message for part in first]
        peers = [Position(answer=each.answer) for each in opinions if each is not None]
        second = [self._part(1, each.name, peers) for each in self._plan.participants]
        if any(part.key not in done for part in second):
            return [*first, *second]
        last = done[second[-1].key]
        if last.failure is not None:
            return Finished(failure=StepFailure(code="ABORTED", reason="NO_CONSENSUS"))
        return Finished(output=DebateResult(answer=last.message.answer, flips_to=self._seed % 7))

    def _part(self, round_: int, name: str, peers: list[Position]) -> Part:
        participant = next(each for each in self._plan.participants if each.name == name)
        return Part(
            key=f"round{round_}/{name}",
            call=participant.call,
            variables={"question": self._question, "round": round_, "peers": peers},
            reply=participant.opinion,
        )


def debater(name: str, **more: Any) -> dict[str, Any]:
    text = "question + string(round) + (size(peers) > 0 ? peers[0].answer : '')"
    return {
        "name": name,
        "call": call(fields={"by_path": {"text": text}}),
        "opinion": "weft.v1.Opinion{answer: reply.text + '!'}",
        **more,
    }


DEBATE = {
    "id": "talk",
    "debate": {"question": "input.text", "participants": [debater("anna"), debater("ben")]},
}


def collected(kind: type) -> tuple[Composites, list[Any]]:
    made: list[Any] = []

    def make(plan: Any) -> Any:
        made.append(plan)
        return Two(plan)

    return {**COMPOSITES, kind: make}, made


@pytest.mark.parametrize("crashes", [0.0, 0.8])
@pytest.mark.parametrize("fails", [(), ("talk@1/round1/ben",)])
def test_parts_of_several_rounds_are_carried_out(crashes: float, fails: tuple[str, ...]) -> None:
    plan = compile_workflow(spec(nodes=[DEBATE]), WORLD, composites={DebatePlan: Two})
    given = plan.types.new("lab.v1.Order")
    given.text = "why?"
    trial = Trial(plan, given, answering(plan, fails=fails), crashes=crashes)
    ended = trial.run()
    assert sorted(trial.done) == [
        f"talk@1/round{n}/{who}" for n in (0, 1) for who in ("anna", "ben")
    ]
    if fails:
        assert ended.failure is not None
        assert ended.failure.reason == "NO_CONSENSUS"
    else:
        assert isinstance(ended.output, DebateResult)
        assert ended.output.answer == "why?1why?0!!"
    again = Trial(plan, given, answering(plan, fails=fails)).run()
    assert again == ended, "the seed is the run's own"


def test_a_debate_is_compiled_with_its_defaults() -> None:
    composites, made = collected(DebatePlan)
    assert (
        compile_workflow(spec(nodes=[DEBATE]), WORLD, composites=composites).output_type
        == "weft.v1.DebateResult"
    )
    plan = made[0]
    assert (plan.rounds, plan.least, plan.seed, plan.judge) == (2, 2, 0, None)
    assert plan.rule == DecisionRule.DECISION_RULE_MAJORITY
    assert [each.name for each in plan.participants] == ["anna", "ben"]
    none = {"id": "talk", "debate": {**DEBATE["debate"], "rounds": -1, "least": 1}}
    compile_workflow(spec(nodes=[none]), WORLD, composites=composites)
    assert (made[1].rounds, made[1].least) == (0, 1)


def test_every_pattern_has_the_names_that_its_contract_gives() -> None:
    def names(*more: str) -> dict[str, Any]:
        """A participant that uses all of them."""
        uses = ["size(question)", "round", "size(peers)", *more]
        return debater("anna", call=call(fields={"by_path": {"n": " + ".join(uses)}}))

    ben = debater("ben")
    nodes: dict[type, dict[str, Any]] = {
        DebatePlan: {"debate": {"participants": [names(), ben], "judge": names("size(positions)")}},
        PanelPlan: {"panel": {"experts": [names()], "synthesizer": names("size(reports[0].id)")}},
        VerificationPlan: {
            "verification": {
                "author": names("size(issues[0])", "size(draft.answer)"),
                "verifier": names("size(draft.answer)"),
            }
        },
        SupervisionPlan: {
            "supervision": {
                "supervisor": names("size(done[0].worker)", "size(workers[0])"),
                "workers": [names("size(task)")],
            }
        },
        PeerReviewPlan: {
            "peer_review": {
                "participants": [names("size(stage)", "size(draft.answer)", "size(issues)"), ben]
            }
        },
    }
    for kind, fields in nodes.items():
        composites, made = collected(kind)
        ((name, pattern),) = fields.items()
        node = {"id": "p", name: {"question": "input.text", **pattern}}
        plan = compile_workflow(spec(nodes=[node]), WORLD, composites=composites)
        assert plan.output_type.startswith("weft.v1.")
        assert isinstance(made[0], kind)


def test_a_for_each_is_compiled_with_its_defaults() -> None:
    made: list[ForEachPlan] = []

    def make(plan: ForEachPlan) -> Any:
        made.append(plan)
        return COMPOSITES[ForEachPlan](plan)

    node = {"id": "p", "for_each": {"over": "input.items", "calls": [call()]}}
    compile_workflow(spec(nodes=[node], output="input"), WORLD, composites={ForEachPlan: make})
    assert (made[0].at_once, made[0].least, made[0].most) == (16, None, 1000)


def test_a_pattern_without_a_composite_cannot_be_compiled() -> None:
    with pytest.raises(NotImplementedError, match="DebatePlan"):
        compile_workflow(spec(nodes=[DEBATE]), WORLD, composites={})
