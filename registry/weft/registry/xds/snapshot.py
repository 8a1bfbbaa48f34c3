"""The resources of all agents as of now, each built once per change and shared by all streams."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from weft.registry.catalog import Catalog
from weft.registry.index import Index
from weft.registry.xds import resources

# Types in the order in which they are pushed: a cluster before what points at it.
TYPES = (resources.CLUSTER, resources.ENDPOINTS, resources.LISTENER, resources.ROUTES)


class Snapshot:
    """Encoded resources by type and name.

    Args:
        index: who is there.
        sets: which methods may be retried.
        own_id: SPIFFE id of the registry itself, where connections are encrypted.
    """

    def __init__(self, index: Index, sets: Catalog, own_id: str = "") -> None:
        self._own_id = own_id
        self._index = index
        self._sets = sets
        self._built: dict[tuple[str, str], bytes] = {}
        self._cold = True
        self._sinks: dict[tuple[str, str], bytes] = {}

    def warm_up(self) -> None:
        """Ends the cold start: from here on a name that is not in the index is unknown."""
        self._cold = False

    def invalidate(self, agent: str) -> None:
        """Forgets what depends on an agent's state; it is built again when asked for."""
        self._built.pop((resources.CLUSTER, agent), None)
        self._built.pop((resources.ENDPOINTS, agent), None)
        self._built.pop((resources.ROUTES, agent), None)

    def get(self, type_url: str, name: str, sink: str) -> bytes | None:
        """A resource; None: say nothing about it yet.

        Args:
            type_url: one of TYPES.
            name: of the agent.
            sink: address "IP:port" where calls to unknown agents are answered.
        """
        if type_url == resources.ENDPOINTS and name not in self._index:
            if self._cold:
                return None  # perhaps it registers in a moment: a client keeps the endpoints it has
            key = (name, sink)
            if key not in self._sinks:
                self._sinks[key] = resources.endpoints(name, [sink])
            return self._sinks[key]
        built = self._built.get((type_url, name))
        if built is None:
            built = self._built[type_url, name] = self._build(type_url, name)
        return built

    def _ids(self, name: str) -> Iterable[str]:
        """Who may answer for an agent: its instances, and the registry, which does for agents that are unknown."""
        if not self._own_id:
            return ()
        agent = self._index.agent(name)
        found = () if agent is None else agent.instances
        return {self._own_id, *filter(None, (instance.spiffe_id for instance in found))}

    def _build(self, type_url: str, name: str) -> bytes:
        if type_url == resources.LISTENER:
            return resources.listener(name)
        if type_url == resources.CLUSTER:
            return resources.cluster(name, self._ids(name))
        if type_url == resources.ROUTES:
            agent = self._index.agent(name)
            return resources.routes(
                name, () if agent is None else self._sets.retryable(agent.services)
            )
        return resources.endpoints(name, [i.address for i in self._index.answering(name)])

    def forget(self, name: str) -> None:
        """Drops what was built for a name that no client asks for any more."""
        for type_url in TYPES:
            self._built.pop((type_url, name), None)
        for key in [key for key in self._sinks if key[0] == name]:
            del self._sinks[key]


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
