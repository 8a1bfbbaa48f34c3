"""The Traffic of an agent as people write and read it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from weft.cli import control, failures

if TYPE_CHECKING:
    from weft.v1 import traffic_pb2

_ZONES = {
    "spread": "ZONE_POLICY_SPREAD",
    "prefer": "ZONE_POLICY_PREFER",
    "": "ZONE_POLICY_UNSPECIFIED",
}
_BALANCING = {
    "round-robin": "BALANCING_ROUND_ROBIN",
    "ring-hash": "BALANCING_RING_HASH",
    "weighted": "BALANCING_WEIGHTED_ROUND_ROBIN",
    "": "BALANCING_UNSPECIFIED",
}
_NAMES = ("zones", "balancing", "header", "retries", "max-requests", "outliers")


def put(traffic: traffic_pb2.Traffic, assignment: str) -> str:
    """Sets what NAME=VALUE says; the field of Traffic that it changed.

    Raises:
        click.UsageError: it says nothing that can be set.
    """
    from weft.v1 import traffic_pb2

    name, sign, value = assignment.partition("=")
    if not sign:
        raise click.UsageError(f"{assignment!r} is not NAME=VALUE, such as zones=prefer.")
    match name:
        case "zones":
            traffic.zones = traffic_pb2.ZonePolicy.Value(_one_of(name, value, _ZONES))
            return "zones"
        case "balancing":
            traffic.balancing = traffic_pb2.Balancing.Value(_one_of(name, value, _BALANCING))
            return "balancing"
        case "header":
            traffic.hash_header = value
            return "hash_header"
        case "retries":
            traffic.ClearField("retries")
            if value:
                traffic.retries = control.whole_number(name, value)
            return "retries"
        case "max-requests":
            traffic.max_requests = control.whole_number(name, value or "0")
            return "max_requests"
        case _ if name.partition(".")[0] == "outliers":
            _put_outliers(traffic, name.partition(".")[2], value)
            return "outliers"
    hint = failures.nearest(name, _NAMES)
    raise click.UsageError(f"There is no {name!r} to set.{hint} {', '.join(_NAMES)}.")


def _put_outliers(traffic: traffic_pb2.Traffic, name: str, value: str) -> None:
    match name:
        case "" if value in {"on", "off"}:
            traffic.outliers.off = value == "off"
        case "" if not value:
            traffic.ClearField("outliers")
        case "failures":
            traffic.outliers.failure_percent = control.whole_number(name, value or "0")
        case "ejected":
            traffic.outliers.max_ejected_percent = control.whole_number(name, value or "0")
        case "ejection":
            traffic.outliers.ClearField("ejection")
            if value:
                traffic.outliers.ejection.FromTimedelta(control.duration(value))
        case _:
            raise click.UsageError(
                "outliers takes on or off; outliers.failures and outliers.ejected take percents, "
                "outliers.ejection a duration."
            )


def code(name: str) -> int:
    """The number of a status.

    Raises:
        click.UsageError: there is no such status.
    """
    import grpc

    codes = {each.name: int(each.value[0]) for each in grpc.StatusCode}
    found = codes.get(name.upper())
    if not found:
        hint = failures.nearest(name.upper(), codes)
        raise click.UsageError(f"{name!r} is no status to fail with.{hint}")
    return found


def percents(traffic: traffic_pb2.Traffic) -> Mapping[str, int]:
    """Of the calls, by subset; the rest is ''."""
    found = {each.name: each.percent for each in traffic.subsets}
    return {"": 100 - sum(found.values()), **found}


def lines(traffic: traffic_pb2.Traffic) -> Iterator[str]:
    """What is in force, for people."""
    from weft.v1 import traffic_pb2

    for subset in traffic.subsets:
        which = " and ".join(
            text
            for text in (
                f"labels {subset.selector}" if subset.selector else "",
                f"versions {subset.versions}" if subset.versions else "",
            )
            if text
        )
        yield f"{subset.percent} percent of the calls to {subset.name} ({which})"
    zones = {number: name for name, number in traffic_pb2.ZonePolicy.items()}[traffic.zones]
    yield f"zones: {_said(zones, _ZONES) or 'spread'}"
    balancing = {number: name for name, number in traffic_pb2.Balancing.items()}[traffic.balancing]
    by = f" by {traffic.hash_header}" if traffic.hash_header else ""
    yield f"balancing: {_said(balancing, _BALANCING) or 'round-robin'}{by}"
    yield f"retries: {traffic.retries if traffic.HasField('retries') else 3}"
    if traffic.max_requests:
        yield f"max-requests: {traffic.max_requests}"
    yield f"outliers: {_outliers(traffic.outliers)}"
    if traffic.HasField("fault"):
        yield f"drill: {_drill(traffic.fault)}"


def _outliers(outliers: traffic_pb2.Outliers) -> str:
    if outliers.off:
        return "off"
    seconds = outliers.ejection.ToTimedelta().total_seconds() or 5
    return (
        f"left alone for {seconds:g}s from {outliers.failure_percent or 50} percent of failures, "
        f"at most {outliers.max_ejected_percent or 50} percent of the instances"
    )


def _drill(drill: traffic_pb2.Fault) -> str:
    import grpc

    from weft.rpc.status import BY_NUMBER

    left = drill.expire_time.ToNanoseconds() / 1e9 - time.time()
    parts = []
    if drill.abort_percent:
        status = BY_NUMBER[drill.abort_code] if drill.abort_code else grpc.StatusCode.UNAVAILABLE
        parts.append(f"{drill.abort_percent} percent of the calls fail with {status.name}")
    if drill.delay_percent:
        seconds = drill.delay.ToTimedelta().total_seconds()
        parts.append(f"{drill.delay_percent} percent are held up for {seconds:g}s")
    if drill.header:
        value = f"={drill.header_value}" if drill.header_value else ""
        parts.append(f"of those with {drill.header}{value}")
    ends = f"ends in {left:.0f}s" if left > 0 else "is over"
    return f"{', '.join(parts)}; {ends}"


def _said(enum: str, table: Mapping[str, str]) -> str:
    return next(word for word, name in table.items() if name == enum)


def _one_of(name: str, value: str, table: Mapping[str, str]) -> str:
    if value not in table:
        words = ", ".join(word for word in table if word)
        raise click.UsageError(f"{name} is one of {words}, and not {value!r}.")
    return table[value]
