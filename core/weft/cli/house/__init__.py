"""The whole mesh on one machine: servers and parts, started, watched, restarted and stopped in order."""

from weft.cli.house.child import Child, State
from weft.cli.house.house import House
from weft.cli.house.lock import HouseLock
from weft.cli.house.ports import check_free, with_free_ports

__all__ = ["Child", "House", "HouseLock", "State", "check_free", "with_free_ports"]
