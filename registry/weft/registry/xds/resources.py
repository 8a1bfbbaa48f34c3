"""The xDS resources of an agent, built and encoded once for all clients.

The resources of an agent have its name; clusters and endpoints of a subset of its instances have that of the agent, a
slash, and their own. Existence lives in the endpoints only: listener, route and cluster are answered for every name, so
that nothing a client holds is ever "deleted", an agent without instances fails at once, and a new one is a push of
endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from google.protobuf import any_pb2
from google.protobuf.message import Message

from weft.mtls import PROVIDER
from weft.registry.xds import faults
from weft.registry.xds.edge.options import Breaker
from weft.v1 import traffic_pb2
from weft.xds.v1 import resources_pb2 as pb

PREFIX = "type.googleapis.com/envoy."
LISTENER = PREFIX + "config.listener.v3.Listener"
ROUTES = PREFIX + "config.route.v3.RouteConfiguration"
CLUSTER = PREFIX + "config.cluster.v3.Cluster"
ENDPOINTS = PREFIX + "config.endpoint.v3.ClusterLoadAssignment"
_HTTP = PREFIX + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_TLS = PREFIX + "extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_ROUTER = PREFIX + "extensions.filters.http.router.v3.Router"
_BALANCING = PREFIX + "extensions.load_balancing_policies."
_WRR_LOCALITY = _BALANCING + "wrr_locality.v3.WrrLocality"
_WEIGHTED = _BALANCING + "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
_ROUND_ROBIN = _BALANCING + "round_robin.v3.RoundRobin"

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# The default is 1,024 open calls per client and cluster, above which calls fail; long streams count.
_MAX_REQUESTS = 4_000_000_000
_RETRIES = 3
_RETRY_BASE = timedelta(milliseconds=25)
_RETRY_MAX = timedelta(milliseconds=250)
_JUDGED = timedelta(seconds=1)  # how often callers judge instances
_VOLUME = 5  # calls in that time below which they do not
_FAILURES, _EJECTED = 50, 50  # percent
_EJECTION, _LONGEST_EJECTION = timedelta(seconds=5), timedelta(minutes=5)
_RING = 1_024
CONNECT = timedelta(seconds=1)  # how long an Envoy tries to connect
_WEIGHED = timedelta(
    seconds=1
)  # how often weights are worked out, and how long a report is waited for
_STALE = timedelta(seconds=30)
_RETRIED = 50  # percent of an Envoy's open calls that may be second attempts
_LEAST_RETRIED = 64  # that may be, whatever the percentage

Place = tuple[str, str]  # address "IP:port", zone


def listener(name: str, drill: traffic_pb2.Fault | None = None) -> bytes:
    """The listener: says where the routes are, and lets them have faults while there is a drill."""
    filters = [pb.HttpFilter(name="router", typed_config=packed(_ROUTER, pb.Router()))]
    if drill is not None:
        filters.insert(0, pb.HttpFilter(name=faults.FILTER, typed_config=faults.none()))
    http = pb.HttpConnectionManager(
        rds=pb.Rds(config_source=ads(), route_config_name=name), http_filters=filters
    )
    return encode(
        LISTENER,
        pb.Listener(name=name, api_listener=pb.ApiListener(api_listener=packed(_HTTP, http))),
    )


def routes(
    name: str,
    retryable: Iterable[str],
    traffic: traffic_pb2.Traffic,
    clusters: Mapping[str, int],
    drill: traffic_pb2.Fault | None = None,
) -> bytes:
    """The routes: all to the agent's clusters, those of methods that may run twice with retries.

    Args:
        name: of the agent.
        retryable: paths of methods that may run twice.
        traffic: says how often, and what is hashed.
        clusters: weights by name.
        drill: that runs.
    """
    host = pb.VirtualHost(name=name, domains=["*"])
    retry = retry_policy(traffic)
    if retry is not None:
        for path in sorted(set(retryable)):
            action = action_to(clusters, traffic)
            action.retry_policy.CopyFrom(retry)
            host.routes.append(pb.Route(match=pb.RouteMatch(path=path), route=action))
    everything = pb.Route(match=pb.RouteMatch(prefix=""), route=action_to(clusters, traffic))
    host.routes.append(everything)
    if drill is not None:
        drilled = [each for route in host.routes for each in faults.with_fault(route, drill)]
        del host.routes[:]
        host.routes.extend(drilled)
    return encode(ROUTES, pb.RouteConfiguration(name=name, virtual_hosts=[host]))


def cluster(
    name: str,
    traffic: traffic_pb2.Traffic,
    ids: Iterable[str] = (),
    *,
    envoy: bool = False,
    breaker: Breaker | None = None,
    encrypted: pb.TransportSocket | None = None,
) -> bytes:
    """The cluster: how calls are spread over endpoints that come by EDS.

    Args:
        name: of the agent, or of a subset of it.
        traffic: says how.
        ids: SPIFFE ids of which its servers must show one; none: connections are not encrypted.
        envoy: whether it is for an Envoy, which has to be told that agents speak HTTP/2, and more of its limits.
        breaker: of an edge: where operators say nothing, it judges instances by this.
        encrypted: how an edge connects; None: its connections are not encrypted.
    """
    made = _cluster(name, traffic)
    if envoy:
        speaking_http2(made)
        made.connect_timeout.FromTimedelta(CONNECT)
        for limits in made.circuit_breakers.thresholds:
            limits.max_connections.value = limits.max_pending_requests.value = _MAX_REQUESTS
            limits.retry_budget.budget_percent.value = _RETRIED
            limits.retry_budget.min_retry_concurrency.value = _LEAST_RETRIED
    if breaker is not None and not traffic.outliers.off:
        _break(made, traffic.outliers, breaker)
    if not envoy and (expected := sorted(set(ids))):
        made.transport_socket.CopyFrom(_mutual(expected))
    elif encrypted is not None:
        made.transport_socket.CopyFrom(encrypted)
    return encode(CLUSTER, made)


def speaking_http2(made: pb.Cluster) -> None:
    """Tells Envoy that endpoints speak HTTP/2, as gRPC does.

    Headers are sent in full: gRPC's core remembers by connection that one could not be read, and would go on to refuse
    others of that name, of callers who have done nothing wrong (`grpc-timeout: 5`, `x-a-bin: %`).
    """
    options = pb.HttpProtocolOptions()
    options.explicit_http_config.http2_protocol_options.hpack_table_size.value = 0
    made.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(
        packed(f"type.googleapis.com/{_HTTP_OPTIONS}", options)
    )


def _break(made: pb.Cluster, outliers: traffic_pb2.Outliers, breaker: Breaker) -> None:
    """As a circuit breaker: the last instance too is left alone, and calls then fail at once."""
    judged = made.outlier_detection
    judged.interval.FromTimedelta(breaker.window)
    judged.failure_percentage_request_volume.value = breaker.volume
    judged.failure_percentage_minimum_hosts.value = 1
    if not outliers.failure_percent:
        judged.failure_percentage_threshold.value = round(100 * breaker.ratio)
    if not outliers.HasField("ejection"):
        judged.base_ejection_time.FromTimedelta(breaker.open_for)
    if not outliers.max_ejected_percent:
        judged.max_ejection_percent.value = 100
    made.common_lb_config.healthy_panic_threshold.SetInParent()


def _cluster(name: str, traffic: traffic_pb2.Traffic) -> pb.Cluster:
    limits = pb.Thresholds()
    limits.max_requests.value = traffic.max_requests or _MAX_REQUESTS
    made = pb.Cluster(
        name=name,
        type=pb.DISCOVERY_TYPE_EDS,
        eds_cluster_config=pb.EdsClusterConfig(eds_config=ads(), service_name=name),
        circuit_breakers=pb.CircuitBreakers(thresholds=[limits]),
    )
    if not traffic.outliers.off:
        made.outlier_detection.CopyFrom(_outlier_detection(traffic.outliers))
    if traffic.balancing == traffic_pb2.BALANCING_RING_HASH:
        made.lb_policy = pb.LB_POLICY_RING_HASH
        made.ring_hash_lb_config.minimum_ring_size.value = _RING
    elif traffic.balancing == traffic_pb2.BALANCING_WEIGHTED_ROUND_ROBIN:
        made.load_balancing_policy.CopyFrom(_weighted())
    return made


def _mutual(ids: Iterable[str]) -> pb.TransportSocket:
    """MTLS by the certificates that the client's bootstrap names (gRFC A29). Envoy knows no such providers."""
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
        typed_config=packed(_TLS, pb.UpstreamTlsContext(common_tls_context=context)),
    )


