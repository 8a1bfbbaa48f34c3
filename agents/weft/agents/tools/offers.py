"""Tools as a model is given them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf import json_format
from google.protobuf.message import Message

from weft import rpc
from weft.agents import filling
from weft.agents.tools.failures import ResultTooLarge, error_of, told_to_model
from weft.agents.tools.tool import Tool
from weft.agents.tools.using import Counted, current_use, done_for

_SPENT = "BUDGET_SPENT"  # reason of errors of budgets: of `weft.agents.llm`, and of agents that tools call
_MOST_FAULTS = 20  # told at once
MOST_BYTES = 100_000
"""Of a result as JSON: what is more fills a model's context and helps nobody."""


class Uses(Protocol):
    """The way to a tool."""

    def __call__(
        self, tool: Tool, read: Callable[[], Message], key: Callable[[Message], str]
    ) -> Awaitable[Message]:
        """Uses it. Raises rpc.Error."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a model is told.

    Attributes:
        text: JSON of the result, or what went wrong.
        json: the result; None: there is none.
        is_error: whether it went wrong.
    """

    text: str
    json: Mapping[str, Any] | None = None
    is_error: bool = False


class Offer:
    """A tool for a model. What it does is asked for its permission each time, whoever got hold of it.

    Args:
        tool: the tool.
        uses: the way to it.
        counted: tells equal uses apart.
    """

    def __init__(self, tool: Tool, uses: Uses, counted: Counted) -> None:
        self._tool = tool
        self._uses = uses
        self._counted = counted

    @property
    def name(self) -> str:
        """Its name."""
        return self._tool.name

    @property
    def description(self) -> str:
        """What it does."""
        return self._tool.description

    @property
    def input_schema(self) -> Mapping[str, object]:
        """A JSON schema of its arguments."""
        return self._tool.input_schema

    async def __call__(self, arguments: Mapping[str, object]) -> ToolResult:
        """Uses the tool. What goes wrong is a result as well, in words for the model.

        Raises:
            rpc.Error: there is nothing left to go on with: the caller's time, or what may be spent.
        """
        kind = self._tool.request
        try:
            return _told(await self._uses(self._tool, lambda: _read(kind, arguments), self._key))
        except Exception as failed:
            error = error_of(self._tool.name, failed)
            deadline = rpc.Deadline.current()
            if error.reason == _SPENT or (deadline is not None and deadline.expired()):
                raise
            return ToolResult(text=told_to_model(error), is_error=True)

    def _key(self, request: Message) -> str:
        outer = current_use()
        cause = done_for(rpc.current_call()) if outer is None else outer.key
        return self._counted.key(cause, self._tool.name, request)


def _told(result: Message) -> ToolResult:
    found: Any = json_format.MessageToDict(result)
    written = found if isinstance(found, dict) else {"value": found}
    text = json.dumps(written, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > MOST_BYTES:
        raise ResultTooLarge(f"The result is larger than {MOST_BYTES} bytes; ask for less.")
    return ToolResult(text=text, json=written)


def _read(kind: type[Message], arguments: Mapping[str, object]) -> Message:
    try:
        return filling.read(kind, arguments, arguments=True)
    except filling.Unfit as unfit:
        faults = [(path.removeprefix("$."), text) for path, text in unfit.faults[:_MOST_FAULTS]]
        raise rpc.InvalidArgument(violations=faults) from None
