"""Faults for drills: a filter of the listener that does nothing, and what it does to the calls of a route (gRFC A33)."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from google.protobuf import any_pb2

from weft.v1 import traffic_pb2
from weft.xds.v1 import resources_pb2 as pb

FILTER = "fault"
_FAULT = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
_UNAVAILABLE: int = grpc.StatusCode.UNAVAILABLE.value[0]


def none() -> any_pb2.Any:
    """The filter as the listener has it."""
    return _packed(pb.HttpFault())


def with_fault(route: pb.Route, drill: traffic_pb2.Fault) -> Iterator[pb.Route]:
    """A route with a fault; and itself, where that is for calls with a header only, which gRPC's filter cannot tell."""
    drilled = pb.Route()
    drilled.CopyFrom(route)
    drilled.typed_per_filter_config[FILTER].CopyFrom(_packed(_fault(drill)))
    if drill.header:
        header = drilled.match.headers.add(name=drill.header)
        if drill.header_value:
            header.exact_match = drill.header_value
        else:
            header.present_match = True
    yield drilled
    if drill.header:
        yield route


def _fault(drill: traffic_pb2.Fault) -> pb.HttpFault:
    fault = pb.HttpFault()
    if drill.abort_percent:
        fault.abort.grpc_status = drill.abort_code or _UNAVAILABLE
        fault.abort.percentage.numerator = drill.abort_percent
    if drill.delay_percent:
        fault.delay.fixed_delay.CopyFrom(drill.delay)
        fault.delay.percentage.numerator = drill.delay_percent
    return fault


def _packed(fault: pb.HttpFault) -> any_pb2.Any:
    return any_pb2.Any(type_url=_FAULT, value=fault.SerializeToString(deterministic=True))
