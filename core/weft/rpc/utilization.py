"""What a server tells its callers of its load beside each answer: ORCA (gRFC A51), for client-side weights (gRFC A58)."""

from __future__ import annotations

from time import monotonic

from weft.rpc.load import LoadMeter
from weft.xds.v1.orca_pb2 import OrcaLoadReport

UTILIZATION_KEY = "endpoint-load-metrics-bin"
_SAMPLED = 0.5  # seconds a report is made of at least


class Utilization:
    """Sums up what a load meter counts. Not thread-safe: it lives on the event loop.

    Utilization is the share of its places that calls take on average: calls a second, times their latency, by the limit. A
    client that weighs servers by calls a second for their utilization weighs them by how many calls they could do.

    Args:
        load: of the server.
    """

    __slots__ = ("_calls", "_failures", "_load", "_report", "_since")

    def __init__(self, load: LoadMeter) -> None:
        self._load = load
        self._report: bytes | None = None
        self._begin(monotonic())

    def _begin(self, now: float) -> None:
        self._since = now
        self._calls, self._failures = self._load.calls, self._load.failures

    def report(self) -> bytes | None:
        """An OrcaLoadReport; None: not enough has been seen yet."""
        now = monotonic()
        if now - self._since >= _SAMPLED:
            self._report = self._sum_up(now - self._since)
            self._begin(now)
        return self._report

    def _sum_up(self, seconds: float) -> bytes | None:
        load = self._load
        rate = (load.calls - self._calls) / seconds
        if not rate:
            return self._report
        return OrcaLoadReport(
            rps_fractional=rate,
            eps=(load.failures - self._failures) / seconds,
            application_utilization=rate * load.latency_ewma / load.limit,
        ).SerializeToString()
