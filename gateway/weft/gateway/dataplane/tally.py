"""What became of the calls at one address, over all its connections."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import grpc
from google.protobuf.message import DecodeError

from weft.rpc.call import Metadata
from weft.rpc.status import SERVER_FAULTS
from weft.rpc.utilization import UTILIZATION_KEY
from weft.xds.v1.orca_pb2 import OrcaLoadReport

_STALE = 30.0  # seconds for which a report is believed


class Tally:
    """Counts calls.

    Attributes:
        begun: calls so far.
        failed: of these, those that failed by the agent's fault.
        on_failure: told before a failure is counted; None: nobody.
        weighs: whether reports of utilization are read.
    """

    __slots__ = ("_at", "_weight", "begun", "failed", "on_failure", "weighs")

    def __init__(self) -> None:
        self.begun = self.failed = 0
        self.on_failure: Callable[[], None] | None = None
        self.weighs = False
        self._weight = 0.0
        self._at = 0.0

    def failure(self, code: grpc.StatusCode) -> None:
        """A call ended with an error."""
        if code in SERVER_FAULTS:
            if self.on_failure is not None:
                self.on_failure()
            self.failed += 1

    def answer(self, trailing: Metadata) -> None:
        """A call ended well, with metadata."""
        if not self.weighs:
            return
        for key, value in trailing:
            if key == UTILIZATION_KEY and isinstance(value, bytes):
                self._take(value)

    def _take(self, value: bytes) -> None:
        try:
            report = OrcaLoadReport.FromString(value)
        except DecodeError:
            return
        rate, used = report.rps_fractional, report.application_utilization
        weight = 0.0
        if rate > 0 and used > 0:  # the weight of gRFC A58, with its penalty for errors
            weight = rate / (used + max(0.0, report.eps / rate))
        if 0 < weight < math.inf:
            self._weight = weight
            self._at = asyncio.get_running_loop().time()

    def weight(self, now: float) -> float:
        """Calls a second that it could do, as it reports; 0: not known."""
        return self._weight if now - self._at < _STALE else 0.0
