"""Tools: what a model, or an agent's own code, may have done in a caller's name.

@tool(effects=False)
async def word_count(request: CountRequest) -> CountResponse:
    \"\"\"Counts the words of a text.\"\"\"

async with Toolbox([word_count, calculator()], audit=DatabaseAudit(database)) as toolbox: ...
"""

from weft.agents.tools.audit import DatabaseAudit, MemoryAudit, database
from weft.agents.tools.failures import ToolBroken, ToolLimited, ToolUnknown
from weft.agents.tools.keeping import MemoryShelf, RedisShelf
from weft.agents.tools.offers import Offer, ToolResult
from weft.agents.tools.setup import tools_of
from weft.agents.tools.tool import Keeping, Rate, Tool, tool
from weft.agents.tools.toolbox import Toolbox
from weft.agents.tools.using import current_use

__all__ = [
    "DatabaseAudit",
    "Keeping",
    "MemoryAudit",
    "MemoryShelf",
    "Offer",
    "Rate",
    "RedisShelf",
    "Tool",
    "ToolBroken",
    "ToolLimited",
    "ToolResult",
    "ToolUnknown",
    "Toolbox",
    "current_use",
    "database",
    "tool",
    "tools_of",
]
