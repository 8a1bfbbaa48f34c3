"""Tools of an MCP server as skills of an agent."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from weft.agents.remote import contract
from weft.agents.remote.contract import Made, Skill, Terms
from weft.agents.remote.line import Line
from weft.agents.remote.mcp import content
from weft.agents.remote.mcp.errors import tool_failed
from weft.agents.remote.mcp.session import Session
from weft.agents.remote.names import camel, clean, distinct
from weft.agents.remote.schemas import STRUCT, Compiled, compile_schema
from weft.agents.remote.values import to_json

log = logging.getLogger("weft.agents.remote")

Json = dict[str, Any]

_ANYTHING = Compiled(type_name=STRUCT)
_RESULT = Compiled(type_name=f".{content.RESULT}")
_LONGEST_NAME = 256


class Tool:
    """One tool.

    Args:
        name: what the server calls it.
        request: what its arguments became.
        line: the way to the server.
    """

    def __init__(self, name: str, request: Compiled, line: Line[Session]) -> None:
        self._name = name
        self._nulls = request.nulls
        self._line = line
        self.response: type[Message] | None = None

    async def __call__(self, request: Message, _: object) -> bytes:
        """Calls the tool.

        Raises:
            rpc.Error: what went wrong.
        """
        arguments = to_json(request, self._nulls)
        result = await self._line.call(lambda session: session.call(self._name, arguments))
        if result.is_error:
            raise tool_failed(result)
        assert self.response is not None
        return content.response(result, self.response)


def make(terms: Terms, about: str, tools: Sequence[Json], line: Line[Session]) -> Made:
    """The contract of an agent with these tools; a tool that cannot be understood is left out, or takes any object."""
    described: dict[str, Json] = {}
    for tool in tools:
        name = tool["name"]
        if not name or len(name) > _LONGEST_NAME or name in described:
            log.warning("a tool is left out: its name", extra={"tool": clean(name, 80)})
        else:
            described[name] = tool
    if len(described) > contract.MOST_SKILLS:
        log.warning("some tools are left out", extra={"most": contract.MOST_SKILLS})
    chosen = sorted(described)[: contract.MOST_SKILLS]
    methods = distinct(chosen, camel)
    found = [_as_it_says(terms, methods[name], described[name], line) for name in chosen]
    whole = _whole(terms, about, found)
    if whole is None:  # for the sake of which one is found out one by one
        found = _fitting(terms, methods, [described[name] for name in chosen], line)
        whole = contract.make(terms, about, [skill for _, skill in found])
    for called, skill in found:
        called.response = whole.classes[skill.response.type_name.lstrip(".")]
    return whole


def _whole(terms: Terms, about: str, found: Sequence[tuple[Tool, Skill]]) -> Made | None:
    """The contract with all tools; None: some cannot be said, or it is too large."""
    try:
        made = contract.make(terms, about, [skill for _, skill in found])
    except TypeError as failed:  # what a pool raises for what does not build
        log.warning("a contract does not build", extra={"agent": terms.agent, "why": str(failed)})
        return None
    return made if contract.fits(made) else None


def _fitting(
    terms: Terms, methods: Mapping[str, str], tools: Sequence[Json], line: Line[Session]
) -> list[tuple[Tool, Skill]]:
    """Tools as their schemas say, as long as that can be and there is room; else with any object, or not at all."""
    found: list[tuple[Tool, Skill]] = []
    size = 0
    for tool in tools:
        for simple in (False, True):
            made = _as_it_says(terms, methods[tool["name"]], tool, line, simple=simple)
            one = _whole(terms, "", [made])
            if one is not None and contract.has_room(one, size, simple=simple):
                size += one.size
                found.append(made)
                break
            told = {"tool": clean(tool["name"], 80)}
            log.warning("a tool is left out" if simple else "a tool takes any object", extra=told)
    return found


def _as_it_says(
    terms: Terms, method: str, tool: Json, line: Line[Session], *, simple: bool = False
) -> tuple[Tool, Skill]:
    request, response = _messages(terms, method, tool, simple=simple)
    made = Tool(tool["name"], request, line)
    return made, _skill(method, tool, request, response, made)


def _messages(terms: Terms, method: str, tool: Json, *, simple: bool) -> tuple[Compiled, Compiled]:
    if simple:
        return _ANYTHING, _RESULT
    request = compile_schema(
        tool.get("inputSchema"), package=terms.package, name=f"{method}Request"
    )
    if request.whole:
        told = {"tool": clean(tool["name"], 80), "why": request.whole}
        log.info("a tool takes any object", extra=told)
        request = _ANYTHING
    schema = tool.get("outputSchema")
    if not isinstance(schema, dict):
        return request, _RESULT
    return request, compile_schema(schema, package=terms.package, name=f"{method}Response")


def _skill(method: str, tool: Json, request: Compiled, response: Compiled, serve: Tool) -> Skill:
    given = tool.get("annotations")
    annotations: Mapping[str, object] = given if isinstance(given, dict) else {}
    idempotency = contract.UNKNOWN
    if annotations.get("readOnlyHint") is True:
        idempotency = contract.NO_SIDE_EFFECTS
    elif annotations.get("idempotentHint") is True:
        idempotency = contract.IDEMPOTENT
    title = clean(tool.get("title"), 200) or clean(annotations.get("title"), 200)
    return Skill(
        name=method,
        description=clean(tool.get("description"), 1_000) or title or clean(tool["name"], 200),
        request=request,
        response=response,
        serve=serve,
        idempotency=idempotency,
        tags=("mcp",),
    )
