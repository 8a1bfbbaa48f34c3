"""Durable messages for agents and clients: publish, consume, send skills, handle once.

async with Publisher("127.0.0.1:7072", sender="me") as publisher: ...
async with Consumer("127.0.0.1:7072", "orders", handle): ...
"""

from weft.agents.messaging.consumer import Consumer
from weft.agents.messaging.once import once
from weft.agents.messaging.publisher import Publisher, PublishFailed, Receipt
from weft.agents.messaging.sending import Sending
from weft.agents.messaging.settlement import Reject, Retry
from weft.agents.messaging.skills import Skill, skill_of

__all__ = [
    "Consumer",
    "PublishFailed",
    "Publisher",
    "Receipt",
    "Reject",
    "Retry",
    "Sending",
    "Skill",
    "once",
    "skill_of",
]
