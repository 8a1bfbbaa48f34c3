"""Verifications: the verifier sees the answer only, and the draft with the best score counts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.orchestrator.patterns.tables import LOST, Said, Table, failure, person, result, says

from weft.agents.orchestrator.patterns.verification import Verification
from weft.agents.orchestrator.plan.patterns import VerificationPlan
from weft.v1.workflow_pb2 import Opinion


def verification(*scores: float | Said, revisions: int = 2, **more: Said) -> Table:
    """A verification with these verdicts; each names an error."""
    plan = VerificationPlan(
        question=person("x").call.request,
        author=person("anna"),
        verifier=person("vera"),
        enough=0.9,
        revisions=revisions,
    )
    script: dict[str, Said] = {}
    for number, score in enumerate(scores):
        said = says("", f"error {number}", score=score) if isinstance(score, float) else score
        script[f"verdict{number}"] = said
        script[f"draft{number}"] = says(f"draft {number}", argument="trust me", score=1.0)
    return Table(Verification(plan), {**script, **more})


def test_a_draft_that_is_good_enough_is_not_revised() -> None:
    table = verification(0.9)
    made = result(table.run())
    assert (made.answer.answer, made.verified, made.stopped) == ("draft 0", True, "verified")
    assert list(table.asked) == ["draft0", "verdict0"]
    assert table.seen("draft0", "issues") == []
    assert table.seen("draft0", "draft") == Opinion()


def test_the_verifier_sees_neither_reasons_nor_what_the_author_thinks_of_it() -> None:
    table = verification(0.9)
    table.run()
    seen: Any = table.seen("verdict0", "draft")
    assert seen == says("draft 0")


def test_the_author_sees_its_draft_and_what_is_wrong_with_it() -> None:
    table = verification(0.5, 0.95)
    made = result(table.run())
    assert table.seen("draft1", "issues") == ["error 0"]
    assert table.seen("draft1", "draft").answer == "draft 0"
    assert (made.answer.answer, made.verified) == ("draft 1", True)


def test_the_best_draft_counts_and_not_the_last() -> None:
    made = result(verification(0.5, 0.7, 0.6).run())
    assert (made.answer.answer, made.score, made.verified) == ("draft 1", 0.7, False)
    assert list(made.issues) == ["error 1"]
    assert (len(made.drafts), len(made.verdicts)) == (3, 3)


@pytest.mark.parametrize("second", [0.5, 0.4])
def test_it_stops_when_the_score_does_not_rise(second: float) -> None:
    made = result(verification(0.5, second, 1.0).run())
    assert (made.stopped, made.answer.answer, len(made.drafts)) == ("no gain", "draft 0", 2)


def test_it_stops_at_the_bound() -> None:
    made = result(verification(0.1, 0.2, 0.3, 0.4).run())
    assert (made.stopped, made.answer.answer) == ("revisions", "draft 2")
    made = result(verification(0.1, revisions=0).run())
    assert (made.stopped, len(made.drafts)) == ("revisions", 1)


def test_nothing_is_revised_without_a_named_error() -> None:
    made = result(verification(says("", " ", score=0.2)).run())
    assert (made.stopped, len(made.drafts), made.verified) == ("no gain", 1, False)


@pytest.mark.parametrize("key", ["draft1", "verdict1"])
def test_what_was_verified_before_a_failure_counts(key: str) -> None:
    made = result(verification(0.5, 0.6, **{key: LOST}).run())
    assert (made.stopped, made.answer.answer, made.score) == ("failed", "draft 0", 0.5)
    assert len(made.drafts) == len(made.verdicts) + (key == "verdict1")


@pytest.mark.parametrize("key", ["draft0", "verdict0"])
def test_without_a_verified_draft_it_fails(key: str) -> None:
    assert failure(verification(0.5, **{key: LOST}).run()) == LOST


def test_scores_beyond_the_scale_are_on_its_ends() -> None:
    assert result(verification(17.0).run()).score == 1.0
    assert not result(verification(float("nan"), 0.0).run()).verified


def test_a_restart_changes_nothing() -> None:
    calm, forgetful = (verification(0.5, 0.7, 0.6) for _ in range(2))
    assert calm.run() == forgetful.run(forgets=True)
    assert calm.asked == forgetful.asked
