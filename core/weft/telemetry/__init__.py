"""How a Weft process is seen: logs, metrics, traces."""

from weft.telemetry.instruments import Instruments
from weft.telemetry.setup import Telemetry, start

__all__ = ["Instruments", "Telemetry", "start"]