def endpoints(name: str, places: Sequence[Place], traffic: traffic_pb2.Traffic, zone: str) -> bytes:
    """The endpoints; none: calls fail at once with UNAVAILABLE.

    Args:
        name: of the cluster.
        places: of instances.
        traffic: says what zones mean.
        zone: of the client.
    """
    assignment = pb.ClusterLoadAssignment(cluster_name=name)
    once = dict(places)  # a client refuses an address that comes twice
    preferred = traffic.zones == traffic_pb2.ZONE_POLICY_PREFER and zone in once.values()
    # Where weights of places and of endpoints are multiplied, as by ring hash, zones of unequal size would be unequal.
    together = traffic.balancing == traffic_pb2.BALANCING_RING_HASH
    by_place: dict[tuple[int, str], list[str]] = {}
    for address, of in once.items():
        priority = int(preferred and of != zone)
        by_place.setdefault((priority, "" if together else of), []).append(address)
    for (priority, of), addresses in sorted(by_place.items()):
        place = assignment.endpoints.add(
            locality=pb.Locality(region="weft", zone=of), priority=priority
        )
        place.load_balancing_weight.value = len(
            addresses
        )  # without weight it is skipped in silence
        for address in addresses:
            host, _, port = address.rpartition(":")
            socket = pb.SocketAddress(address=host.strip("[]"), port_value=int(port))
            place.lb_endpoints.add(
                endpoint=pb.Endpoint(address=pb.Address(socket_address=socket)),
                health_status=pb.HEALTH_STATUS_HEALTHY,
            )
    return encode(ENDPOINTS, assignment)


