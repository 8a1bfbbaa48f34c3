"""What agents of the fleet share that ask a model: how long it may think, and how they say that it did not answer."""

from __future__ import annotations

import logging
import math
import time
from contextlib import AbstractContextManager
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from weft import rpc
from weft.agents import llm

log = logging.getLogger("weft.agents.support")

STOOD_IN = "Another model stood in for the one that should have answered."
_KEPT = 0.5  # seconds for the agent to do without, and to answer
_KEPT_SHARE = 0.25  # of a short time


class Unfit(Exception):
    """What a model said cannot be used; the text says why, for logs."""


def thinking(
    expire: Timestamp | None, *, share: float, most: timedelta = timedelta.max
) -> AbstractContextManager[rpc.Deadline]:
    """Applies the deadline of a model, which leaves time to do without it.

    Args:
        expire: when whoever asked stops waiting; None: when the deadline of the call says.
        share: of the time until `expire` that is the model's.
        most: it gets no more than that.
    """
    current = rpc.Deadline.current()
    left = min(math.inf if current is None else current.seconds(), most.total_seconds())
    if expire is not None:
        left = min(left, share * max(0.0, expire.ToNanoseconds() / 1e9 - time.time()))
    left -= min(_KEPT, _KEPT_SHARE * left)
    return rpc.Deadline.after_seconds(left).applied()


def why(failed: Exception) -> str:
    """Why a model's answer is not used, for people: nothing of what it or its endpoint said, which may quote the prompt."""
    reason = failed.reason if isinstance(failed, rpc.Error) else str(failed)
    log.warning("a model's answer is not used", extra={"reason": reason})
    match failed:
        case llm.BudgetSpent():
            return "The budget for models is spent."
        case llm.ModelRefused():
            return "The model refused to answer."
        case llm.ModelStalled() | rpc.DeadlineExceeded():
            return "The model did not answer in time."
        case Unfit() | rpc.Internal() | rpc.OutOfRange():
            return "The model gave no answer that can be used."
        case _:
            return "The model is not available."
