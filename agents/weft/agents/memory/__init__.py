"""Memory of agents: what was said, what is being worked on, and what is known.

Long-term memory is `Knowledge`: documents of tenants in PostgreSQL, found by words and by meaning. `Conversations` and
`WorkingMemory` are in Redis, bounded, for a while. The state of a run is the orchestrator's (docs/memory.md).
"""

from weft.agents.memory.chunking import Chunking, Form
from weft.agents.memory.conversation import (
    Conversation,
    Conversations,
    ConversationSettings,
    Made,
    MemoryUnavailable,
    Notes,
    Recollection,
    Role,
    Summarise,
    Summary,
    Turn,
    WorkingMemory,
    WorkingSettings,
)
from weft.agents.memory.knowledge import (
    SQL,
    Added,
    Changes,
    Citation,
    Document,
    DocumentNotFound,
    Found,
    Hit,
    Knowledge,
    Library,
    SearchSettings,
    StoredDocument,
    Way,
    database,
)

__all__ = [
    "SQL",
    "Added",
    "Changes",
    "Chunking",
    "Citation",
    "Conversation",
    "ConversationSettings",
    "Conversations",
    "Document",
    "DocumentNotFound",
    "Form",
    "Found",
    "Hit",
    "Knowledge",
    "Library",
    "Made",
    "MemoryUnavailable",
    "Notes",
    "Recollection",
    "Role",
    "SearchSettings",
    "StoredDocument",
    "Summarise",
    "Summary",
    "Turn",
    "Way",
    "WorkingMemory",
    "WorkingSettings",
    "database",
]
