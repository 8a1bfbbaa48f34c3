"""The way out of the mesh: remote MCP servers and A2A agents as agents of Weft.

What a remote offers becomes a contract, and the contract is registered by a host as that of any other agent: discovery,
doors, scopes, breakers and traces need nothing more. Nothing that a remote says is trusted.
"""

from weft.agents.remote.keeper import Keeper
from weft.agents.remote.running import keeper_of

__all__ = ["Keeper", "keeper_of"]
