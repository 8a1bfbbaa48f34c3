"""Records uses: nothing is done that could not be recorded, and what came of it is recorded whatever becomes of its caller."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine
from typing import Any

from opentelemetry import trace

from weft import rpc
from weft.agents.tools.audit.record import Audit, Outcome, Use
from weft.agents.tools.callers import Caller
from weft.agents.tools.tool import Tool
from weft.agents.tools.using import cause_of

log = logging.getLogger("weft.agents.tools")

_PATIENCE = 5.0  # seconds that a caller waits for the record of what came of a use; it is written all the same


class Recording:
    """Writes to an audit.

    Args:
        audit: where uses are recorded.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._writing: set[asyncio.Task[None]] = set()

    async def begin(self, use: Use, deadline: rpc.Deadline) -> None:
        """Records a use that is about to be made.

        Raises:
            rpc.Error: it cannot be, so it must not be made.
        """
        await self._apart(self._audit.begin(use), deadline.seconds())

    async def end(self, use: Use, outcome: Outcome) -> None:
        """Records what came of it; where that cannot be done, the log says so."""
        try:
            await self._apart(self._audit.end(use, outcome))
        except rpc.Error:
            log.exception("what came of the use %s is not recorded: %s", use.id, outcome)

    async def note(self, use: Use, outcome: Outcome) -> None:
        """Records a use that has ended already.

        Raises:
            rpc.Error: it cannot be.
        """
        await self._apart(self._audit.note(use, outcome))

    async def close(self) -> None:
        """Returns when all is written."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _apart(
        self, writing: Coroutine[Any, Any, None], seconds: float | None = None
    ) -> None:
        # In an empty context: the deadline of the call may have passed, and its cancellation must not reach this.
        task = asyncio.get_running_loop().create_task(writing, context=contextvars.Context())
        self._writing.add(task)
        task.add_done_callback(self._written)
        try:
            async with asyncio.timeout(_PATIENCE if seconds is None else seconds):
                await asyncio.shield(task)
        except TimeoutError:
            raise rpc.DeadlineExceeded("It could not be recorded in time.") from None

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it was told; who did not had been cancelled


def use_of(tool: Tool, call: rpc.Call | None, caller: Caller) -> Use:
    """What is known of a use before its arguments are."""
    return Use(
        tool=tool.name,
        subject=caller.subject,
        tenant=caller.tenant,
        skill=call.method.lstrip("/") if call is not None else "",
        conversation=call.conversation if call is not None else "",
        cause=cause_of(call),
        trace_id=_trace_id(call),
    )


def _trace_id(call: rpc.Call | None) -> str:
    if call is not None:
        return call.trace_id
    span = trace.get_current_span().get_span_context()
    return f"{span.trace_id:032x}" if span.is_valid else ""
