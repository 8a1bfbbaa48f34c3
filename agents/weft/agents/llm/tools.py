"""Tools: what a model may call, by whoever makes them, and what it is told of them.

A tool is anything with these four; `weft.agents.tools` makes them. What a tool raises is told to the model only where it was
written to be told: an error of the mesh. Anything else could quote what the model, and whoever reads its answer, is
not to see.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from weft import rpc
from weft.agents.llm.replies import ToolUse

log = logging.getLogger("weft.agents.llm")

_LONGEST = 100_000  # characters of a result


class ToolResult(Protocol):
    """What a tool found."""

    @property
    def text(self) -> str:
        """In words; empty where `json` says it."""
        ...

    @property
    def json(self) -> object:
        """As a JSON value; None where `text` says it."""
        ...

    @property
    def is_error(self) -> bool:
        """Whether it failed."""
        ...


class Tool(Protocol):
    """What a model may call."""

    @property
    def name(self) -> str:
        """1 to 64 of A-Z, a-z, 0-9, underscore and hyphen."""
        ...

    @property
    def description(self) -> str:
        """What it does and when to use it, for the model."""
        ...

    @property
    def input_schema(self) -> Mapping[str, object]:
        """JSON schema of its arguments, an object."""
        ...

    async def __call__(self, arguments: Mapping[str, object]) -> ToolResult:
        """Does it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool that was called.

    Attributes:
        use: what the model wanted.
        result: what it was told.
        is_error: whether it failed.
    """

    use: ToolUse
    result: str
    is_error: bool = False

    @property
    def block(self) -> dict[str, Any]:
        """As the Messages API has it."""
        found = {"type": "tool_result", "tool_use_id": self.use.id, "content": self.result}
        return {**found, "is_error": True} if self.is_error else found


class Bench:
    """The tools of one question.

    Args:
        tools: each name once.
    """

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    @property
    def described(self) -> list[dict[str, Any]]:
        """As the Messages API has them; in one order, so that a cache knows them again."""
        return [
            {
                "name": name,
                "description": tool.description,
                "input_schema": dict(tool.input_schema),
            }
            for name, tool in sorted(self._tools.items())
        ]

    async def call(self, uses: Iterable[ToolUse]) -> list[ToolCall]:
        """Calls tools, all at once.

        Raises:
            rpc.DeadlineExceeded: the deadline of the whole has passed.
            BudgetSpent: a tool spent what was left on models of its own.
        """
        deadline = rpc.Deadline.current()
        try:
            async with asyncio.timeout(deadline.seconds() if deadline else None) as scope:
                async with asyncio.TaskGroup() as group:
                    calling = [group.create_task(self._caught(use)) for use in uses]
        except TimeoutError:
            if scope.expired():
                raise rpc.DeadlineExceeded("A tool took longer than there was time.") from None
            raise
        found: list[ToolCall] = []
        for each in calling:
            result = each.result()
            if isinstance(result, rpc.Error):
                raise result
            found.append(result)
        return found

    async def _caught(self, use: ToolUse) -> ToolCall | rpc.Error:
        # An error that ends the whole is carried out: a group would wrap it in another.
        try:
            return await self._call(use)
        except rpc.Error as failed:
            return failed

    async def _call(self, use: ToolUse) -> ToolCall:
        tool = self._tools.get(use.name)
        if use.fault:
            return ToolCall(use=use, result=use.fault, is_error=True)
        if tool is None:
            told = f"There is no tool {use.name[:64]!r}; there are: {', '.join(self._tools)}."
            return ToolCall(use=use, result=told, is_error=True)
        try:
            result = await tool(use.arguments)
            return ToolCall(use=use, result=_text_of(result), is_error=result.is_error)
        except rpc.Error as failed:
            deadline = rpc.Deadline.current()
            if failed.reason == "BUDGET_SPENT" or (deadline is not None and deadline.expired()):
                raise
            told = f"{failed.code.name}: {failed.message}"
        except Exception:
            log.exception("a tool failed", extra={"tool": use.name})
            told = "The tool failed."
        return ToolCall(use=use, result=told, is_error=True)


def _text_of(result: ToolResult) -> str:
    text = result.text
    if not text and result.json is not None:
        text = json.dumps(result.json, ensure_ascii=False, default=str)
    if len(text) > _LONGEST:
        return f"{text[:_LONGEST]}\n[{len(text) - _LONGEST} characters more are left out]"
    return text
