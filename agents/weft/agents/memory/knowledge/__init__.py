"""Long-term memory: documents of tenants, found by their words and by what they mean."""

from weft.agents.memory.knowledge.documents import (
    Added,
    Citation,
    Document,
    DocumentNotFound,
    Found,
    Hit,
    StoredDocument,
    Way,
)
from weft.agents.memory.knowledge.knowledge import SQL, Changes, Knowledge, Library, database
from weft.agents.memory.knowledge.searching import SearchSettings

__all__ = [
    "SQL",
    "Added",
    "Changes",
    "Citation",
    "Document",
    "DocumentNotFound",
    "Found",
    "Hit",
    "Knowledge",
    "Library",
    "SearchSettings",
    "StoredDocument",
    "Way",
    "database",
]