def action_to(clusters: Mapping[str, int], traffic: traffic_pb2.Traffic) -> pb.RouteAction:
    """Where calls go, by weight."""
    action = pb.RouteAction()
    if len(clusters) == 1:
        (action.cluster,) = clusters
    else:
        for name, weight in sorted(clusters.items()):
            action.weighted_clusters.clusters.add(name=name).weight.value = weight
    if traffic.balancing == traffic_pb2.BALANCING_RING_HASH:
        action.hash_policy.add(header=pb.HashedHeader(header_name=traffic.hash_header))
    return action


def retry_policy(traffic: traffic_pb2.Traffic) -> pb.RetryPolicy | None:
    """Second attempts of methods that may run twice; None: there are none."""
    retries = traffic.retries if traffic.HasField("retries") else _RETRIES
    if not retries:
        return None
    retry = pb.RetryPolicy(retry_on="unavailable", retry_back_off=pb.RetryBackOff())
    retry.num_retries.value = retries
    retry.retry_back_off.base_interval.FromTimedelta(_RETRY_BASE)
    retry.retry_back_off.max_interval.FromTimedelta(_RETRY_MAX)
    return retry


def _outlier_detection(outliers: traffic_pb2.Outliers) -> pb.OutlierDetection:
    """By failure percentage alone, which works with two instances; all else off."""
    made = pb.OutlierDetection()
    made.interval.FromTimedelta(_JUDGED)
    ejection = outliers.ejection.ToTimedelta() if outliers.HasField("ejection") else _EJECTION
    made.base_ejection_time.FromTimedelta(ejection)
    made.max_ejection_time.FromTimedelta(_LONGEST_EJECTION)
    made.max_ejection_percent.value = outliers.max_ejected_percent or _EJECTED
    made.enforcing_consecutive_5xx.value = 0
    made.enforcing_success_rate.value = 0
    made.failure_percentage_threshold.value = outliers.failure_percent or _FAILURES
    made.enforcing_failure_percentage.value = 100
    made.failure_percentage_minimum_hosts.value = 2
    made.failure_percentage_request_volume.value = _VOLUME
    return made


def _weighted() -> pb.LoadBalancingPolicy:
    """By what endpoints report, for clients that know it; else in turn."""
    weighted = pb.ClientSideWeightedRoundRobin()
    weighted.blackout_period.FromTimedelta(_WEIGHED)
    weighted.weight_expiration_period.FromTimedelta(_STALE)
    weighted.weight_update_period.FromTimedelta(_WEIGHED)
    picking = _policies({_WEIGHTED: weighted, _ROUND_ROBIN: pb.RoundRobin()})
    return _policies({_WRR_LOCALITY: pb.WrrLocality(endpoint_picking_policy=picking)})


def _policies(by_type: Mapping[str, Message]) -> pb.LoadBalancingPolicy:
    return pb.LoadBalancingPolicy(
        policies=[
            pb.LoadBalancer(
                typed_extension_config=pb.TypedExtension(
                    name=type_url.rpartition(".")[2], typed_config=packed(type_url, message)
                )
            )
            for type_url, message in by_type.items()
        ]
    )


def ads() -> pb.ConfigSource:
    """A resource that comes on the stream that names it."""
    return pb.ConfigSource(ads=pb.AggregatedConfigSource(), resource_api_version=pb.API_VERSION_V3)


def packed(type_url: str, message: Message) -> any_pb2.Any:
    """A message under the name that others know it by. Equal contents give equal bytes."""
    return any_pb2.Any(type_url=type_url, value=message.SerializeToString(deterministic=True))


def encode(type_url: str, message: Message) -> bytes:
    """A resource, as it is sent."""
    return packed(type_url, message).SerializeToString(deterministic=True)
