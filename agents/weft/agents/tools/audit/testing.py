"""Records in memory, for tests of agents that use tools."""

from __future__ import annotations

import uuid

from weft.agents.tools.audit.record import RUNNING, Outcome, Use


class MemoryAudit:
    """An Audit of this process alone.

    Attributes:
        uses: what was recorded, in order.
    """

    def __init__(self) -> None:
        self._found: dict[uuid.UUID, tuple[Use, Outcome]] = {}

    @property
    def uses(self) -> list[tuple[Use, Outcome]]:
        """What was recorded, in order."""
        return list(self._found.values())

    async def begin(self, use: Use) -> None:
        """See Audit."""
        self._found[use.id] = (use, Outcome(code=RUNNING))

    async def end(self, use: Use, outcome: Outcome) -> None:
        """See Audit."""
        self._found[use.id] = (use, outcome)

    async def note(self, use: Use, outcome: Outcome) -> None:
        """See Audit."""
        self._found[use.id] = (use, outcome)
