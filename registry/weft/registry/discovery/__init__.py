"""Finding agents by what they can do: capability, labels, version, types of messages, words; and why not."""

from weft.registry.discovery.service import DiscoveryService
from weft.registry.discovery.words import SQL, Words

__all__ = ["SQL", "DiscoveryService", "Words"]
