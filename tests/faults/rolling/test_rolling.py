"""A short drill. `python tests/faults/rolling/run.py` plays the whole one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.rolling.drill import play


@pytest.mark.failure
@pytest.mark.timeout(240)
async def test_nothing_is_lost_while_every_part_restarts(
    short_folder: Path, database_url: str
) -> None:
    folder = short_folder / "rolling"
    folder.mkdir()
    # PostgreSQL is that of all tests, and restarted in the long drill alone.
    outcome = await play(folder, rate=50, database_url=database_url)
    assert outcome.ok, "\n".join(outcome.shown)
    assert len(outcome.restarts) == 10
