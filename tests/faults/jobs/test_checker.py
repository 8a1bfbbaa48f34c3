"""The checker finds what it is there to find."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.faults.jobs.caller import Seen
from tests.faults.jobs.checker import check
from tests.faults.jobs.plan import Kind, Plan
from tests.faults.jobs.receiver import Delivery

PLAN = Plan(kind=Kind.ONCE, text="a", seconds=1, messages=2, fails=None, cancel_after=None)
STREAM = replace(PLAN, kind=Kind.REPEAT)
DONE = {"state": "JOB_STATE_SUCCEEDED", "response": {"json": {"said": {"text": "a"}}}}
TOLD = Delivery(id="m", job="1", state="JOB_STATE_SUCCEEDED", verified=True, taken=True)
UNKNOWN = {
    "state": "JOB_STATE_FAILED",
    "error": {"code": "ABORTED", "reason": "JOB_OUTCOME_UNKNOWN"},
}
KEPT = [(1, {"text": "a"}), (2, {"text": "a", "number": 1})]


def seen(plan: Plan = PLAN, end: dict[str, Any] = DONE, **further: Any) -> Seen:
    return Seen(**({"plan": plan, "id": "1", "ids": {"1"}, "ends": [end]} | further))


@pytest.mark.parametrize(
    ("job", "deliveries"),
    [
        (seen(), [TOLD]),
        (seen(), [replace(TOLD, taken=False), TOLD, TOLD]),
        (seen(end=UNKNOWN), [replace(TOLD, state="JOB_STATE_FAILED")]),
        (seen(STREAM, kept=KEPT, live={1: {"text": "a"}}), [TOLD]),
    ],
)
def test_what_is_well(job: Seen, deliveries: list[Delivery]) -> None:
    assert not check([job], ["a"], deliveries).violations


@pytest.mark.parametrize(
    ("job", "calls", "deliveries", "found"),
    [
        (seen(ends=[]), 1, [TOLD], "has not ended"),
        (seen(ends=[DONE, UNKNOWN]), 1, [TOLD], "ended twice"),
        (seen(ids={"1", "2"}), 1, [TOLD], "was told 2 jobs"),
        (seen(), 2, [TOLD], "was called 2 times"),
        (seen(), 0, [TOLD], "was never called"),
        (seen(replace(PLAN, text="b")), 0, [TOLD], "never called"),
        (seen(STREAM, kept=KEPT[:1]), 1, [TOLD], "its stream of 2"),
        (seen(STREAM, kept=KEPT, live={1: {"text": "b"}}), 1, [TOLD], "shown live"),
        (seen(STREAM, end=UNKNOWN), 1, [], "failed with ABORTED"),
        (seen(end={"state": "JOB_STATE_CANCELLED"}), 0, [], "nobody asked"),
        (seen(), 1, [], "never arrived"),
        (seen(), 1, [replace(TOLD, taken=False)], "never arrived"),
        (seen(), 1, [replace(TOLD, verified=False)], "does not verify"),
        (seen(), 1, [replace(TOLD, state="JOB_STATE_FAILED")], "another end"),
        (seen(), 1, [TOLD, replace(TOLD, id="n")], "two ends"),
        (seen(), 1, [TOLD, replace(TOLD, job="2")], "nobody began"),
    ],
)
def test_what_is_broken(job: Seen, calls: int, deliveries: list[Delivery], found: str) -> None:
    assert any(found in each for each in check([job], ["a"] * calls, deliveries).violations)
