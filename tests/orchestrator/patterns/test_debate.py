"""Debates: each rule that they promise."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.orchestrator.patterns.tables import (
    LOST,
    Said,
    Script,
    Table,
    failure,
    people,
    person,
    result,
    rounds,
    says,
)

from weft.agents.orchestrator.patterns.debate import Debate
from weft.agents.orchestrator.plan.patterns import DebatePlan
from weft.agents.orchestrator.run.composite import Part
from weft.v1.workflow_pb2 import DecisionRule, Opinion

FIVE = "anna ben cleo dan eve"


def debate(script: Script, names: str = FIVE, **more: Any) -> Table:
    plan: dict[str, Any] = {
        "question": person("x").call.request,
        "participants": people(names),
        "rounds": 2,
        "rule": DecisionRule.DECISION_RULE_MAJORITY,
        "judge": None,
        "least": 2,
        "seed": 0,
    }
    return Table(Debate(DebatePlan(**{**plan, **more})), script)


def split(answers: str, names: str = FIVE) -> dict[str, Said]:
    """An answer of one letter for each."""
    return dict(zip(names.split(), answers, strict=True))


def test_first_answers_are_independent() -> None:
    table = debate(rounds(split("aabbc")))
    course = table.pattern.begin({}, 7)
    parts = course.next({})
    assert isinstance(parts, list)
    assert [part.key for part in parts] == [f"round0/{name}" for name in FIVE.split()]
    assert all(part.variables["peers"] == [] for part in parts)
    assert all(part.variables["question"] == "why?" for part in parts)
    assert all(part.variables["round"] == 0 for part in parts)


def test_the_next_round_begins_when_all_have_answered() -> None:
    table = debate(rounds(split("aabbc")))
    table.run()
    order = [key.partition("/")[0] for key in table.done]
    assert order == sorted(order)


def argued(part: Part) -> Opinion:
    name = part.key.rpartition("/")[2]
    answers = dict(zip(FIVE.split(), ("A", "a ", "b", "b", "c"), strict=True))
    return says(answers[name], argument=f"{part.key.partition('/')[0]} {answers[name]}")


def test_peers_are_grouped_without_names_and_the_own_answer_is_among_them() -> None:
    table = debate(argued)
    table.run()
    for name in FIVE.split():
        seen = table.seen(f"round1/{name}")
        assert sorted((each.answer.lower(), each.votes) for each in seen) == [
            ("a", 2),
            ("b", 2),
            ("c", 1),
        ]
        assert all(len(each.arguments) == each.votes for each in seen)
        assert not any(name in str(each) for each in seen for name in FIVE.split())


def test_each_reader_has_an_order_of_its_own_that_a_seed_settles() -> None:
    def orders(seed: int) -> list[list[str]]:
        table = debate(rounds(split("abcde")), seed=seed)
        table.run()
        return [[each.answer for each in table.seen(f"round1/{name}")] for name in FIVE.split()]

    assert orders(1) == orders(1)
    assert orders(1) != orders(2)
    assert len({tuple(each) for each in orders(1)}) > 2
    spread = {each[0] for seed in range(1, 20) for each in orders(seed)}
    assert spread == set("abcde"), "no answer is always behind another"


def test_without_a_seed_the_runs_own_settles_the_order() -> None:
    tables = [debate(rounds(split("abcde"))) for _ in range(2)]
    tables[1].seed = 8
    for table in tables:
        table.run()
    assert tables[0].asked != tables[1].asked


def test_errors_that_were_named_are_shown() -> None:
    first, second = split("aabbc"), {"anna": says("a", "b forgets zero"), "eve": says("b", "mine")}
    table = debate(rounds(first, second))
    table.run()
    seen = table.seen("round2/ben")
    assert {each.answer: list(each.errors_named) for each in seen} == {
        "a": ["b forgets zero"],
        "b": ["mine"],
    }


def test_it_stops_when_all_agree() -> None:
    table = debate(rounds(split("aaaaa")))
    made = result(table.run())
    assert (made.stopped, made.answer, len(made.rounds)) == ("unanimous", "a", 1)
    assert len(table.asked) == 5


def test_it_stops_when_answers_are_stable() -> None:
    table = debate(rounds(split("aaabb")), rounds=5)
    made = result(table.run())
    assert (made.stopped, len(made.rounds)) == ("stable", 2)


def test_it_stops_at_the_bound() -> None:
    flips = rounds(
        split("aaabb"),
        {"dan": says("c", "x")},
        {"dan": says("b", "x")},
        {"dan": says("c", "x")},
    )
    made = result(debate(flips).run())
    assert (made.stopped, len(made.rounds)) == ("rounds", 3)
    made = result(debate(flips, rounds=1).run())
    assert (made.stopped, len(made.rounds)) == ("rounds", 2)


def test_no_rounds_are_a_vote() -> None:
    made = result(debate(rounds(split("aabbb")), rounds=0).run())
    assert (made.stopped, made.answer, len(made.rounds)) == ("vote", "b", 1)
    assert made.confidence == made.baseline_confidence


def test_answers_are_compared_without_case_and_space() -> None:
    first: dict[str, Said] = {
        "anna": " Yes",
        "ben": "YES ",
        "cleo": "no",
        "dan": "yes",
        "eve": "No",
    }
    made = result(debate(rounds(first)).run())
    assert made.answer == "Yes"
    assert [(each.answer, each.votes) for each in made.positions] == [("Yes", 3), ("no", 2)]


def test_a_change_without_a_named_error_does_not_count() -> None:
    silent = rounds(split("aabbc"), {"eve": "a"})
    made = result(debate(silent).run())
    assert not made.consensus
    assert made.rounds[1].opinions["eve"].answer == "a", "what was said is kept"
    assert made.flips_to == 0
    blank = rounds(split("aabbc"), {"eve": says("a", " ")})
    assert not result(debate(blank).run()).consensus
    named = rounds(split("aabbc"), {"eve": says("a", "c is not prime")})
    made = result(debate(named).run())
    assert (made.answer, made.consensus, made.flips_to) == ("a", True, 1)


def test_who_says_nothing_in_a_later_round_keeps_its_opinion() -> None:
    made = result(
        debate(rounds(split("aabbc"), {"eve": says(" ", "I do not know any more")})).run()
    )
    assert [(each.answer, each.votes) for each in made.positions] == [("a", 2), ("b", 2), ("c", 1)]


OVERTURNED = rounds(
    split("aaabb"),
    {
        "anna": says("b", "a divides by zero"),
        "ben": says("b", "a divides by zero"),
        "dan": says("b", "a divides by zero"),
        "eve": says("b", "a divides by zero"),
    },
)


def test_the_vote_of_the_first_round_stands_without_a_judge() -> None:
    made = result(debate(OVERTURNED).run())
    assert (made.answer, made.baseline_answer, made.consensus) == ("a", "a", True)
    assert (made.flips_to, made.flips_from) == (0, 2)
    assert [(each.answer, each.votes) for each in made.positions] == [("b", 4), ("a", 1)]
    assert [each.answer for each in made.dissent] == ["b"]


def test_a_judge_may_confirm_that_it_is_left() -> None:
    script: dict[str, Said] = {**OVERTURNED, "judge/forward": "B", "judge/reverse": "b"}
    table = debate(script, judge=person("judge"))
    made = result(table.run())
    assert (made.answer, made.baseline_answer) == ("b", "a")
    assert (made.flips_to, made.flips_from) == (2, 0)
    assert [each.answer for each in made.dissent] == ["a"]
    against: dict[str, Said] = {**script, "judge/reverse": "a"}
    assert result(debate(against, judge=person("judge")).run()).answer == "a"


def test_what_all_have_left_is_judged_by_its_first_arguments() -> None:
    flips = {name: says("b", "zero", argument="late") for name in FIVE.split()}
    first = {**split("aaabb"), "anna": says("a", argument="early")}
    script = {**rounds(first, flips), "judge/forward": "a", "judge/reverse": "a"}
    table = debate(script, judge=person("judge"))
    made = result(table.run())
    shown = {each.answer: list(each.arguments) for each in table.seen("judge/forward", "positions")}
    assert shown["a"] == ["early"]
    assert (made.answer, made.stopped, len(made.positions)) == ("a", "unanimous", 1)


def test_no_judge_is_asked_where_too_few_of_the_first_named_errors() -> None:
    second = {"anna": says("b", "x"), "ben": says("b", "x"), "dan": says("b", "x"), "eve": "b"}
    table = debate(rounds(split("aaabb"), second), judge=person("judge"))
    made = result(table.run())
    assert (made.answer, made.flips_from) == ("a", 2)
    assert not any(key.startswith("judge") for key in table.asked)


def test_no_judge_is_asked_where_no_more_than_half_came_over() -> None:
    names = f"{FIVE} fay gus"
    second = {
        "anna": says("b", "x"),
        "ben": says("c", "x"),
        "dan": says("b", "x"),
        "eve": says("b", "x"),
    }
    table = debate(rounds(split("aaabbdc", names), second), names, judge=person("judge"), rounds=1)
    made = result(table.run())
    assert (made.positions[0].answer, made.positions[0].votes) == ("b", 3)
    assert (made.answer, made.flips_from) == ("a", 2)
    assert not any(key.startswith("judge") for key in table.asked)


def test_one_alone_cannot_overturn_it() -> None:
    second = {name: says("b", "zero") for name in ("anna", "ben", "cleo", "eve")}
    table = debate(rounds(split("aaacb"), second), judge=person("judge"))
    assert result(table.run()).answer == "a"
    assert not any(key.startswith("judge") for key in table.asked)


def test_a_tie_is_no_consensus() -> None:
    made = result(debate(rounds(split("aabbc"))).run())
    assert (made.answer, made.consensus, made.confidence) == ("", False, 0.0)
    assert (made.baseline_answer, made.baseline_confidence) == ("", 0.0)
    assert [each.answer for each in made.dissent] == ["a", "b", "c"]


def test_a_tie_in_the_end_falls_back_to_the_first_vote() -> None:
    second = {"anna": says("c", "x")}
    made = result(debate(rounds(split("aaabb"), second), rounds=1).run())
    assert [(each.answer, each.votes) for each in made.positions] == [("a", 2), ("b", 2), ("c", 1)]
    assert (made.answer, made.consensus) == ("a", True)


def test_a_judge_decides_a_tie_between_those_that_are_tied() -> None:
    script: dict[str, Said] = {
        **rounds(split("aabbc")),
        "judge/forward": "b",
        "judge/reverse": "B ",
    }
    table = debate(script, judge=person("judge"))
    made = result(table.run())
    assert (made.answer, made.consensus) == ("b", True)
    forward = [each.answer for each in table.seen("judge/forward", "positions")]
    assert sorted(forward) == ["a", "b"]
    assert all(each.votes == 0 for each in table.seen("judge/forward", "positions"))
    backward = [each.answer for each in table.seen("judge/reverse", "positions")]
    assert backward == forward[::-1]


@pytest.mark.parametrize("rule", ["MAJORITY", "JUDGE"])
@pytest.mark.parametrize("second", ["b", "c", "nothing like it", LOST])
def test_two_verdicts_are_none(rule: str, second: Said) -> None:
    script: dict[str, Said] = {
        **rounds(split("aabbc")),
        "judge/forward": "a",
        "judge/reverse": second,
    }
    number = DecisionRule.Value(f"DECISION_RULE_{rule}")
    made = result(debate(script, judge=person("judge"), rule=number).run())
    assert (made.answer, made.consensus) == ("", False)


def test_a_verdict_for_an_answer_that_nobody_gave_is_none() -> None:
    script: dict[str, Said] = {**rounds(split("aabbc")), "judge/forward": "z", "judge/reverse": "z"}
    assert not result(debate(script, judge=person("judge")).run()).consensus


def test_by_the_rule_judge_it_decides_between_all() -> None:
    script: dict[str, Said] = {**rounds(split("aaabc")), "judge/forward": "c", "judge/reverse": "c"}
    rule = DecisionRule.DECISION_RULE_JUDGE
    made = result(debate(script, judge=person("judge"), rule=rule).run())
    assert (made.answer, made.baseline_answer) == ("c", "a")
    split_: dict[str, Said] = {**script, "judge/forward": "a"}
    made = result(debate(split_, judge=person("judge"), rule=rule).run())
    assert (made.answer, made.consensus, made.baseline_answer) == ("", False, "a")


def test_by_unanimity_one_is_enough_to_prevent_it() -> None:
    rule = DecisionRule.DECISION_RULE_UNANIMITY
    made = result(debate(rounds(split("aaaab")), rule=rule).run())
    assert (made.answer, made.consensus, made.baseline_answer) == ("", False, "")
    agreed = rounds(split("aaaab"), {"eve": says("a", "mine was about b")})
    made = result(debate(agreed, rule=rule).run())
    assert (made.answer, made.stopped) == ("a", "unanimous")


def test_by_rank_second_choices_count() -> None:
    def script(part: Part) -> Opinion:
        name = part.key.rpartition("/")[2]
        ranking = {"a": ["c", "b"], "b": ["c", "a"], "c": ["b", "a"]}
        answer = dict(zip(FIVE.split(), "aabbc", strict=True))[name]
        return says(answer, ranking=ranking[answer])

    ranked = DecisionRule.DECISION_RULE_RANKED
    assert result(debate(script, rule=ranked).run()).answer == "c"


def test_by_weight_scores_count() -> None:
    def script(part: Part) -> Opinion:
        answer = dict(zip(FIVE.split(), "aaabb", strict=True))[part.key.rpartition("/")[2]]
        return says(answer, score=0.2 if answer == "a" else 0.9)

    weighted = DecisionRule.DECISION_RULE_WEIGHTED
    assert result(debate(script, rule=weighted).run()).answer == "b"
    assert result(debate(script).run()).answer == "a"


def test_who_fails_is_tolerated_down_to_the_least() -> None:
    first: dict[str, Said] = {**split("aabbb"), "dan": LOST, "eve": LOST}
    table = debate(rounds(first), least=3)
    made = result(table.run())
    assert made.answer == "a"
    assert dict(made.rounds[0].failures) == {"dan": LOST, "eve": LOST}
    assert "round1/dan" not in table.asked, "a later answer would not be independent"
    failed = failure(debate(rounds(first), least=4).run())
    assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", "TOO_FEW_ANSWERS")
    assert dict(failed.metadata)["dan"] == "UNAVAILABLE"


def test_it_fails_as_soon_as_too_few_are_left() -> None:
    table = debate(rounds({**split("aabbb"), "anna": LOST}), least=5)
    failure(table.run())
    assert list(table.done) == ["round0/anna"]


def test_who_gives_no_answer_abstains() -> None:
    first: dict[str, Said] = {**split("aabbb"), "dan": " ", "eve": ""}
    assert result(debate(rounds(first), least=3).run()).answer == "a"
    assert failure(debate(rounds(first), least=4).run()).reason == "TOO_FEW_ANSWERS"


def test_who_fails_later_keeps_the_answer() -> None:
    script = rounds(split("aaabb"), {"anna": LOST, "ben": "", "dan": says("c", "x")})
    table = debate(script)
    made = result(table.run())
    assert made.answer == "a"
    assert dict(made.rounds[1].failures) == {"anna": LOST}
    assert "round2/anna" in table.asked


def test_confidence_follows_from_independent_agreement_only() -> None:
    def sure(answers: str, names: str = FIVE) -> float:
        return result(debate(rounds(split(answers, names)), names, rounds=0).run()).confidence

    assert sure("aaaaa") > sure("aaaab") > sure("aaabb") > sure("aabbc") == 0
    assert sure("aaa", "x y z") < sure("aaaaa")
    assert 0.8 < sure("aaaaa") < 0.95, "errors may be shared"
    boasts = {
        name: says(answer, score=1.0) for name, answer in zip(FIVE.split(), "aaabb", strict=True)
    }
    assert result(debate(rounds(boasts), rounds=0).run()).confidence == sure("aaabb")
    conform = rounds(split("aaabb"), {"dan": says("a", "x"), "eve": says("a", "x")})
    made = result(debate(conform).run())
    assert made.stopped == "unanimous"
    assert made.confidence == sure("aaabb"), "who came later is not independent"


def changing(part: Part) -> Said:
    """Answers by chance that the part settles, and what it sees."""
    if part.key.startswith("judge"):
        positions: Any = part.variables["positions"]
        return str(positions[0].answer)
    chance = random.Random(f"{part.key} {part.variables['peers']}")
    if chance.random() < 0.15:
        return LOST
    errors = ["zero"] if chance.random() < 0.7 else []
    return says(chance.choice("abc"), *errors, argument=chance.choice("xyz"))


@pytest.mark.parametrize("seed", range(25))
def test_neither_the_order_of_ends_nor_a_restart_changes_anything(seed: int) -> None:
    def table() -> Table:
        made = debate(changing, judge=person("judge"), least=1, rounds=4)
        made.seed = seed
        return made

    calm, hectic, forgetful = table(), table(), table()
    ended = calm.run()
    assert hectic.run(random.Random(seed)) == ended
    assert forgetful.run(random.Random(-seed), forgets=True) == ended
    assert calm.asked == hectic.asked == forgetful.asked
    assert calm.pattern.begin({}, seed).next(calm.done) == ended, "all at once is the same"
    backwards = dict(reversed(calm.done.items()))
    assert calm.pattern.begin({}, seed).next(backwards) == ended
