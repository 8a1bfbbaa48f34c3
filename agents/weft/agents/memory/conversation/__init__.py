"""Memory of conversations and of work under way, in Redis: bounded, and gone after a while."""

from weft.agents.memory.conversation.conversation import (
    Conversation,
    Conversations,
    ConversationSettings,
    MemoryUnavailable,
)
from weft.agents.memory.conversation.summaries import Made, Summarise, Summary
from weft.agents.memory.conversation.turns import Recollection, Role, Turn
from weft.agents.memory.conversation.working import Notes, WorkingMemory, WorkingSettings

__all__ = [
    "Conversation",
    "ConversationSettings",
    "Conversations",
    "Made",
    "MemoryUnavailable",
    "Notes",
    "Recollection",
    "Role",
    "Summarise",
    "Summary",
    "Turn",
    "WorkingMemory",
    "WorkingSettings",
]
