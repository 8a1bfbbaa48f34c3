"""All that one catalog offers to MCP hosts, and what changes from one catalog to the next."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from weft.gateway.doors.mcp.listing import PAGE, Listing
from weft.gateway.doors.mcp.names import tool_names
from weft.gateway.doors.mcp.prompts import Prompt
from weft.gateway.doors.mcp.resources import Card, Offered, agent_template, cards, offered
from weft.gateway.doors.mcp.tools import Tool
from weft.gateway.jobs.own_agent import AGENT
from weft.gateway.transcoding.catalog import Catalog

TOOLS = "tools"
PROMPTS = "prompts"
RESOURCES = "resources"


class Shelf:
    """Tools, prompts and resources of a catalog. What is shown of them is made when it is first asked for.

    Args:
        catalog: the methods of the mesh.
        previous: the shelf before, whose unchanged tools are taken over.
        page: entries in one page of a list.
    """

    def __init__(
        self, catalog: Catalog, *, previous: Shelf | None = None, page: int = PAGE
    ) -> None:
        known: Mapping[str, Tool] = previous.tools if previous else {}
        self._page = page
        # MCP has no calls that are looked at later: its hosts would begin no job and find none.
        self._methods = [each for each in catalog.methods.values() if each.agent.name != AGENT]
        self.tools: dict[str, Tool] = {
            name: known[name]
            if name in known and known[name].method is method
            else Tool(name, method)
            for name, method in tool_names(
                each for each in self._methods if not each.client_streaming
            ).items()
        }

    @cached_property
    def prompts(self) -> Mapping[str, Prompt]:
        """Prompts by name."""
        return {
            name: Prompt(tool)
            for name, tool in self.tools.items()
            if tool.method.skill.examples or tool.method.skill.prompt
        }

    @cached_property
    def cards(self) -> Mapping[str, Card]:
        """Descriptions of agents, by URI."""
        return cards(self._methods, self.tools.values())

    @cached_property
    def offers(self) -> list[Offered]:
        """Skills whose answers are resources."""
        return offered(self.tools.values())

    @cached_property
    def tool_list(self) -> Listing:
        """The list of tools."""
        return Listing(TOOLS, (tool.entry() for tool in self.tools.values()), page=self._page)

    @cached_property
    def prompt_list(self) -> Listing:
        """The list of prompts."""
        entries = (prompt.entry() for prompt in self.prompts.values())
        return Listing(PROMPTS, entries, page=self._page)

    @cached_property
    def resource_list(self) -> Listing:
        """The list of resources."""
        fixed = [offer.entry() for offer in self.offers if not offer.variables]
        own = [card.entry() for card in self.cards.values()]
        return Listing(RESOURCES, own + fixed, page=self._page)

    @cached_property
    def template_list(self) -> Listing:
        """The list of resource templates."""
        entries = [offer.entry() for offer in self.offers if offer.variables]
        return Listing("resourceTemplates", [agent_template(), *entries], page=self._page)

    def offer(self, uri: str) -> tuple[Offered, dict[str, str]] | None:
        """The skill that offers a resource, and the arguments it takes for it."""
        for each in self.offers:
            arguments = each.arguments(uri)
            if arguments is not None:
                return each, arguments
        return None

    def agent_of(self, uri: str) -> str:
        """The agent a resource belongs to; empty: there is no such resource."""
        if uri in self.cards:
            return self.cards[uri].agent.name
        found = self.offer(uri)
        return found[0].tool.method.agent.name if found else ""

    def changed_lists(self, before: Shelf) -> set[str]:
        """The lists that differ from those of another shelf."""
        return {
            kind
            for kind, now, then in (
                (TOOLS, self.tool_list, before.tool_list),
                (PROMPTS, self.prompt_list, before.prompt_list),
                (RESOURCES, self.resource_list, before.resource_list),
                (RESOURCES, self.template_list, before.template_list),
            )
            if now.fingerprint() != then.fingerprint()
        }

    def changed_agents(self, before: Shelf) -> set[str]:
        """The agents that came, went or say something else of themselves."""
        now = {card.agent.name: card.fingerprint() for card in self.cards.values()}
        then = {card.agent.name: card.fingerprint() for card in before.cards.values()}
        return {name for name in now.keys() | then.keys() if now.get(name) != then.get(name)}
