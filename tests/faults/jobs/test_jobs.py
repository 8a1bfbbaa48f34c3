"""A short round of jobs while everything dies. `make faults` plays the long one: see run.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.jobs.rounds import Setup, play


@pytest.mark.failure
@pytest.mark.timeout(240)
async def test_each_job_ends_once_whatever_dies(short_folder: Path, database_url: str) -> None:
    folder = short_folder / "jobs"
    folder.mkdir()
    setup = Setup(seed=3, jobs=60, pace=0.5, lease=1, callers=16, most_kills=5)
    outcome = await play(folder, setup, database_url=database_url)
    assert outcome.ok, "\n".join(outcome.report.violations)
    assert sum(outcome.report.ended.values()) == setup.jobs
    assert sum(outcome.kills.values()) >= 1
