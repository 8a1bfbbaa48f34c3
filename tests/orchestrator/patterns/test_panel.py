"""Panels: independent reports under ids, and a synthesis that says on which it rests."""

from __future__ import annotations

import random
from typing import Any

import pytest
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

from weft.agents.orchestrator.patterns.panel import Panel
from weft.agents.orchestrator.plan.patterns import PanelPlan

REPORTS: dict[str, Said] = {
    "expert/anna": says("buy", argument="cheap"),
    "expert/ben": says("Buy ", argument="growing"),
    "expert/cleo": says("sell", argument="risky"),
    "expert/dan": says("", argument="no view"),
}


def panel(synthesis: Said, *, least: int = 2, seed: int = 7, **more: Said) -> Table:
    plan = PanelPlan(
        question=person("x").call.request,
        experts=people("anna ben cleo dan"),
        synthesizer=person("sam"),
        least=least,
    )
    others = {f"expert/{name}": said for name, said in more.items()}
    return Table(Panel(plan), {**REPORTS, **others, "synthesis": synthesis}, seed=seed)


def test_experts_report_each_by_itself() -> None:
    table = panel(says("buy", evidence=["r1"]))
    table.run()
    assert list(table.asked)[-1] == "synthesis"
    variables = [table.asked[f"expert/{name}"].variables for name in ("anna", "ben", "cleo", "dan")]
    assert all(each == {"question": "why?", "round": 0, "peers": []} for each in variables)


def test_ids_do_not_tell_who_wrote_a_report() -> None:
    orders = set()
    for seed in range(12):
        table = panel(says("buy", evidence=["r1"]), seed=seed)
        made = result(table.run())
        reports: Any = table.seen("synthesis", "reports")
        assert [each.id for each in reports] == ["r1", "r2", "r3", "r4"]
        assert list(made.reports) == reports
        assert "anna" not in str(reports)
        for each in reports:
            assert REPORTS[f"expert/{made.authors[each.id]}"] == each.opinion
        orders.add(tuple(made.authors[each.id] for each in reports))
    assert len(orders) > 4


def test_what_differs_is_dissent_and_the_rest_is_confidence() -> None:
    made = result(panel(says("BUY", evidence=["r1"])).run())
    (dissent,) = made.dissent
    assert made.authors[dissent] == "cleo"
    assert made.confidence == 0.5
    assert made.synthesis.answer == "BUY"


def test_evidence_that_is_no_report_is_told() -> None:
    made = result(panel(says("buy", evidence=["r9", "[r2]", " r1 ", "r9", "a hunch"])).run())
    assert list(made.unknown_evidence) == ["r9", "a hunch"]


@pytest.mark.parametrize("evidence", [[], ["r9"], [" "]])
def test_a_synthesis_that_rests_on_no_report_fails(evidence: list[str]) -> None:
    failed = failure(panel(says("buy", evidence=evidence)).run())
    assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", "NO_EVIDENCE")


def test_experts_may_fail_down_to_the_least() -> None:
    made = result(panel(says("buy", evidence=["r2"]), anna=LOST, ben=LOST).run())
    assert [each.id for each in made.reports] == ["r1", "r2"]
    assert dict(made.failures) == {"anna": LOST, "ben": LOST}
    failed = failure(panel(says("buy"), anna=LOST, ben=LOST, least=3).run())
    assert failed.reason == "TOO_FEW_ANSWERS"


def test_without_a_synthesis_it_fails() -> None:
    assert failure(panel(LOST).run()) == LOST


@pytest.mark.parametrize("seed", range(8))
def test_neither_order_nor_restarts_change_anything(seed: int) -> None:
    synthesis = says("buy", evidence=["r1"])
    calm, hectic = (panel(synthesis, cleo=LOST, seed=seed) for _ in range(2))
    assert calm.run() == hectic.run(random.Random(seed), forgets=True)
    assert calm.asked == hectic.asked
