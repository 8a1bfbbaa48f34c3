"""For graphs of LangGraph: checkpoints in PostgreSQL under leases, and nodes that call agents. docs/langgraph.md says more.

Needs the extra `weft[langgraph]`.
"""

try:
    import langgraph  # noqa: F401  to say what is missing
except ModuleNotFoundError as missing:
    raise ImportError('this needs LangGraph: pip install "weft[langgraph]"') from missing

from weft.agents.langgraph.checkpoints import AsyncpgSaver
from weft.agents.langgraph.leases import Lease, LeaseLost, ThreadTaken
from weft.agents.langgraph.mapping import MappingFault
from weft.agents.langgraph.nodes import NotStored, agent_node

__all__ = [
    "AsyncpgSaver",
    "Lease",
    "LeaseLost",
    "MappingFault",
    "NotStored",
    "ThreadTaken",
    "agent_node",
]
