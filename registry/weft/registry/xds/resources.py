"""The xDS resources of an agent, built and encoded once for all clients.

All four resources of an agent have its name. Existence lives in the endpoints only: listener, route and
cluster are answered for every name, so that nothing a client holds is ever "deleted", an agent without
instances fails at once, and a new one is a push of endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from google.protobuf import any_pb2
from google.protobuf.message import Message

from weft.mtls import PROVIDER
from weft.xds.v1 import resources_pb2 as pb

_PREFIX = "type.googleapis.com/envoy."
LISTENER = _PREFIX + "config.listener.v3.Listener"
ROUTES = _PREFIX + "config.route.v3.RouteConfiguration"
CLUSTER = _PREFIX + "config.cluster.v3.Cluster"
ENDPOINTS = _PREFIX + "config.endpoint.v3.ClusterLoadAssignment"
_HTTP = _PREFIX + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_TLS = _PREFIX + "extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_ROUTER = _PREFIX + "extensions.filters.http.router.v3.Router"

# The default is 1,024 open calls per client and cluster, above which calls fail; long streams count.
_MAX_REQUESTS = 4_000_000_000
_RETRIES = 3
_RETRY_BASE = timedelta(milliseconds=25)
_RETRY_MAX = timedelta(milliseconds=250)


def listener(name: str) -> bytes:
    """The listener: says where the routes are."""
    http = pb.HttpConnectionManager(
        rds=pb.Rds(config_source=_ads(), route_config_name=name),
        http_filters=[pb.HttpFilter(name="router", typed_config=_any(_ROUTER, pb.Router()))],
    )
    return _encode(
        LISTENER,
        pb.Listener(name=name, api_listener=pb.ApiListener(api_listener=_any(_HTTP, http))),
    )


def routes(name: str, retryable: Iterable[str]) -> bytes:
    """The routes: all to the agent's cluster, those of methods that may run twice with retries."""
    retry = pb.RetryPolicy(retry_on="unavailable", retry_back_off=pb.RetryBackOff())
    retry.num_retries.value = _RETRIES
    retry.retry_back_off.base_interval.FromTimedelta(_RETRY_BASE)
    retry.retry_back_off.max_interval.FromTimedelta(_RETRY_MAX)
    host = pb.VirtualHost(name=name, domains=["*"])
    for path in sorted(set(retryable)):
        host.routes.add(
            match=pb.RouteMatch(path=path), route=pb.RouteAction(cluster=name, retry_policy=retry)
        )
    host.routes.add(match=pb.RouteMatch(prefix=""), route=pb.RouteAction(cluster=name))
    return _encode(ROUTES, pb.RouteConfiguration(name=name, virtual_hosts=[host]))


def cluster(name: str, ids: Iterable[str] = ()) -> bytes:
    """The cluster: round robin over endpoints that come by EDS.

    Args:
        name: of the agent.
        ids: SPIFFE ids of which its servers must show one; none: connections are not encrypted.
    """
    limits = pb.Thresholds()
    limits.max_requests.value = _MAX_REQUESTS
    made = pb.Cluster(
        name=name,
        type=pb.DISCOVERY_TYPE_EDS,
        eds_cluster_config=pb.EdsClusterConfig(eds_config=_ads(), service_name=name),
        circuit_breakers=pb.CircuitBreakers(thresholds=[limits]),
    )
    if expected := sorted(set(ids)):
        made.transport_socket.CopyFrom(_mutual(expected))
    return _encode(CLUSTER, made)


def _mutual(ids: Iterable[str]) -> pb.TransportSocket:
    """MTLS by the certificates that the client's bootstrap names (gRFC A29)."""
    own = pb.CertificateProviderPluginInstance(instance_name=PROVIDER)
    believed = pb.CertificateValidationContext(
        match_subject_alt_names=[pb.StringMatcher(exact=each) for each in ids],
        ca_certificate_provider_instance=own,
    )
    context = pb.CommonTlsContext(
        validation_context=believed, tls_certificate_provider_instance=own
    )
    return pb.TransportSocket(
        name="envoy.transport_sockets.tls",
        typed_config=_any(_TLS, pb.UpstreamTlsContext(common_tls_context=context)),
    )


def endpoints(name: str, addresses: Sequence[str]) -> bytes:
    """The endpoints at addresses "IP:port"; none: calls fail at once with UNAVAILABLE."""
    assignment = pb.ClusterLoadAssignment(cluster_name=name)
    if addresses:
        place = assignment.endpoints.add(locality=pb.Locality(region="weft"))
        place.load_balancing_weight.value = 1  # a place without weight is skipped in silence
        for address in dict.fromkeys(addresses):  # a client refuses an address that comes twice
            host, _, port = address.rpartition(":")
            socket = pb.SocketAddress(address=host.strip("[]"), port_value=int(port))
            place.lb_endpoints.add(
                endpoint=pb.Endpoint(address=pb.Address(socket_address=socket)),
                health_status=pb.HEALTH_STATUS_HEALTHY,
            )
    return _encode(ENDPOINTS, assignment)


def _ads() -> pb.ConfigSource:
    return pb.ConfigSource(ads=pb.AggregatedConfigSource(), resource_api_version=pb.API_VERSION_V3)


def _any(type_url: str, message: Message) -> any_pb2.Any:
    return any_pb2.Any(type_url=type_url, value=message.SerializeToString())


def _encode(type_url: str, message: Message) -> bytes:
    return _any(type_url, message).SerializeToString()
