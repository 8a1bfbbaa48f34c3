"""The resources of all agents as of now, each built once per change and shared by all streams."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from weft.mtls import SpiffeId
from weft.registry.catalog import Catalog
from weft.registry.index import IN_SERVICE, Index, Instance
from weft.registry.traffic.policy import REST
from weft.registry.xds import resources
from weft.registry.xds.edge import EdgeNode, EdgeOptions, Front, encryption, names
from weft.v1 import traffic_pb2

# Types in the order in which they are pushed: a cluster before what points at it.
TYPES = (resources.CLUSTER, resources.ENDPOINTS, resources.LISTENER, resources.ROUTES)


class Viewer(NamedTuple):
    """Who asks.

    Attributes:
        sink: address "IP:port" where calls to unknown agents are answered.
        zone: where the client runs.
        envoy: whether it is an Envoy, and not a gRPC client.
        edge: what it says of itself if it is an edge of the mesh.
    """

    sink: str = ""
    zone: str = ""
    envoy: bool = False
    edge: EdgeNode | None = None

    @property
    def kind(self) -> str:
        """Whose form of a cluster it is sent."""
        if self.edge is not None:
            return "edge"
        return "envoy" if self.envoy else ""


class Snapshot:
    """Encoded resources by type and name.

    Args:
        index: who is there.
        sets: which methods may be retried.
        edge: how edges let callers in.
        own_id: SPIFFE id of the registry, where connections are encrypted.

    Raises:
        ValueError: edges shall encrypt, and have nothing to do it by.
    """

    def __init__(self, index: Index, sets: Catalog, edge: EdgeOptions, own_id: str = "") -> None:
        self._own_id = own_id
        self._index = index
        self._sets = sets
        self._built: dict[str, dict[tuple[str, str, str, str], bytes]] = {}  # by agent
        self._cold = True
        trust_domain = SpiffeId.parse(own_id).trust_domain if own_id else ""
        self._front = Front(edge, index, sets, trust_domain)
        self._sinks: dict[str, dict[tuple[str, str], bytes]] = {}  # by agent

    def warm_up(self) -> None:
        """Ends the cold start: from here on a name that is not in the index is unknown."""
        self._cold = False

    def names(self, agent: str) -> Iterator[str]:
        """Names under which an agent has resources."""
        yield agent
        for subset in self._index.policy(agent).subsets:
            yield resource_name(agent, subset)

    def invalidate(self, agent: str) -> None:
        """Forgets what was built of an agent; it is built again when asked for."""
        self._built.pop(agent, None)
        self._front.changed()

    def get(self, type_url: str, name: str, viewer: Viewer) -> bytes | None:
        """A resource; None: say nothing about it yet.

        Args:
            type_url: one of TYPES.
            name: of the agent, or of a subset of it.
            viewer: who asks.
        """
        if type_url == resources.CLUSTER and self.bars(viewer.edge):
            return None
        if viewer.edge is not None and name.startswith(names.PREFIX):
            return None if self._cold else self._front.get(type_url, name, viewer.edge)
        agent, _, subset = name.partition("/")
        if type_url == resources.ENDPOINTS and agent not in self._index:
            if self._cold:
                return None  # perhaps it registers in a moment: a client keeps the endpoints it has
            sinks = self._sinks.setdefault(agent, {})
            key = (name, viewer.sink)
            if key not in sinks:
                nothing = traffic_pb2.Traffic()
                sinks[key] = resources.endpoints(name, [(viewer.sink, "")], nothing, "")
            return sinks[key]
        if type_url == resources.CLUSTER and viewer.edge is not None and viewer.edge.certificate:
            return self._cluster(agent, subset, viewer)  # it names files of that edge alone
        zone = viewer.zone if type_url == resources.ENDPOINTS and self._by_zone(agent) else ""
        built = self._built.setdefault(agent, {})
        kind = viewer.kind if type_url == resources.CLUSTER else ""
        found = built.get((type_url, name, zone, kind))
        if found is None:
            found = self._build(type_url, agent, subset, zone, viewer)
            built[type_url, name, zone, kind] = found
        return found

    def bars(self, edge: EdgeNode | None) -> bool:
        """Whether an edge could only send calls, and what they bring to be let in, unencrypted where all else is."""
        return bool(self._own_id) and edge is not None and not (edge.certificate and edge.roots)

    def catalogue(self, type_url: str, viewer: Viewer) -> AbstractSet[str] | None:
        """Names of all there are of a type, for clients that ask for all; None: not known before the cold start is over."""
        if self._cold:
            return None
        if type_url == resources.LISTENER and viewer.edge is not None:
            return {names.LISTENER}
        if type_url != resources.CLUSTER:
            return frozenset()
        agents = {name for agent in self._index.names() for name in self.names(agent)}
        if viewer.edge is None:
            return agents
        return self._front.names | (frozenset() if self._front.closed(viewer.edge) else agents)

    def _by_zone(self, agent: str) -> bool:
        return self._index.policy(agent).traffic.zones == traffic_pb2.ZONE_POLICY_PREFER

    def _build(self, type_url: str, agent: str, subset: str, zone: str, viewer: Viewer) -> bytes:
        policy = self._index.policy(agent)
        name = resource_name(agent, subset)
        if type_url == resources.LISTENER:
            return resources.listener(name, policy.drill())
        if type_url == resources.CLUSTER:
            return self._cluster(agent, subset, viewer)
        if type_url == resources.ROUTES:
            known = self._index.agent(agent)
            retryable = () if known is None else self._sets.retryable(known.services)
            shares = policy.shares({each.subset for each in self._index.in_service(agent)})
            clusters = {resource_name(agent, each): weight for each, weight in shares.items()}
            return resources.routes(name, retryable, policy.traffic, clusters, policy.drill())
        places = [(each.address, each.zone) for each in self._of(agent, subset)]
        return resources.endpoints(name, places, policy.traffic, zone)

    def _cluster(self, agent: str, subset: str, viewer: Viewer) -> bytes:
        traffic, ids = self._index.policy(agent).traffic, self._ids(agent)
        name, edge = resource_name(agent, subset), viewer.edge
        if edge is None:
            return resources.cluster(name, traffic, ids, envoy=viewer.envoy)
        return resources.cluster(
            name,
            traffic,
            envoy=True,
            breaker=self._front.options.breaker,
            encrypted=encryption.to_agents(edge, ids) if ids else None,
        )

    def _ids(self, name: str) -> Collection[str]:
        """Who may answer for an agent: its instances, and the registry, which does for agents that are unknown."""
        if not self._own_id:
            return ()
        agent = self._index.agent(name)
        found = () if agent is None else agent.instances
        return {self._own_id, *filter(None, (instance.spiffe_id for instance in found))}

    def _of(self, agent: str, subset: str) -> Sequence[Instance]:
        """Instances of a subset. Where there is none all of the agent: routes that avoid it come a moment later."""
        everybody = self._index.answering(agent)
        if subset == REST and not self._index.policy(agent).subsets:
            return everybody
        chosen = [each for each in everybody if each.subset == subset and each.state in IN_SERVICE]
        return chosen or everybody

    def forget(self, agent: str) -> None:
        """Drops what was built of an agent that no client asks for any more."""
        self._built.pop(agent, None)
        self._sinks.pop(agent, None)


def resource_name(agent: str, subset: str) -> str:
    """Name of the resources of an agent's subset."""
    return f"{agent}/{subset}" if subset else agent


def sink_address(bound: str, peer: str) -> str:
    """Where a client reaches this server: the address it is bound to, or that of the interface facing the client.

    Args:
        bound: "host:port" the server listens on.
        peer: the client, as gRPC names it: "ipv4:10.0.0.7:51234", "ipv6:%5B::1%5D:51234", "unix:...".
    """
    host, _, port = bound.rpartition(":")
    try:
        if not ipaddress.ip_address(host.strip("[]")).is_unspecified:
            return bound
    except ValueError:  # a host name
        pass
    local = _facing(peer) or "127.0.0.1"
    return f"[{local}]:{port}" if ":" in local else f"{local}:{port}"


def _facing(peer: str) -> str:
    """Our address on the way to a peer; empty when there is none."""
    scheme, _, rest = peer.partition(":")
    family = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}.get(scheme)
    if family is None:
        return ""
    client = rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((client, 9))  # sends nothing: only asks the kernel for a route
        except OSError:
            return ""
        return str(probe.getsockname()[0])
