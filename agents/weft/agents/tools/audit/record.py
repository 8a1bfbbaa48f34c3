"""What is recorded."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

RUNNING = "RUNNING"
"""Outcome of a use that has not ended, or whose process died before it could say what came of it."""
OK = "OK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a use.

    Attributes:
        code: "OK", the name of a status, or "RUNNING".
        reason: of the error, such as "SCOPE_MISSING"; empty: there was none.
        duration: how long it took.
        kept: whether the result was one that had been kept.
    """

    code: str
    reason: str = ""
    duration: timedelta = timedelta(0)
    kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A use of a tool.

    Attributes:
        tool: its name.
        subject: who; empty: nobody said.
        tenant: of whom.
        skill: path of the skill that was being served, "package.Service/Method"; empty: none.
        conversation: that it belongs to; empty: none.
        cause: the idempotency key of the call or the message that it was made for: a step of a run has one. Empty: none.
        trace_id: 32 hexadecimal digits; empty: none.
        arguments: as JSON without what is secret; None: they could not be understood, or were not looked at.
        id: of the record.
        began: when.
    """

    tool: str
    subject: str = ""
    tenant: str = ""
    skill: str = ""
    conversation: str = ""
    cause: str = ""
    trace_id: str = ""
    arguments: Mapping[str, Any] | None = None
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))


class Audit(Protocol):
    """Where uses are recorded. Its methods raise rpc.Error where they cannot be."""

    async def begin(self, use: Use) -> None:
        """Records a use that is about to be made."""
        ...

    async def end(self, use: Use, outcome: Outcome) -> None:
        """Records what came of a use that was begun."""
        ...

    async def note(self, use: Use, outcome: Outcome) -> None:
        """Records a use that has ended already: it was refused, or answered by what was kept."""
        ...
