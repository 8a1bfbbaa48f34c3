"""When a step is tried again."""

from __future__ import annotations

import random
from datetime import timedelta

from weft import rpc
from weft.agents.llm.errors import BudgetSpent
from weft.agents.orchestrator.plan.model import RetryPlan
from weft.v1.workflow_pb2 import StepFailure

_MOST_DOUBLED = 32
_LONGEST_ASKED = timedelta(days=1)


_RETRY_AFTER = "retry_after"  # of a failure's metadata: milliseconds


def failure_of(error: rpc.Error) -> StepFailure:
    """An error as a step's."""
    failure = StepFailure(
        code=error.code.name, message=error.message, reason=error.reason, metadata=error.metadata
    )
    asked: timedelta | None = getattr(error, "retry_after", None)
    if asked is not None and asked > timedelta(0):
        failure.metadata[_RETRY_AFTER] = str(-(-asked // timedelta(milliseconds=1)))
    return failure


def asked_pause(failure: StepFailure) -> timedelta:
    """The pause that whoever refused asked for (google.rpc.RetryInfo)."""
    asked = failure.metadata.get(_RETRY_AFTER, "")
    if not asked.isdecimal():
        return timedelta(0)
    # An agent may have written anything there.
    return min(timedelta(milliseconds=int(asked[:15])), _LONGEST_ASKED)


def again(retry: RetryPlan, attempts: int, failure: StepFailure) -> bool:
    """Whether a step is tried again after `attempts`. What is spent is spent: that is never tried again."""
    if failure.reason == BudgetSpent.reason:
        return False
    return attempts < retry.attempts and failure.code in retry.codes


def pause(retry: RetryPlan, seed: str, attempts: int, asked: timedelta) -> timedelta:
    """The pause after an attempt: full jitter, drawn from the seed. Whoever goes on with the run draws the same.

    `asked` lengthens it, since whoever comes sooner is refused again.
    """
    grown = retry.first_pause * 2 ** min(attempts - 1, _MOST_DOUBLED)
    drawn = random.Random(f"{seed}#{attempts}").random()  # noqa: S311 jitter
    longest: timedelta = min(grown, retry.max_pause)
    return max(longest * drawn, asked)
