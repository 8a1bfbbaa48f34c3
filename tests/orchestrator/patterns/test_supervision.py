"""Supervisions: one hands out work until it is done, or the bound is reached."""

from __future__ import annotations

from tests.orchestrator.patterns.tables import (
    LOST,
    Said,
    Table,
    failure,
    people,
    person,
    result,
    says,
)

from weft.agents.orchestrator.patterns.supervision import Supervision
from weft.agents.orchestrator.plan.patterns import SupervisionPlan


def supervision(*turns: Said, most: int = 3, **more: Said) -> Table:
    """A supervision with these orders: "anna: dig" is a task, ": all" the result."""
    plan = SupervisionPlan(
        question=person("x").call.request,
        supervisor=person("boss"),
        workers=people("anna ben"),
        most=most,
    )
    script: dict[str, Said] = dict(more)
    for number, turn in enumerate(turns):
        name, _, task = turn.partition(": ") if isinstance(turn, str) else ("", "", "")
        said = says(name, argument=task) if isinstance(turn, str) else turn
        script[f"turn{number}"] = said
        script.setdefault(f"task{number}/{name.strip()}", says(f"did {task}"))
    return Table(Supervision(plan), {**script, **more})


def test_work_is_handed_out_until_it_is_done() -> None:
    table = supervision("anna: dig", "ben : fill", ": a hole less")
    made = result(table.run())
    assert (made.result, made.finished) == ("a hole less", True)
    done = [(each.worker, each.task, each.opinion.answer) for each in made.contributions]
    assert done == [("anna", "dig", "did dig"), ("ben", "fill", "did fill")]
    assert list(table.asked) == ["turn0", "task0/anna", "turn1", "task1/ben", "turn2"]
    assert table.seen("task0/anna", "task") == "dig"
    assert table.seen("turn0", "workers") == ["anna", "ben"]
    assert [each.worker for each in table.seen("turn2", "done")] == ["anna", "ben"]
    assert table.seen("turn0", "done") == [], "what was asked before stays as it was"


def test_tasks_have_a_bound() -> None:
    turns = ("anna: a", "anna: b", "ben: c", "ben: d")
    table = supervision(*turns)
    made = result(table.run())
    assert (made.result, made.finished, len(made.contributions)) == ("", False, 3)
    assert "task3/ben" not in table.asked
    assert result(supervision(*turns[:3], ": enough").run()).finished, "it is asked after the last"


def test_a_worker_that_fails_is_told_of() -> None:
    table = supervision("anna: dig", ": no hole", **{"task0/anna": LOST})
    made = result(table.run())
    assert made.contributions[0].failure == LOST
    assert not made.contributions[0].HasField("opinion")
    assert table.seen("turn1", "done")[0].failure == LOST


def test_a_worker_that_is_not_there_is_told_of_and_counts() -> None:
    made = result(supervision("zoe: a", "zoe: b", "zoe: c", "zoe: d").run())
    assert not made.finished
    reasons = [each.failure.reason for each in made.contributions]
    assert reasons == ["UNKNOWN_WORKER"] * 3


def test_without_its_supervisor_it_fails() -> None:
    assert failure(supervision("anna: dig", LOST).run()) == LOST


def test_a_restart_changes_nothing() -> None:
    calm, forgetful = (supervision("anna: dig", "zoe: x", "ben: fill", ": end") for _ in range(2))
    assert calm.run() == forgetful.run(forgets=True)
    assert calm.asked == forgetful.asked
