"""Context: what is known about whoever asks, from many sources at once, within one deadline and a budget of tokens.

enrichment = Enrichment([Source("profile", profile), Source("orders", orders)], cache=RedisCache(client))
context = await enrichment.gather(Need(tenant="acme", customer="ann", question="Where is it?"))
prompt = context.text()
"""

from weft.agents.breaker import BreakerSettings
from weft.agents.context.cache import Cache, Entry, RedisCache
from weft.agents.context.gathering import Enrichment, Source
from weft.agents.context.model import Context, Fact, How, Missing, Need, Piece, Provider
from weft.agents.context.providers import by_skill, of_conversation, of_knowledge

__all__ = [
    "BreakerSettings",
    "Cache",
    "Context",
    "Enrichment",
    "Entry",
    "Fact",
    "How",
    "Missing",
    "Need",
    "Piece",
    "Provider",
    "RedisCache",
    "Source",
    "by_skill",
    "of_conversation",
    "of_knowledge",
]
