"""The routes of an edge: by gRPC path to the agent that has the method, by the routes of its contract through the transcoder.

A request of REST is matched twice: by what came, which chooses the contracts that it is read with, and then by the gRPC
path that it stands for, like any call of gRPC. What only a gateway can check goes to a gateway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf import any_pb2

from weft.registry.catalog import Method
from weft.registry.xds import faults
from weft.registry.xds.edge import answers, asked, names, paths, tokens, transcoder
from weft.registry.xds.edge.options import EdgeOptions
from weft.registry.xds.resources import ROUTES, action_to, encode, packed, retry_policy
from weft.v1 import traffic_pb2
from weft.xds.v1 import edge_pb2
from weft.xds.v1 import resources_pb2 as pb

_CORS = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy"
_FILTER_OF_ROUTE = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
_PREVIOUS = (
    "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
)
_DEFAULT_TIMEOUT = timedelta(seconds=30)  # what SkillOptions.default_timeout says of itself
_GRPC = "application/grpc"
# For the gateway, or for nobody: never for an agent.
_NOT_SENT_ON = ("authorization", "cookie", "x-api-key", "proxy-authorization")
_NOT_SHOWN = ("server", "endpoint-load-metrics-bin", "x-envoy-upstream-service-time")
# Whatever a method does: such a call never reached its agent.
_NEVER_REACHED = "connect-failure,refused-stream"
_HOSTS = 5  # tries to find an instance that was not tried
_BAD_REQUEST, _FORBIDDEN, _NOT_FOUND = 400, 403, 404


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What the routes of an agent are made of.

    Attributes:
        name: of the agent.
        contracts: methods of its services, and the descriptor sets that define them.
        traffic: how its calls find an instance.
        clusters: weights of its clusters by name.
        drill: that runs.
    """

    name: str
    contracts: Sequence[tuple[Sequence[Method], bytes]]
    traffic: traffic_pb2.Traffic
    clusters: Mapping[str, int]
    drill: traffic_pb2.Fault | None


@dataclass(frozen=True, slots=True)
class Made:
    """Encoded routes, with the rank in which they are tried."""

    rank: int
    agent: str
    route: bytes


def _closed(method: Method, options: EdgeOptions) -> bool:
    """Whether only a gateway may let callers to a method."""
    skill = method.skill
    return bool(
        skill.required_scopes
        or skill.needs_approval
        or skill.as_job
        or skill.limits
        or options.guards(method.path[1:])
    )


def of_agent(agent: Agent, options: EdgeOptions, taken: set[str]) -> Iterator[Made]:
    """The routes of an agent.

    Args:
        agent: whose.
        options: of the edge.
        taken: paths of methods that other agents have; those of this one are added.
    """
    for methods, descriptor_set in agent.contracts:
        mine = [method for method in methods if method.path not in taken]
        taken.update(method.path for method in mine)
        for method in mine:
            for route in _by_grpc(agent, method, options, closed=_closed(method, options)):
                yield Made(0, agent.name, route.SerializeToString(deterministic=True))
        yield from _by_rest(agent, mine, descriptor_set, options)


def _by_grpc(
    agent: Agent, method: Method, options: EdgeOptions, *, closed: bool
) -> Iterator[pb.Route]:
    match = pb.RouteMatch(path=method.path, headers=[_framed()])
    if closed:
        pure = pb.RouteMatch(path=method.path, headers=[asked.grpc()])
        yield _elsewhere(pure, options, grpc=True)
        yield _elsewhere(match, options, grpc=False)
        return
    action = action_to(agent.clusters, agent.traffic)
    action.timeout.FromTimedelta(timedelta(0))
    limits = action.max_stream_duration
    timeout = _DEFAULT_TIMEOUT
    if method.skill.default_timeout.ToTimedelta() > timedelta(0):
        timeout = method.skill.default_timeout.ToTimedelta()
    limits.max_stream_duration.FromTimedelta(timeout)
    limits.grpc_timeout_header_max.FromTimedelta(options.max_timeout)
    retry = retry_policy(agent.traffic)
    if retry is not None:
        when = _NEVER_REACHED + (",unavailable,reset" if method.retryable else "")
        action.retry_policy.CopyFrom(_at_another(retry, when))
    route = pb.Route(match=match, route=action, request_headers_to_remove=_NOT_SENT_ON)
    yield from [route] if agent.drill is None else faults.with_fault_at_edge(route, agent.drill)


def _at_another(retry: pb.RetryPolicy, when: str) -> pb.RetryPolicy:
    """Second attempts, by Envoy's words for when, at servers that were not tried."""
    retry.retry_on = when
    retry.retry_host_predicate.add(
        name="previous-hosts", typed_config=packed(_PREVIOUS, pb.PreviousHosts())
    )
    retry.host_selection_retry_max_attempts = _HOSTS
    return retry


