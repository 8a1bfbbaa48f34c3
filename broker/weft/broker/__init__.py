"""Durable messages between agents.

async with Broker(redis_url=..., database_url=..., address="127.0.0.1:7072") as broker: ...
"""

from weft.broker.server import DEFAULT_ADDRESS, Broker

__all__ = ["DEFAULT_ADDRESS", "Broker"]
