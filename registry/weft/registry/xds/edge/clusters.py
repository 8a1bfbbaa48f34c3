"""Clusters of an edge beside those of agents: gateways, and where the keys of tokens come from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from weft.registry.xds.edge import names, tokens
from weft.registry.xds.edge.options import EdgeOptions
from weft.registry.xds.resources import CLUSTER, encode, speaking_http2
from weft.xds.v1 import resources_pb2 as pb

_CONNECT = timedelta(seconds=1)
_MANY = 1_000_000


def clusters(options: EdgeOptions) -> Iterator[tuple[str, bytes]]:
    """Clusters by name."""
    if options.gateway:
        yield names.GATEWAY, _encoded(_cluster(names.GATEWAY, *_split(options.gateway)))
        grpc = _cluster(names.GATEWAY_GRPC, *_split(options.gateway_grpc))
        speaking_http2(grpc)
        yield names.GATEWAY_GRPC, _encoded(grpc)
    if options.tokens is not None and tokens.by_url(options.tokens):
        keys = _cluster(names.KEYS, *tokens.host_of(options.tokens))
        encryption = tokens.encryption(options.tokens)
        if encryption is not None:
            keys.transport_socket.CopyFrom(encryption)
        yield names.KEYS, _encoded(keys)


def _cluster(name: str, host: str, port: int) -> pb.Cluster:
    made = pb.Cluster(name=name, type=pb.DISCOVERY_TYPE_STRICT_DNS)
    made.connect_timeout.FromTimedelta(_CONNECT)
    made.load_assignment.cluster_name = name
    socket = made.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    socket.address, socket.port_value = host, port
    limits = made.circuit_breakers.thresholds.add()
    for each in (limits.max_connections, limits.max_pending_requests, limits.max_requests):
        each.value = _MANY
    return made


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _encoded(cluster: pb.Cluster) -> bytes:
    return encode(CLUSTER, cluster)
