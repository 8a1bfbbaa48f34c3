"""Who is there, where, and in what state: leases, health, discovery and the xDS control plane.

async with Registry(database_url=..., address="127.0.0.1:7070") as registry: ...
"""

from weft.registry.health import Pace
from weft.registry.leases import Terms
from weft.registry.server import DEFAULT_ADDRESS, Registry

__all__ = ["DEFAULT_ADDRESS", "Pace", "Registry", "Terms"]
