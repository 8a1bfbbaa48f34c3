"""Circuits that an operator holds open or closed: kept in PostgreSQL, followed by every gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from weft import rpc
from weft.postgres import Database

log = logging.getLogger("weft.gateway")

State = Literal["open", "closed"]
_LOOKED = 0.5  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A circuit that is held."""

    state: str
    """open or closed."""
    by: str
    """Subject of whoever holds it."""
    at: datetime


Holds = Mapping[tuple[str, str], Hold]


class BreakerHolds:
    """What is held, by agent and method ("/package.Service/Method").

    Args:
        database: where it is kept.
        on_change: told what is held when it changes.
    """

    def __init__(
        self, database: Database, on_change: Callable[[Mapping[tuple[str, str], str]], None]
    ) -> None:
        self._database = database
        self._on_change = on_change
        self.known: Holds = {}

    async def run(self) -> None:
        """Follows what is held, for ever; for a task of its own. While PostgreSQL is away it stays as it was."""
        while True:
            try:
                await self.look()
            except rpc.Error:
                log.warning("held breakers cannot be read", exc_info=True)
            await asyncio.sleep(_LOOKED)

    async def look(self) -> None:
        """Reads what is held now.

        Raises:
            rpc.Unavailable: PostgreSQL is away.
        """
        rows = await self._database.fetch("list_breaker_holds")
        found = {
            (row["agent"], row["method"]): Hold(
                state=row["state"], by=row["held_by"], at=row["held_at"]
            )
            for row in rows
        }
        if found != self.known:
            self.known = found
            self._on_change({key: hold.state for key, hold in found.items()})

    async def hold(self, agent: str, method: str, state: State, by: str) -> None:
        """Holds a circuit; every gateway follows within a second.

        Raises:
            rpc.Unavailable: PostgreSQL is away.
        """
        await self._database.execute("hold_breaker", agent, method, state, by)
        log.warning(
            "circuit held", extra={"agent": agent, "method": method, "state": state, "by": by}
        )
        await self.look()

    async def release(self, agent: str, method: str, by: str) -> None:
        """Lets go of a circuit.

        Raises:
            rpc.Unavailable: PostgreSQL is away.
        """
        await self._database.execute("release_breaker", agent, method, by)
        log.info("circuit let go", extra={"agent": agent, "method": method, "by": by})
        await self.look()
