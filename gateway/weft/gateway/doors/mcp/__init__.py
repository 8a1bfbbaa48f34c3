"""The MCP door: every skill of the mesh as a tool for MCP hosts, at /mcp (modelcontextprotocol.io).

Skills are tools, their examples prompts, agents and what they offer under a URI resources. Nothing of it is
written by an agent's author: all of it comes from the contract and its options.
"""

from weft.gateway.doors.mcp.calling import NAME
from weft.gateway.doors.mcp.door import PATH, McpDoor, fail
from weft.gateway.doors.mcp.origins import Origins

__all__ = ["NAME", "PATH", "McpDoor", "Origins", "fail"]
