"""The whole mesh on one machine: servers and parts, started, watched, restarted and stopped in order."""

from weft.cli.house.house import House
from weft.cli.house.interrupt import Interrupt
from weft.cli.house.lock import HouseLock
from weft.cli.house.ports import any_ports, check_free, with_free_ports
from weft.cli.house.view import Lines, Table

__all__ = [
    "House",
    "HouseLock",
    "Interrupt",
    "Lines",
    "Table",
    "any_ports",
    "check_free",
    "with_free_ports",
]
