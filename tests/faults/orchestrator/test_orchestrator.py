"""A short round of workflows while everything dies. `benchmarks/orchestrator_crash.py` plays the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.orchestrator.rounds import Setup, play


@pytest.mark.failure
@pytest.mark.timeout(240)
async def test_each_run_ends_right_whatever_dies(short_folder: Path) -> None:
    folder = short_folder / "runs"
    folder.mkdir(mode=0o711)
    # Other tests take their share of the machine: how soon a run is resumed is for the long round to measure.
    setup = Setup(
        seed=7, runs=8, longest=0.4, spread=4, pace=0.7, lease=1, slack=20, workers=2, most_blows=6
    )
    outcome = await play(folder, setup)
    assert outcome.ok, "\n".join(outcome.report.violations)
    assert outcome.report.ended == {"succeeded": setup.runs}
    assert sum(outcome.kills.values()) >= 1


@pytest.mark.failure
@pytest.mark.timeout(240)
async def test_a_database_that_dies_loses_nothing(short_folder: Path) -> None:
    folder = short_folder / "lost"
    folder.mkdir(mode=0o711)
    setup = Setup(
        seed=9, runs=5, longest=0.4, spread=3, pace=0.8, lease=10, slack=20, workers=1,
        most_blows=3, only=("postgresql",),
    )  # fmt: skip
    outcome = await play(folder, setup)
    assert outcome.ok, "\n".join(outcome.report.violations)
    assert outcome.report.ended == {"succeeded": setup.runs}
    assert outcome.kills.keys() == {"postgresql"}
    # Whoever waits for the database keeps what it has in hand, as long as its lease lasts: nobody called twice.
    assert outcome.report.called_again == 0
