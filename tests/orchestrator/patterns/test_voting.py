"""The rules of votes, orders by chance, and forms of answers."""

from __future__ import annotations

from collections import Counter

from tests.orchestrator.patterns.tables import says

from weft.agents.orchestrator.patterns.agreement import confidence
from weft.agents.orchestrator.patterns.answers import normal, positions
from weft.agents.orchestrator.patterns.asking import opinion_of
from weft.agents.orchestrator.patterns.shuffling import shuffled
from weft.agents.orchestrator.patterns.voting import Outcome, vote
from weft.agents.orchestrator.run.composite import Done
from weft.v1.workflow_pb2 import DecisionRule, Opinion, Position, StepFailure

MAJORITY = DecisionRule.DECISION_RULE_MAJORITY
RANKED = DecisionRule.DECISION_RULE_RANKED
WEIGHTED = DecisionRule.DECISION_RULE_WEIGHTED


def test_the_most_frequent_answer_wins() -> None:
    assert vote(MAJORITY, [says("a"), says("b"), says("A ")]) == Outcome(winner="a")
    assert vote(MAJORITY, [says("b"), says("a"), says("c")]) == Outcome(tied=("a", "b", "c"))


def test_one_answer_of_all_wins_by_every_rule() -> None:
    for rule in DecisionRule.values():
        assert vote(rule, [says("a"), says(" A")]) == Outcome(winner="a")


def test_answers_that_nobody_gave_win_no_points() -> None:
    ballots = [says("a", ranking=["z", "y", "x", "b"]), says("b", ranking=["z"])]
    assert vote(RANKED, ballots) == Outcome(tied=("a", "b"))


def test_nobody_gains_by_ranking_twice_or_by_silence() -> None:
    ballots = [says("a", ranking=["a", "a"]), says("b", ranking=["c", "a"]), says("c")]
    # a: 2 + 0 + 0.5, b: 0.5 + 2 + 0.5, c: 0.5 + 1 + 2
    assert vote(RANKED, ballots) == Outcome(winner="c")


def test_a_vote_without_a_score_weighs_as_the_others_in_the_mean() -> None:
    assert vote(WEIGHTED, [says("a", score=0.4), says("b")]) == Outcome(tied=("a", "b"))
    assert vote(WEIGHTED, [says("a"), says("b"), says("b")]).winner == "b"
    boast = [says("a", score=99.0), says("b", score=0.6), says("b", score=0.6)]
    assert vote(WEIGHTED, boast).winner == "b", "scores end at 1"
    assert vote(WEIGHTED, [says("a", score=float("nan")), says("b"), says("b")]).winner == "b"


def test_forms_of_one_answer_are_equal() -> None:
    assert normal(" Caf\u00e9\n") == normal("CAFE\u0301")
    assert normal("a b") != normal("ab")


def test_positions_have_the_most_frequent_first() -> None:
    made = positions([says("b"), says("a", argument="x"), says("B", "e", argument="y")])
    assert made == [
        Position(answer="b", votes=2, arguments=["y"], errors_named=["e"]),
        Position(answer="a", votes=1, arguments=["x"]),
    ]


def test_an_order_is_settled_by_its_salt_alone() -> None:
    assert shuffled("abcd", "1", str) == shuffled("dcba", "1", str)
    first = Counter(shuffled("abcd", str(salt), str)[0] for salt in range(400))
    assert all(60 < first[letter] < 140 for letter in "abcd"), "none is preferred"


def test_orders_stay_the_same_from_version_to_version() -> None:
    assert shuffled("abcdef", "seed", str) == ["c", "f", "e", "b", "a", "d"]


def test_confidence_is_a_probability_that_rises_with_agreement() -> None:
    for answers in ({"a": 1}, {"a": 9}, {"a": 10, "b": 10}, {"a": 1, "b": 1, "c": 18}):
        assert 0 < confidence("a", answers) < 1
    assert confidence("", {"a": 3}) == 0
    rising = [confidence("a", {"a": votes, "b": 9 - votes}) for votes in range(1, 9)]
    assert rising == sorted(rising)
    assert rising[-1] < confidence("a", {"a": 9})
    assert confidence("z", {"a": 5}) < 0.05


def test_what_is_no_opinion_is_a_failure() -> None:
    failed = opinion_of(Done(message=Position()))
    assert isinstance(failed, StepFailure)
    assert failed.reason == "BAD_OUTPUT"
    assert opinion_of(Done(message=Opinion(answer="x"))) == Opinion(answer="x")
