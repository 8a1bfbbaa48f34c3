"""Where Redis Cluster keeps our shards: a slot for each hash tag.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
"""

from __future__ import annotations

from binascii import crc_hqx

from weft.broker import layout

SLOTS = 16384
CONFIG_TAG = "{weft}"
# The config shard is number -1, which is also where it stands in a list of all.
SHARDS = (*range(layout.SHARDS), -1)


def slot_of(tagged: str) -> int:
    """The slot of a key or channel, which begins with its tag."""
    return crc_hqx(tagged[1 : tagged.index("}")].encode(), 0) % SLOTS


def tag(shard: int) -> str:
    """The hash tag of a shard."""
    return CONFIG_TAG if shard < 0 else layout.tag(shard)


def bell(shard: int) -> str:
    """The channel that tells of changes in a shard."""
    return f"{tag(shard)}:bell"


SLOT_OF_SHARD = tuple(slot_of(tag(shard)) for shard in SHARDS)
