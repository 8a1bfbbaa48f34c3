"""Clusters of an edge beside those of agents: gateways, and where the keys of tokens come from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from weft.mtls import part_at
from weft.registry.xds.edge import encryption, names, tokens
from weft.registry.xds.edge.node import EdgeNode
from weft.registry.xds.edge.options import EdgeOptions, place
from weft.registry.xds.resources import CLUSTER, CONNECT, encode, speaking_http2
from weft.xds.v1 import resources_pb2 as pb

_MANY = 1_000_000
_READY = "/readyz"
_ASKED, _PATIENCE = timedelta(seconds=2), timedelta(seconds=2)
_BAD, _GOOD = 2, 1


def clusters(options: EdgeOptions) -> Iterator[pb.Cluster]:
    """All there are."""
    if options.gateway:
        http = _cluster(names.GATEWAY, *place(options.gateway))
        _ask(http).http_health_check.path = _READY
        yield http
        grpc = _cluster(names.GATEWAY_GRPC, *place(options.gateway_grpc))
        asking = _ask(grpc)
        asking.grpc_health_check.SetInParent()
        asking.tls_options.alpn_protocols.append("h2")  # servers of gRPC talk to nobody else
        speaking_http2(grpc)
        yield grpc
    if options.tokens is not None and tokens.by_url(options.tokens):
        keys = _cluster(names.KEYS, *tokens.host_of(options.tokens))
        encrypted = tokens.encryption(options.tokens)
        if encrypted is not None:
            keys.transport_socket.CopyFrom(encrypted)
        yield keys


def encoded(cluster: pb.Cluster, options: EdgeOptions, node: EdgeNode, trust_domain: str) -> bytes:
    """A cluster as an edge is sent it: what goes to a gateway of the mesh is encrypted by the edge's own certificate."""
    if not options.encrypts or cluster.name not in {names.GATEWAY, names.GATEWAY_GRPC}:
        return encode(CLUSTER, cluster)
    socket = cluster.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address
    made = pb.Cluster()
    made.CopyFrom(cluster)
    encrypted = encryption.to_part(node, part_at(socket.address, trust_domain, "gateway"))
    if encrypted is not None:
        made.transport_socket.CopyFrom(encrypted)
    return encode(CLUSTER, made)


def _ask(cluster: pb.Cluster) -> pb.HealthCheck:
    """Has gateways asked how they are: one that is not well gets no calls, the others by how many they have."""
    cluster.lb_policy = pb.LB_POLICY_LEAST_REQUEST
    check = cluster.health_checks.add()
    check.timeout.FromTimedelta(_PATIENCE)
    check.interval.FromTimedelta(_ASKED)
    check.no_traffic_interval.FromTimedelta(_ASKED)
    check.unhealthy_threshold.value, check.healthy_threshold.value = _BAD, _GOOD
    return check


def _cluster(name: str, host: str, port: int) -> pb.Cluster:
    made = pb.Cluster(name=name, type=pb.DISCOVERY_TYPE_STRICT_DNS)
    made.connect_timeout.FromTimedelta(CONNECT)
    made.load_assignment.cluster_name = name
    socket = made.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    socket.address, socket.port_value = host, port
    limits = made.circuit_breakers.thresholds.add()
    for each in (limits.max_connections, limits.max_pending_requests, limits.max_requests):
        each.value = _MANY
    return made
