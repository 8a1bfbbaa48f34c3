"""Research: finds what the knowledge base says about a question."""

from weft.agents.support.research.service import ResearchAgent

__all__ = ["ResearchAgent"]
