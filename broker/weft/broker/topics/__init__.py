"""Topics: durable subscriptions, the router that copies messages to their queues, broadcasts."""

from weft.broker.topics.broadcasts import Broadcasts
from weft.broker.topics.topics import Topics

__all__ = ["Broadcasts", "Topics"]
