"""The absolute deadline of a piece of work; what is left of it travels with every call it makes."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from weft.rpc.errors import DeadlineExceeded


class Timed(Protocol):
    """A call that may have a deadline."""

    @property
    def deadline(self) -> Deadline | None:
        """When its caller stops waiting."""
        ...


# The call this task serves; weft.rpc.call says more of it.
SERVED: ContextVar[Timed | None] = ContextVar("weft_call", default=None)
_APPLIED: ContextVar[Deadline | None] = ContextVar("weft_deadline", default=None)


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A moment of this process's monotonic clock, in seconds. Compares by which comes first."""

    at: float

    @classmethod
    def after(cls, span: timedelta) -> Deadline:
        """The deadline `span` from now; a negative span has passed already."""
        return cls(time.monotonic() + span.total_seconds())

    @classmethod
    def after_seconds(cls, seconds: float) -> Deadline:
        """The same for seconds; infinity means never."""
        return cls(time.monotonic() + seconds)

    @staticmethod
    def current() -> Deadline | None:
        """The deadline this task works under: applied by `applied()`, or that of the call being served."""
        applied = _APPLIED.get()
        call = SERVED.get()
        served = None if call is None else call.deadline
        if applied is None or served is None:
            return applied or served
        return min(applied, served)

    def seconds(self) -> float:
        """Seconds left, 0 when passed, infinity when there is none."""
        return max(0.0, self.at - time.monotonic())

    def remaining(self) -> timedelta:
        """Time left, 0 when passed."""
        left = self.seconds()
        return timedelta.max if math.isinf(left) else timedelta(seconds=left)

    def expired(self) -> bool:
        """Whether it has passed."""
        return self.at <= time.monotonic()

    def min(self, other: Deadline | None) -> Deadline:
        """Whichever comes first."""
        return self if other is None or self.at <= other.at else other

    def check(self) -> None:
        """Raises DeadlineExceeded when it has passed."""
        if self.expired():
            raise DeadlineExceeded

    @contextlib.contextmanager
    def applied(self) -> Iterator[Deadline]:
        """Makes it the current deadline of this task within the block; an earlier outer one stays in force."""
        effective = self.min(_APPLIED.get())
        token = _APPLIED.set(effective)
        try:
            yield effective
        finally:
            _APPLIED.reset(token)
