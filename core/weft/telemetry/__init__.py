"""How a Weft process is seen: logs, metrics, traces."""

from weft.telemetry.instruments import Instruments, Record
from weft.telemetry.late import Late, PlannedIds
from weft.telemetry.probes import probe
from weft.telemetry.sentry import Report
from weft.telemetry.setup import Telemetry, start

__all__ = ["Instruments", "Late", "PlannedIds", "Record", "Report", "Telemetry", "probe", "start"]
