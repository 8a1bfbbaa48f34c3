"""Resources: a description of each agent, and what skills offer under a URI of their own."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from weft.gateway.doors.mcp.listing import Entry, freshness
from weft.gateway.doors.mcp.protocol import OWN_META, Outcome
from weft.gateway.doors.mcp.tools import Tool
from weft.gateway.doors.mcp.visibility import Scopes, Ways, sees, way_of
from weft.gateway.transcoding.catalog import Agent, Idempotency, Method

Json = dict[str, Any]

log = logging.getLogger("weft.gateway")

AGENTS = "weft://agents/"
AGENT_TEMPLATE = AGENTS + "{name}"
_JSON = "application/json"
_VARIABLE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[^\s\"<>\\^`|]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A skill whose answer is a resource, or many by a template."""

    uri: str
    tool: Tool
    variables: tuple[str, ...]
    pattern: re.Pattern[str]

    def arguments(self, uri: str) -> dict[str, str] | None:
        """The arguments that a URI stands for; None: it is another resource."""
        match = self.pattern.fullmatch(uri)
        return {k: unquote(v) for k, v in match.groupdict().items()} if match else None

    def entry(self) -> Entry:
        """Its place in the list of resources, or of templates."""
        tool = self.tool
        shown: Json = {
            "uriTemplate" if self.variables else "uri": self.uri,
            "name": tool.name,
            "title": tool.title,
            "description": tool.description,
            "mimeType": tool.method.skill.resource_type or _JSON,
        }
        return Entry(key=self.uri, ways=tool.ways, body=lambda: orjson.dumps(shown))


class Card:
    """The description of an agent.

    Args:
        agent: who it is.
        methods: what it serves.
        tools: those of them that are tools.
    """

    def __init__(self, agent: Agent, methods: Iterable[Method], tools: Iterable[Tool]) -> None:
        self.agent = agent
        self.uri = AGENTS + agent.name
        self.ways: Ways = tuple({way_of(method) for method in methods})
        self._tools = tuple(tools)

    def entry(self) -> Entry:
        """Its place in the list of resources."""
        shown = {
            "uri": self.uri,
            "name": self.agent.name,
            "title": f"Agent {self.agent.name}",
            "description": self.agent.description or f"What the agent {self.agent.name} can do.",
            "mimeType": _JSON,
        }
        return Entry(key=self.uri, ways=self.ways, body=lambda: orjson.dumps(shown))

    def read(self, scopes: Scopes | None) -> Outcome:
        """The card, with the skills that a caller sees."""
        agent = self.agent
        card: Json = {
            "name": agent.name,
            "description": agent.description,
            "tags": agent.tags,
            "tier": agent.tier,
            "skills": [
                {
                    "tool": tool.name,
                    "skill": tool.method.full_name,
                    "description": tool.description,
                    "tags": tool.method.skill.tags,
                    "examples": [orjson.Fragment(e) for e in tool.method.skill.examples],
                    "requiredScopes": tool.method.skill.required_scopes,
                }
                for tool in self._tools
                if sees(scopes, tool.ways)
            ],
        }
        text = orjson.dumps(card).decode()
        contents = [{"uri": self.uri, "mimeType": _JSON, "text": text}]
        return Outcome(
            body=orjson.dumps({"contents": contents}),
            fresh=freshness(private=scopes is not None),
        )

    def fingerprint(self) -> bytes:
        """What the card says, to tell whether it changed."""
        return self.read(None).body


def offered(tools: Iterable[Tool]) -> list[Offered]:
    """The resources that skills offer, in order of their URIs; of two with one URI the first tool's."""
    found: dict[str, Offered] = {}
    for tool in tools:
        uri = tool.method.skill.resource_uri
        if not uri:
            continue
        fault = _fault(uri, tool.method)
        if fault or uri in found:
            log.warning(
                "no resource: %s",
                fault or f"{uri} is offered by {found[uri].tool.method.full_name}",
                extra={"agent": tool.method.agent.name, "of": tool.method.full_name},
            )
            continue
        parts = _VARIABLE.split(uri)
        pattern = "".join(
            f"(?P<{part}>[^/?#]+)" if number % 2 else re.escape(part)
            for number, part in enumerate(parts)
        )
        found[uri] = Offered(
            uri=uri, tool=tool, variables=tuple(parts[1::2]), pattern=re.compile(pattern)
        )
    return [found[uri] for uri in sorted(found)]


def _fault(uri: str, method: Method) -> str:
    variables = _VARIABLE.findall(uri)
    if not _URI.fullmatch(_VARIABLE.sub("x", uri)) or uri.startswith(AGENTS):
        return f"resource_uri {uri!r} is no URI, or not one to give away"
    if method.server_streaming or method.idempotency is not Idempotency.NO_SIDE_EFFECTS:
        return "only a unary method with NO_SIDE_EFFECTS is a resource"
    fields = method.input.fields_by_name
    unknown = [
        name
        for name in variables
        if name not in fields or fields[name].is_repeated or fields[name].message_type is not None
    ]
    if unknown or len(set(variables)) != len(variables):
        return f"resource_uri {uri!r}: {', '.join(unknown or variables)} cannot be filled in"
    return ""


def agent_template() -> Entry:
    """The template of agents' descriptions."""
    shown = {
        "uriTemplate": AGENT_TEMPLATE,
        "name": "agent",
        "title": "Agent",
        "description": "What an agent of the mesh is and can do.",
        "mimeType": _JSON,
        "_meta": {OWN_META + "kind": "agent"},
    }
    return Entry(key=AGENT_TEMPLATE, ways=(frozenset(),), body=lambda: orjson.dumps(shown))


def cards(methods: Iterable[Method], tools: Iterable[Tool]) -> Mapping[str, Card]:
    """The cards of all agents, by URI."""
    by_agent: dict[str, list[Method]] = {}
    for method in methods:
        by_agent.setdefault(method.agent.name, []).append(method)
    own: dict[str, list[Tool]] = {}
    for tool in tools:
        own.setdefault(tool.method.agent.name, []).append(tool)
    made = (
        Card(served[0].agent, served, own.get(name, ()))
        for name, served in sorted(by_agent.items())
    )
    return {card.uri: card for card in made}
