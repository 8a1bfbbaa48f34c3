"""Faults for drills: a filter of the listener that does nothing, and what it does to the calls of a route (gRFC A33)."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from google.protobuf import any_pb2

from weft.rpc.status import BY_NUMBER, HTTP_STATUS
from weft.v1 import traffic_pb2
from weft.xds.v1 import resources_pb2 as pb

FILTER = "fault"
_FAULT = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
_TRANSCODED = "x-envoy-original-path"  # of what Envoy's transcoder has made gRPC of
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


def with_fault_at_edge(route: pb.Route, drill: traffic_pb2.Fault) -> Iterator[pb.Route]:
    """The same for an Envoy, and before it for REST: to what was no gRPC a status of gRPC would be told as a success."""
    for each in with_fault(route, drill):
        if FILTER in each.typed_per_filter_config:
            rest = pb.Route()
            rest.CopyFrom(each)
            rest.match.headers.add(name=_TRANSCODED, present_match=True)
            rest.typed_per_filter_config[FILTER].CopyFrom(_packed(_fault(drill, rest=True)))
            yield rest
        yield each


def _fault(drill: traffic_pb2.Fault, *, rest: bool = False) -> pb.HttpFault:
    fault = pb.HttpFault()
    if drill.abort_percent:
        code = drill.abort_code or _UNAVAILABLE
        if rest:
            fault.abort.http_status = HTTP_STATUS[BY_NUMBER[code]]
        else:
            fault.abort.grpc_status = code
        fault.abort.percentage.numerator = drill.abort_percent
    if drill.delay_percent:
        fault.delay.fixed_delay.CopyFrom(drill.delay)
        fault.delay.percentage.numerator = drill.delay_percent
    return fault


def _packed(fault: pb.HttpFault) -> any_pb2.Any:
    return any_pb2.Any(type_url=_FAULT, value=fault.SerializeToString(deterministic=True))
