"""Tools of an MCP server as skills of an agent."""

from weft.agents.remote.mcp.agent import McpAgent

__all__ = ["McpAgent"]
