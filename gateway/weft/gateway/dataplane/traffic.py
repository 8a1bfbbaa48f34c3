"""How the calls of an agent are spread, as operators say (weft/v1/traffic.proto): values."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

import grpc

from weft.rpc.call import Metadata


class Balancing(Enum):
    """How an instance is chosen."""

    ROUND_ROBIN = "in turn"
    RING_HASH = "by the value of a header"
    WEIGHTED = "by what instances report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Which addresses are left alone for a time; durations in seconds."""

    failures: float = 0.5
    ejection: float = 5.0
    ejected: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A drill.

    Attributes:
        abort: share of the calls that fail.
        code: with which status.
        delay: share of the calls that are held up.
        seconds: for how long.
        header: metadata that a call must have; empty: all calls.
        value: of it; empty: any.
        ends: when it is over, seconds since 1970.
    """

    abort: float = 0.0
    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    delay: float = 0.0
    seconds: float = 0.0
    header: str = ""
    value: str = ""
    ends: float

    def hits(self, metadata: Metadata) -> bool:
        """Whether it is for a call."""
        if time.time() >= self.ends:
            return False
        if not self.header:
            return True
        return any(key == self.header and self.value in ("", value) for key, value in metadata)

    def delays(self) -> bool:
        """Whether it holds a call up."""
        return random.random() < self.delay  # noqa: S311 no secret

    def aborts(self) -> bool:
        """Whether it fails a call."""
        return random.random() < self.abort  # noqa: S311 no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Of one agent.

    Attributes:
        shares: weights by subset, of those with somebody in service.
        subsets: by address; empty where there are none.
        zones: by address, where zones matter.
        zone: that is preferred; empty: none.
        balancing: how an address is chosen.
        header: by which, where that is by a header.
        outliers: which are left alone; None: none.
        retries: second attempts of a call at most; None: as the gateway has it.
        fault: a drill; None: there is none.
    """

    shares: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({"": 1}))
    subsets: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    zones: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    zone: str = ""
    balancing: Balancing = Balancing.ROUND_ROBIN
    header: str = ""
    outliers: Outliers | None = field(default_factory=Outliers)
    retries: int | None = None
    fault: Fault | None = None

    @property
    def headers(self) -> frozenset[str]:
        """Metadata that it goes by."""
        drill = self.fault.header if self.fault is not None else ""
        return frozenset({self.header, drill} - {""})


USUAL = Traffic()
