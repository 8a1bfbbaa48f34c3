"""Some of the drills; `python tests/drills/run.py` does all of them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from tests.drills.drilling import all_done
from tests.drills.drills import DRILLS
from tests.drills.mesh import running
from tests.drills.prometheus import watching

_QUICK = ("WeftAgentDown", "WeftAgentErrors", "WeftBreakerOpen", "WeftDeadLetters", "WeftPartDown")


@pytest.mark.failure
@pytest.mark.timeout(240)
async def test_alerts_fire_and_clear(short_folder: Path):
    folder = Path(tempfile.mkdtemp(prefix="drills-", dir=short_folder))
    drills = [DRILLS[name] for name in _QUICK]
    parts = {part for each in drills for part in each.parts}
    async with running(folder, *sorted(parts)) as mesh, watching(mesh) as prometheus:
        outcomes = [outcome async for outcome in all_done(drills, mesh, prometheus)]
    assert {outcome.alert for outcome in outcomes} == set(_QUICK)
    assert [outcome for outcome in outcomes if not outcome.passed] == []
