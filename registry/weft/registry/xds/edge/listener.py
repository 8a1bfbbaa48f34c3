"""The listener of an edge: filters of HTTP in the order in which calls pass them."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf import wrappers_pb2
from google.protobuf.message import Message

from weft.registry.xds import faults
from weft.registry.xds.edge import answers, encryption, names, refusals, tokens, transcoder
from weft.registry.xds.edge.node import EdgeNode
from weft.registry.xds.edge.options import EdgeOptions, Rate
from weft.registry.xds.resources import LISTENER, ads, encode, packed
from weft.xds.v1 import edge_pb2 as pb
from weft.xds.v1 import resources_pb2

_EXTENSIONS = "type.googleapis.com/envoy.extensions."
_HTTP = _EXTENSIONS + "filters.network.http_connection_manager.v3.HttpConnectionManager"
_FILTERS = _EXTENSIONS + "filters.http."
_STDOUT = _EXTENSIONS + "access_loggers.stream.v3.StdoutAccessLog"
_HEAD = timedelta(seconds=10)  # how long the head of a request may take
_IDLE = timedelta(minutes=15)
_STREAMS = 1_000  # of one connection
_BUFFER = 1024 * 1024  # bytes
_LEAST_FILL = 0.05  # seconds; Envoy's own
_OWN = "weft-"  # start of the names of headers by which parts of a mesh speak to each other
_LINE = {
    "time": "%START_TIME%",
    "service": "edge",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "grpc": "%GRPC_STATUS%",
    "why": "%RESPONSE_CODE_DETAILS%",
    "milliseconds": "%DURATION%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "instance": "%UPSTREAM_HOST%",
    "caller": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "trace": "%REQ(TRACEPARENT)%",
}


def listener(options: EdgeOptions, node: EdgeNode, routes: str, *, asks: bool) -> bytes:
    """The listener of an edge.

    Args:
        options: how callers are let in.
        node: where it listens.
        routes: name of its routes.
        asks: whether callers need a token.
    """
    yes = wrappers_pb2.BoolValue(value=True)
    http = pb.EdgeHttp(
        stat_prefix="edge",
        rds=resources_pb2.Rds(config_source=ads(), route_config_name=routes),
        http_filters=list(_filters(options, asks=asks)),
        use_remote_address=yes,
        normalize_path=yes,
        path_with_escaped_slashes_action=pb.ESCAPED_SLASHES_KEEP_UNCHANGED,
        server_header_transformation=pb.SERVER_HEADER_PASS_THROUGH,
        common_http_protocol_options=pb.EdgeHttpOptions(
            headers_with_underscores_action=pb.UNDERSCORES_REJECT_REQUEST
        ),
        upgrade_configs=[pb.Upgrade(upgrade_type="websocket")],
        local_reply_config=refusals.replies(),
        access_log=[_log()],
    )
    http.http2_protocol_options.max_concurrent_streams.value = _STREAMS
    http.request_headers_timeout.FromTimedelta(_HEAD)
    http.stream_idle_timeout.FromTimedelta(_IDLE)
    made = pb.EdgeListener(name=names.LISTENER)
    made.address.socket_address.address = node.host
    made.address.socket_address.port_value = node.port
    made.per_connection_buffer_limit_bytes.value = _BUFFER
    chain = made.filter_chains.add()
    chain.filters.add(name="http", typed_config=packed(_HTTP, http))
    encrypted = encryption.of_door(node)
    if encrypted is not None:
        chain.transport_socket.CopyFrom(encrypted)
    return encode(LISTENER, made)


def _filters(options: EdgeOptions, *, asks: bool) -> list[resources_pb2.HttpFilter]:
    found = []
    if options.origins:
        found.append(_filter(names.CORS, "cors.v3.Cors", pb.CorsFilter()))
    if options.rate is not None:
        found.append(_filter("rate", "local_ratelimit.v3.LocalRateLimit", _rate(options.rate)))
    if asks and options.tokens is not None:
        found.append(
            resources_pb2.HttpFilter(
                name=tokens.FILTER, typed_config=tokens.authentication(options.tokens)
            )
        )
    found.append(_filter("own-headers", "header_mutation.v3.HeaderMutation", _own_headers()))
    found.append(_filter(names.WEB, "grpc_web.v3.GrpcWeb", pb.GrpcWeb()))
    found.append(
        resources_pb2.HttpFilter(name=answers.FILTER, typed_config=answers.rest(), disabled=True)
    )
    found.append(
        resources_pb2.HttpFilter(
            name=transcoder.FILTER, typed_config=transcoder.none(), disabled=True
        )
    )
    found.append(resources_pb2.HttpFilter(name=faults.FILTER, typed_config=faults.none()))
    router = resources_pb2.Router(suppress_envoy_headers=True)
    found.append(_filter("router", "router.v3.Router", router))
    return found


def _filter(name: str, kind: str, message: Message) -> resources_pb2.HttpFilter:
    return resources_pb2.HttpFilter(name=name, typed_config=packed(_FILTERS + kind, message))


def _own_headers() -> pb.HeaderMutation:
    """No caller forges what parts of a mesh tell each other, such as who calls."""
    drop = pb.Mutation()
    drop.remove_on_match.key_matcher.prefix = _OWN
    return pb.HeaderMutation(
        mutations=pb.Mutations(request_mutations=[drop], response_mutations=[drop])
    )


def _rate(rate: Rate) -> pb.LocalRateLimit:
    interval = max(_LEAST_FILL, 1 / rate.per_second)
    filled = max(1, round(rate.per_second * interval))
    made = pb.LocalRateLimit(stat_prefix="edge", rate_limited_as_resource_exhausted=True)
    made.token_bucket.max_tokens = max(rate.burst, filled)
    made.token_bucket.tokens_per_fill.value = filled
    made.token_bucket.fill_interval.FromTimedelta(timedelta(seconds=interval))
    for share in (made.filter_enabled, made.filter_enforced):
        share.default_value.numerator = 100
        share.runtime_key = "weft.never"
    return made


def _log() -> pb.AccessLog:
    line = pb.Format()
    line.json_format.CopyFrom(refusals.as_struct(_LINE))
    form = pb.StdoutAccessLog(log_format=line)
    return pb.AccessLog(name="stdout", typed_config=packed(_STDOUT, form))
