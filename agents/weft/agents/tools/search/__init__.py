"""Searches the web, by an engine of one's choice."""

from weft.agents.tools.search.engine import Engine, Hit
from weft.agents.tools.search.searxng import SearXNG
from weft.agents.tools.search.tavily import Tavily
from weft.agents.tools.search.tool import web_search

__all__ = ["Engine", "Hit", "SearXNG", "Tavily", "web_search"]
