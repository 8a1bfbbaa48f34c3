"""Redis for the broker: one multiplexed connection per primary, durable commands in rounds, bells.

Works with one server, a primary with replicas (candidates or sentinels) and Redis Cluster.
"""

from weft.broker.redis.client import Redis
from weft.broker.redis.errors import (
    ConnectionLost,
    NotSafe,
    ReplyError,
    StoreRefuses,
    StoreUnfit,
)

__all__ = ["ConnectionLost", "NotSafe", "Redis", "ReplyError", "StoreRefuses", "StoreUnfit"]
