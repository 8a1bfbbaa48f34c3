"""How a Weft process is seen: logs, metrics, traces."""

from weft.telemetry.instruments import Instruments
from weft.telemetry.setup import Telemetry, start
from weft.telemetry.spans import SecureReceiver

__all__ = ["Instruments", "SecureReceiver", "Telemetry", "start"]
