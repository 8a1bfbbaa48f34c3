"""The Traffic of an agent as the registry tells it, made what the gateway's calls go by."""

from __future__ import annotations

from collections.abc import Collection

from weft.gateway.dataplane.traffic import USUAL, Balancing, Fault, Outliers, Traffic
from weft.rpc.status import BY_NUMBER
from weft.v1 import agent_pb2, traffic_pb2

_UNAVAILABLE = 14
_BALANCING = {
    traffic_pb2.BALANCING_RING_HASH: Balancing.RING_HASH,
    traffic_pb2.BALANCING_WEIGHTED_ROUND_ROBIN: Balancing.WEIGHTED,
}


def traffic_of(
    agent: agent_pb2.Agent, in_service: Collection[agent_pb2.Instance], zone: str
) -> Traffic:
    """How calls of an agent are spread.

    Args:
        agent: as the registry tells it.
        in_service: those of its instances that take calls.
        zone: where this gateway runs; empty: unknown.
    """
    if not agent.HasField("traffic"):
        return USUAL
    said = agent.traffic
    prefers = said.zones == traffic_pb2.ZONE_POLICY_PREFER and zone != ""
    return Traffic(
        shares=_shares(said, {each.subset for each in in_service}),
        subsets={each.address: each.subset for each in in_service} if said.subsets else {},
        zones={each.address: each.zone for each in in_service} if prefers else {},
        zone=zone if prefers else "",
        balancing=_BALANCING.get(said.balancing, Balancing.ROUND_ROBIN),
        header=said.hash_header if said.balancing == traffic_pb2.BALANCING_RING_HASH else "",
        outliers=_outliers(said.outliers),
        retries=said.retries if said.HasField("retries") else None,
        fault=_fault(said.fault) if said.HasField("fault") else None,
    )


def _shares(said: traffic_pb2.Traffic, populated: Collection[str]) -> dict[str, int]:
    percents = {each.name: each.percent for each in said.subsets}
    percents[""] = 100 - sum(percents.values())
    return {name: part for name, part in percents.items() if part and name in populated} or {"": 1}


def _outliers(said: traffic_pb2.Outliers) -> Outliers | None:
    if said.off:
        return None
    usual = Outliers()
    return Outliers(
        failures=said.failure_percent / 100 or usual.failures,
        ejection=said.ejection.ToTimedelta().total_seconds() or usual.ejection,
        ejected=said.max_ejected_percent / 100 or usual.ejected,
    )


def _fault(said: traffic_pb2.Fault) -> Fault:
    return Fault(
        abort=said.abort_percent / 100,
        code=BY_NUMBER[said.abort_code or _UNAVAILABLE],
        delay=said.delay_percent / 100,
        seconds=said.delay.ToTimedelta().total_seconds(),
        header=said.header,
        value=said.header_value,
        ends=said.expire_time.ToNanoseconds() / 1e9,
    )
