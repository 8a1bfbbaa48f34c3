"""Traffic as it is in force: subsets by instance, shares of the calls, the drill that runs."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from weft.registry import labels
from weft.registry.versions import Range
from weft.v1 import agent_pb2, traffic_pb2

REST = ""  # the subset of those that are of none


class _Subset(NamedTuple):
    name: str
    percent: int
    requirements: Sequence[labels.Requirement]
    versions: Range | None

    def has(self, instance: agent_pb2.Instance) -> bool:
        if self.versions is not None and instance.version not in self.versions:
            return False
        return all(each.met_by(instance.labels) for each in self.requirements)


class Policy:
    """The Traffic of an agent.

    Args:
        traffic: as operators set it, without violations.

    Attributes:
        traffic: the same.
    """

    def __init__(self, traffic: traffic_pb2.Traffic | None = None) -> None:
        self.traffic = traffic or traffic_pb2.Traffic()
        self._subsets = [
            _Subset(
                each.name,
                each.percent,
                labels.parse(each.selector) if each.selector.strip() else (),
                Range(each.versions) if each.versions.strip() else None,
            )
            for each in self.traffic.subsets
        ]

    @property
    def subsets(self) -> Sequence[str]:
        """Names of the subsets, the rest left out."""
        return [each.name for each in self._subsets]

    def subset(self, instance: agent_pb2.Instance) -> str:
        """The subset an instance is of: the first that it matches, or the rest."""
        return next((each.name for each in self._subsets if each.has(instance)), REST)

    def shares(self, populated: Collection[str]) -> Mapping[str, int]:
        """Weights of the subsets that get calls.

        Args:
            populated: those with somebody in service.
        """
        percents = {each.name: each.percent for each in self._subsets}
        percents[REST] = 100 - sum(percents.values())
        found = {name: percent for name, percent in percents.items() if percent}
        return {name: percent for name, percent in found.items() if name in populated} or {REST: 1}

    def drill(self) -> traffic_pb2.Fault | None:
        """The drill that runs now."""
        if not self.traffic.HasField("fault") or self.drill_ends_in() <= 0:
            return None
        return self.traffic.fault

    def drill_ends_in(self) -> float:
        """Seconds until the drill ends; 0 or less: none runs."""
        if not self.traffic.HasField("fault"):
            return 0.0
        return self.traffic.fault.expire_time.ToNanoseconds() / 1e9 - time.time()
