"""The rules of weft/v1/traffic.proto, and how a Traffic is changed field by field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from google.protobuf.duration_pb2 import Duration

from weft import rpc
from weft.registry import labels
from weft.registry.fields import few, take
from weft.registry.versions import Range
from weft.v1 import lifecycle_pb2, traffic_pb2

Traffic = traffic_pb2.Traffic
Violations = Iterator[tuple[str, str]]

_FIELDS = tuple(field.name for field in Traffic.DESCRIPTOR.fields)
_ENUMS: Mapping[str, Any] = MappingProxyType(
    {"zones": traffic_pb2.ZonePolicy, "balancing": traffic_pb2.Balancing}
)
_NAME = re.compile(r"[a-z0-9-]{1,32}")
_HEADER = re.compile(r"[a-z0-9_.-]{1,100}")
_RESERVED = ("grpc-", "weft-")
_MAX_SUBSETS = 10
_MAX_SELECTOR, _MAX_RANGE, _MAX_VALUE = 500, 100, 200
_MAX_RETRIES = 4
_ALL = 100
_CODES = range(17)  # google.rpc.Code; 0 stands for UNAVAILABLE
_EJECTION = (timedelta(milliseconds=100), timedelta(minutes=5))
_DELAY = (timedelta(milliseconds=1), timedelta(minutes=1))
_LONGEST_DRILL = timedelta(days=1)


def given(traffic: Traffic) -> Violations:
    """Violations of what an operator says."""
    yield from _subsets(traffic.subsets)
    for field, kind in _ENUMS.items():
        if getattr(traffic, field) not in kind.values():
            yield f"traffic.{field}", f"is none of {', '.join(kind.keys())}"
    if traffic.hash_header:
        yield from _header("traffic.hash_header", traffic.hash_header)
    if traffic.retries > _MAX_RETRIES:
        yield "traffic.retries", f"must be at most {_MAX_RETRIES}"
    if traffic.HasField("outliers"):
        yield from _outliers(traffic.outliers)
    if traffic.HasField("fault"):
        yield from _fault(traffic.fault)


def whole(traffic: Traffic) -> Violations:
    """Violations of what is in force together."""
    if traffic.balancing == traffic_pb2.BALANCING_RING_HASH and not traffic.hash_header:
        yield "traffic.hash_header", "must be set with RING_HASH: it names the metadata to go by"


def paths(mask: Sequence[str]) -> Violations:
    """Violations of a field mask."""
    yield from few(mask)
    for position, path in enumerate(mask):
        if path not in _FIELDS:
            yield f"update_paths[{position}]", f"is none of {', '.join(_FIELDS)}"


def put(control: lifecycle_pb2.Control, said: Traffic, mask: Sequence[str]) -> bool:
    """Sets fields; whether that changes anything.

    Raises:
        rpc.InvalidArgument: the fields do not fit those that are in force.
    """
    before = Traffic()
    before.CopyFrom(control.traffic)
    own = Traffic()
    own.CopyFrom(control.traffic)
    for name in mask or [descriptor.name for descriptor, _ in said.ListFields()]:
        take(own, said, name)
    if violations := list(whole(own)):
        raise rpc.InvalidArgument(violations=violations)
    if own.ListFields():
        control.traffic.CopyFrom(own)
    else:
        control.ClearField("traffic")
    return own != before


def _subsets(subsets: Sequence[traffic_pb2.Subset]) -> Violations:
    if len(subsets) > _MAX_SUBSETS:
        yield "traffic.subsets", f"takes at most {_MAX_SUBSETS} subsets"
    if sum(subset.percent for subset in subsets) > _ALL:
        yield "traffic.subsets", "have more than 100 percent of the calls"
    names = set[str]()
    for position, subset in enumerate(subsets):
        path = f"traffic.subsets[{position}]"
        if not _NAME.fullmatch(subset.name):
            yield f"{path}.name", "must be 1 to 32 of a-z, 0-9 and hyphen"
        if subset.name in names:
            yield f"{path}.name", "comes twice"
        names.add(subset.name)
        yield from _matched(path, subset)


def _matched(path: str, subset: traffic_pb2.Subset) -> Violations:
    selector, versions = subset.selector.strip(), subset.versions.strip()
    if not selector and not versions:
        yield path, "matches every instance: give a selector or a range of versions"
    if len(selector) > _MAX_SELECTOR:
        yield f"{path}.selector", f"must be at most {_MAX_SELECTOR} characters"
    elif selector:
        try:
            labels.parse(selector)
        except ValueError as wrong:
            yield f"{path}.selector", str(wrong)
    if len(versions) > _MAX_RANGE:
        yield f"{path}.versions", f"must be at most {_MAX_RANGE} characters"
    elif versions:
        try:
            Range(versions)
        except ValueError as wrong:
            yield f"{path}.versions", str(wrong)


def _outliers(outliers: traffic_pb2.Outliers) -> Violations:
    for field in ("failure_percent", "max_ejected_percent"):
        if getattr(outliers, field) > _ALL:
            yield f"traffic.outliers.{field}", "must be 1 to 100"
    if outliers.HasField("ejection") and not _within(outliers.ejection, _EJECTION):
        yield "traffic.outliers.ejection", "must be 100 ms to 5 min"


def _fault(fault: traffic_pb2.Fault) -> Violations:
    for field in ("abort_percent", "delay_percent"):
        if getattr(fault, field) > _ALL:
            yield f"traffic.fault.{field}", "must be 0 to 100"
    if not fault.abort_percent and not fault.delay_percent:
        yield "traffic.fault", "does nothing: give abort_percent or delay_percent"
    if fault.abort_code not in _CODES:
        yield "traffic.fault.abort_code", "is no value of google.rpc.Code"
    if fault.delay_percent and not _within(fault.delay, _DELAY):
        yield "traffic.fault.delay", "must be 1 ms to 1 min"
    if fault.header:
        yield from _header("traffic.fault.header", fault.header)
    elif fault.header_value:
        yield "traffic.fault.header", "must be set with header_value"
    if len(fault.header_value) > _MAX_VALUE or not fault.header_value.isprintable():
        yield "traffic.fault.header_value", f"must be at most {_MAX_VALUE} printable characters"
    yield from _expiry(fault)


def _expiry(fault: traffic_pb2.Fault) -> Violations:
    path = "traffic.fault.expire_time"
    if not fault.HasField("expire_time"):
        yield path, "must be set: a drill ends by itself"
        return
    try:
        left = fault.expire_time.ToDatetime(UTC) - datetime.now(UTC)
    except (OverflowError, ValueError):
        yield path, "is no time"
        return
    if not timedelta(0) < left <= _LONGEST_DRILL + timedelta(minutes=1):  # clocks differ
        yield path, "must be ahead, by at most a day"


def _header(path: str, name: str) -> Violations:
    if not _HEADER.fullmatch(name) or name.startswith(_RESERVED) or name.endswith("-bin"):
        yield path, "must be metadata of your own, in lower case, such as x-session"


def _within(span: Duration, bounds: tuple[timedelta, timedelta]) -> bool:
    try:
        return bounds[0] <= span.ToTimedelta() <= bounds[1]
    except (OverflowError, ValueError):
        return False