def _by_rest(
    agent: Agent,
    methods: Sequence[Method],
    descriptor_set: bytes,
    options: EdgeOptions,
) -> Iterator[Made]:
    """Routes of a contract, as few as can be: each that is served here has a copy of the contract."""
    services = sorted({method.path[1:].rpartition("/")[0] for method in methods})
    contract = transcoder.pruned(descriptor_set, services)
    groups: dict[tuple[int, bool, bool, str], list[str]] = {}
    for method in methods:
        for verb, template in method.bindings:
            served = (method.path, verb, template) in contract.bindings
            closed = _closed(method, options) or not served
            key = (paths.rank(template), closed, method.streams, verb)
            groups.setdefault(key, []).append(paths.pattern(template))
    configured = transcoder.transcoder(contract, services, options.max_body)
    for (rank, closed, streams, verb), patterns in sorted(groups.items()):
        match = pb.RouteMatch(safe_regex=pb.RegexMatcher(regex="|".join(sorted(set(patterns)))))
        if verb != "*":
            exact = pb.StringMatcher(exact=verb)
            match.headers.add(name=":method", string_match=exact)
        if streams and options.gateway and not closed:
            other = pb.RouteMatch()
            other.CopyFrom(match)
            other.headers.append(asked.in_another_form())
            route = _elsewhere(other, options, grpc=False)
            yield Made(1 + rank, agent.name, route.SerializeToString(deterministic=True))
        if closed:
            route = _elsewhere(match, options, grpc=False)
        else:
            # Nothing goes there: what is transcoded is matched again, what cannot be is refused. But filters before
            # pass over routes that lead nowhere.
            route = pb.Route(match=match, route=action_to(agent.clusters, agent.traffic))
            route.typed_per_filter_config[transcoder.FILTER].CopyFrom(configured)
            route.typed_per_filter_config[answers.FILTER].CopyFrom(answers.here())
        yield Made(1 + rank, agent.name, route.SerializeToString(deterministic=True))


def whole(name: str, made: Iterable[Made], options: EdgeOptions, *, asks: bool) -> bytes:
    """All routes of an edge.

    Args:
        name: of the resource.
        made: those of agents.
        options: of the edge.
        asks: whether callers need a token.
    """
    host = edge_pb2.EdgeHost(name="agents", domains=["*"])
    for match, grpc in asked.without_sense():
        if options.gateway and not grpc:
            route = _elsewhere(match, options, grpc=False)  # which names what is wrong
        else:
            route = _refused(match, _BAD_REQUEST, "grpc-timeout: give a number and one of HMSmun.")
        host.routes.append(route.SerializeToString(deterministic=True))
    for match, grpc in asked.of_a_gateway(has_one=bool(options.gateway)):
        route = _elsewhere(match, options, grpc=grpc)
        host.routes.append(route.SerializeToString(deterministic=True))
    host.routes.extend(
        each.route for each in sorted(made, key=lambda each: (each.rank, each.agent))
    )
    if options.origins:
        host.routes.append(_preflight(options).SerializeToString(deterministic=True))
    for match, grpc in (
        (pb.RouteMatch(prefix="/", headers=[asked.grpc()]), True),
        (pb.RouteMatch(prefix="/"), False),
    ):
        if options.gateway or name == names.CLOSED:
            route = _elsewhere(match, options, grpc=grpc)
        else:
            route = _refused(
                match, _NOT_FOUND, "There is no such route. `weft agents` lists agents."
            )
        if asks:
            route.typed_per_filter_config[tokens.FILTER].CopyFrom(tokens.none_needed())
        host.routes.append(route.SerializeToString(deterministic=True))
    if options.origins:
        host.typed_per_filter_config[names.CORS].CopyFrom(_cors(options))
    return encode(
        ROUTES,
        edge_pb2.EdgeRoutes(name=name, virtual_hosts=[host], response_headers_to_remove=_NOT_SHOWN),
    )


def _elsewhere(match: pb.RouteMatch, options: EdgeOptions, *, grpc: bool) -> pb.Route:
    """To a gateway, which asks all that is to be asked; refused where there is none."""
    if not options.gateway:
        return _refused(
            match,
            _FORBIDDEN,
            "Only a gateway can let you call this, and this edge has none: set WEFT_EDGE_GATEWAY.",
        )
    action = pb.RouteAction(cluster=names.GATEWAY_GRPC if grpc else names.GATEWAY)
    action.timeout.FromTimedelta(timedelta(0))
    again = retry_policy(traffic_pb2.Traffic())
    if again is not None:
        action.retry_policy.CopyFrom(_at_another(again, _NEVER_REACHED))
    route = pb.Route(match=match, route=action)
    if not grpc:  # it has a door for gRPC-Web
        off = packed(_FILTER_OF_ROUTE, edge_pb2.FilterOfRoute(disabled=True))
        route.typed_per_filter_config[names.WEB].CopyFrom(off)
    if options.tokens is not None:
        route.typed_per_filter_config[tokens.FILTER].CopyFrom(tokens.none_needed())
    return route


def _preflight(options: EdgeOptions) -> pb.Route:
    """What a browser asks before a page of another origin calls: the filter answers it, but to origins that may not."""
    match = pb.RouteMatch(prefix="/")
    match.headers.add(name=":method", string_match=pb.StringMatcher(exact="OPTIONS"))
    match.headers.add(name="access-control-request-method", present_match=True)
    return pb.Route(
        match=match,
        route=pb.RouteAction(cluster=names.GATEWAY if options.gateway else names.NOWHERE),
    )


def _refused(match: pb.RouteMatch, status: int, text: str) -> pb.Route:
    answer = pb.DirectResponse(status=status, body=pb.DataSource(inline_string=text))
    return pb.Route(match=match, direct_response=answer)


def _framed() -> pb.HeaderMatcher:
    """Whether a caller speaks gRPC or gRPC-Web."""
    return pb.HeaderMatcher(name="content-type", string_match=pb.StringMatcher(prefix=_GRPC))


def _cors(options: EdgeOptions) -> any_pb2.Any:
    made = edge_pb2.CorsPolicy(
        allow_methods="GET, HEAD, POST, PUT, PATCH, DELETE",
        allow_headers="*" if not options.credentials else "authorization, content-type, x-grpc-web",
        expose_headers="grpc-status, grpc-message, grpc-status-details-bin",
        max_age="7200",
    )
    for origin in options.origins:
        matcher = made.allow_origin_string_match.add()
        if origin == "*":
            matcher.safe_regex.regex = ".*"
        else:
            matcher.exact = origin
    made.allow_credentials.value = options.credentials
    return packed(_CORS, made)
