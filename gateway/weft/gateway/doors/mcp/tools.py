"""Skills as tools."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

import orjson

from weft.gateway.doors.mcp.content import Content
from weft.gateway.doors.mcp.listing import Entry
from weft.gateway.doors.mcp.names import VALID, words
from weft.gateway.doors.mcp.protocol import OWN_META
from weft.gateway.doors.mcp.schemas import (
    WRAPPED,
    input_schema,
    is_object,
    mirrored,
    output_schema,
)
from weft.gateway.doors.mcp.visibility import way_of
from weft.gateway.transcoding.catalog import Idempotency, Method

Json = dict[str, Any]

log = logging.getLogger("weft.gateway")


class Tool:
    """One skill under the name it has as a tool.

    Attributes:
        content: how its answers are shown.
        mirrored: the arguments that headers repeat.
    """

    def __init__(self, name: str, method: Method) -> None:
        self.name = name
        self.method = method
        self.ways = (way_of(method),)
        self.content = Content(method)
        self.mirrored = mirrored(method.input)
        self._wrapped = not is_object(method.input)
        asked = method.skill.tool_name
        if asked and not VALID.fullmatch(asked):
            log.warning("tool_name %r is no name for a tool", asked, extra={"of": method.full_name})

    @property
    def title(self) -> str:
        """Its name for people."""
        return " ".join(words(self.method.name)).capitalize()

    @property
    def description(self) -> str:
        """What it does."""
        agent = self.method.agent
        said = self.method.skill.description or f"{self.title} ({agent.name})."
        return (
            said
            if self.method.skill.description or not agent.description
            else (f"{said} {agent.description}")
        )

    def request(self, arguments: Json) -> bytes:
        """The request's JSON; empty: no arguments."""
        if not arguments:
            return b""
        return orjson.dumps(arguments.get(WRAPPED) if self._wrapped else arguments)

    def entry(self) -> Entry:
        """Its place in the list of tools."""
        return Entry(key=self.name, ways=self.ways, body=lambda: self.definition)

    @cached_property
    def definition(self) -> bytes:
        """What a list of tools says of it."""
        method = self.method
        shown: Json = {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": input_schema(method.input),
        }
        if self.content.structured:
            shown["outputSchema"] = output_schema(method.output, stream=method.server_streaming)
        shown["annotations"] = _annotations(method)
        shown["_meta"] = {
            OWN_META + "agent": method.agent.name,
            OWN_META + "skill": method.full_name,
            OWN_META + "tags": list(method.skill.tags),
        }
        return orjson.dumps(shown)


def _annotations(method: Method) -> Json:
    """Hints for a host that decides what to ask a person about."""
    reads = method.idempotency is Idempotency.NO_SIDE_EFFECTS
    return {
        "readOnlyHint": reads,
        "destructiveHint": not reads or method.skill.needs_approval,
        "idempotentHint": method.idempotency.repeatable,
    }
