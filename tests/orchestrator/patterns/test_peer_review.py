"""Peer reviews: who reviews whom, who revises, and which answer counts."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from tests.orchestrator.patterns.tables import (
    LOST,
    Said,
    Script,
    Table,
    failure,
    people,
    person,
    says,
)
from tests.orchestrator.patterns.tables import result as given

from weft.agents.orchestrator.patterns.peer_review import PeerReview
from weft.agents.orchestrator.plan.patterns import PeerReviewPlan
from weft.agents.orchestrator.run.composite import Part

NAMES = "anna ben cleo dan"


def review(script: Script, *, reviews: int = 2, seed: int = 7) -> Table:
    plan = PeerReviewPlan(
        question=person("x").call.request, participants=people(NAMES), reviews=reviews
    )
    return Table(PeerReview(plan), script, seed=seed)


def scripted(**more: Said) -> Script:
    """Answers "NAME's"; reviews give 0.5 without errors; what is said otherwise, by key of part or what it begins with."""

    def say(part: Part) -> Said:
        for key in (part.key, part.key.rpartition("/")[0], part.key.partition("/")[0]):
            if key in more:
                return more[key]
        if part.variables["stage"] == "review":
            return says(score=0.5)
        return says(f"{part.key.partition('/')[2]}'s", argument="because", score=1.0)

    return say


def test_each_gets_as_many_reviews_and_none_its_own() -> None:
    table = review(scripted())
    table.run()
    pairs = [key.split("/")[1:] for key in table.asked if key.startswith("review/")]
    assert all(author != reviewer for author, reviewer in pairs)
    assert set(Counter(author for author, _ in pairs).values()) == {2}
    assert set(Counter(reviewer for _, reviewer in pairs).values()) == {2}
    circles = set()
    for seed in range(8):
        other = review(scripted(), seed=seed)
        other.run()
        circles.add(frozenset(other.asked))
    assert len(circles) > 2, "who reviews whom is settled by chance"


def test_reviewers_see_the_draft_and_not_what_its_author_thinks_of_it() -> None:
    table = review(scripted())
    table.run()
    key = next(key for key in table.asked if key.startswith("review/anna/"))
    assert table.seen(key, "draft") == says("anna's", argument="because")
    assert table.seen(key, "issues") == []
    assert table.seen("answer/anna", "stage") == "answer"


def test_only_who_is_told_of_an_error_revises() -> None:
    error = says("", "wrong sum", "wrong sum", " ", score=0.1)
    table = review(scripted(**{"review/ben": error}))
    table.run()
    assert [key for key in table.asked if key.startswith("revise/")] == ["revise/ben"]
    assert table.seen("revise/ben", "issues") == ["wrong sum"]
    assert table.seen("revise/ben", "draft").answer == "ben's"


def test_the_best_reviewed_answer_counts() -> None:
    made = given(review(scripted(**{"review/cleo": says(score=0.9)})).run())
    assert (made.answer.answer, made.score, made.confidence) == ("cleo's", 0.9, 0.25)
    assert [each.participant for each in made.answers] == NAMES.split()


@pytest.mark.parametrize(("again", "answer"), [(0.9, "better"), (0.7, "ben's"), (0.2, "ben's")])
def test_a_revision_counts_only_where_it_has_better_reviews(again: float, answer: str) -> None:
    script = scripted(
        **{
            "review/ben": says("", "a slip", score=0.7),
            "revise/ben": says("better"),
            "review_again/ben": says(score=again),
        }
    )
    table = review(script)
    made = given(table.run())
    assert (made.answer.answer, made.score) == (answer, max(again, 0.7))
    ben = made.answers[1]
    assert (ben.draft.answer, ben.revision.answer) == ("ben's", "better")
    assert [each.score for each in ben.revision_reviews] == [again, again]
    reviewers = [key.rpartition("/")[2] for key in table.asked if key.startswith("review/ben/")]
    again_by = [key.rpartition("/")[2] for key in table.asked if key.startswith("review_again/")]
    assert sorted(reviewers) == sorted(again_by)


def test_of_equally_good_ones_the_more_frequent_counts() -> None:
    made = given(review(scripted(**{"answer/cleo": "same", "answer/dan": "Same"})).run())
    assert (made.answer.answer, made.confidence) == ("same", 0.5)


def test_who_fails_is_left_out() -> None:
    script = scripted(**{"answer/anna": LOST, "answer/ben": ""})
    table = review(script, reviews=3)
    made = given(table.run())
    assert [each.participant for each in made.answers] == ["cleo", "dan"]
    assert [len(each.reviews) for each in made.answers] == [1, 1]
    alone = scripted(**{"answer/anna": LOST, "answer/ben": LOST, "answer/cleo": LOST})
    assert failure(review(alone).run()).reason == "TOO_FEW_ANSWERS"


def test_reviews_and_revisions_may_fail() -> None:
    made = given(review(scripted(review=LOST)).run())
    assert made.score == 0
    assert all(not each.reviews for each in made.answers)
    script = scripted(review=says("", "a slip", score=0.3), revise=LOST)
    made = given(review(script).run())
    assert made.score == pytest.approx(0.3)
    assert not any(each.HasField("revision") for each in made.answers)


def by_chance(part: Part) -> Said:
    chance = random.Random(f"{part.key}{part.variables}")
    if chance.random() < 0.1:
        return LOST
    return says(chance.choice("ab"), *chance.sample(["x", "y"], 1), score=chance.random())


@pytest.mark.parametrize("seed", range(12))
def test_neither_order_nor_restarts_change_anything(seed: int) -> None:
    calm, hectic = (review(by_chance, seed=seed) for _ in range(2))
    assert calm.run() == hectic.run(random.Random(seed), forgets=True)
    assert calm.asked == hectic.asked
    assert calm.pattern.begin({}, seed).next(calm.done) == calm.run()
