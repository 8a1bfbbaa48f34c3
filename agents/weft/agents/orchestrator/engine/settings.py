"""How runs are carried out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How one worker does."""

    at_once: int = 512
    """Runs it holds at a time. 0: it holds none."""
    lease: timedelta = timedelta(seconds=5)
    """For how long a worker that says nothing keeps its runs."""
    losses: int = 50
    """How often a run goes on after its worker was lost, without having waited in between."""
    stay: timedelta = timedelta(seconds=1)
    """A run that waits for less stays with its worker."""
    drain: timedelta = timedelta(seconds=8)
    """How long calls may go on when the worker stops."""
