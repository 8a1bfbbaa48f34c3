"""An operation that was asked for, and what serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from weft.gateway.doors.a2a.params import Params
from weft.gateway.doors.a2a.shelf import Shelf
from weft.gateway.doors.a2a.skills import SkillSet
from weft.gateway.doors.calls import Calls
from weft.gateway.guarded import Guarded
from weft.gateway.http.exchange import Exchange
from weft.gateway.jobs import Job, Owner
from weft.gateway.jobs.asked import Asking
from weft.gateway.jobs.direct import Direct
from weft.gateway.jobs.webhooks import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What operations work with."""

    calls: Calls
    guarded: Guarded
    shelf: Shelf
    direct: Direct
    asking: Asking
    targets: Targets
    closing: asyncio.Event
    """Set when nobody is to wait for anything that may never come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An operation that a caller asked for."""

    exchange: Exchange
    skills: SkillSet
    params: Params
    owner: Owner
    parts: Parts
    extended_card: Callable[[], bytes]

    async def task(self, name: str = "id") -> Job:
        """The job of the task that a parameter names.

        Raises:
            TaskNotFound: the caller has none of that id here.
        """
        wanted = self.params.needed(name)
        return await self.parts.shelf.find(self.owner, wanted, self.skills.agent)
