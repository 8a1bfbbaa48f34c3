"""All that edges are sent, made of the index and kept until it changes."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from weft.registry.catalog import Catalog, Method
from weft.registry.index import Index
from weft.registry.xds import resources
from weft.registry.xds.edge import clusters, names, routes
from weft.registry.xds.edge.listener import listener
from weft.registry.xds.edge.node import EdgeNode
from weft.registry.xds.edge.options import EdgeOptions


class Front:
    """What an edge is sent beside the clusters and endpoints of agents.

    Args:
        options: how edges let callers in.
        index: who is there.
        sets: their contracts.
        trust_domain: of the mesh, where connections are encrypted.

    Raises:
        ValueError: connections to gateways shall be encrypted, and nothing else in the mesh is.
    """

    def __init__(
        self, options: EdgeOptions, index: Index, sets: Catalog, trust_domain: str = ""
    ) -> None:
        if options.encrypts and not trust_domain:
            raise ValueError(
                "edges can reach a gateway by https:// only in a mesh with mTLS, for they show certificates of it"
            )
        self.options = options
        self._trust_domain = trust_domain
        self._index = index
        self._sets = sets
        self._clusters = {each.name: each for each in clusters.clusters(options)}
        self._made: dict[str, tuple[object, tuple[routes.Made, ...], frozenset[str]]] = {}
        self._routes: bytes | None = None

    @property
    def names(self) -> AbstractSet[str]:
        """Names of its clusters."""
        return self._clusters.keys()

    def closed(self, node: EdgeNode) -> bool:
        """Whether an edge may let callers to a gateway only."""
        access = self.options.access
        return access == "gateway" or (access == "auto" and not node.loopback)

    def changed(self) -> None:
        """An agent changed: routes are looked at again when somebody asks for them."""
        self._routes = None

    def get(self, type_url: str, name: str, node: EdgeNode) -> bytes | None:
        """A resource; None: there is none."""
        asks = self.options.access == "tokens"
        if type_url == resources.CLUSTER:
            found = self._clusters.get(name)
            if found is None:
                return None
            return clusters.encoded(found, self.options, node, self._trust_domain)
        if type_url == resources.LISTENER and name == names.LISTENER:
            of = names.CLOSED if self.closed(node) else names.ROUTES
            return listener(self.options, node, of, asks=asks)
        if type_url == resources.ROUTES and name == names.CLOSED:
            return routes.whole(name, (), self.options, asks=False)
        if type_url == resources.ROUTES and name == names.ROUTES:
            if self._routes is None:
                self._routes = routes.whole(name, self._of_agents(), self.options, asks=asks)
            return self._routes
        return None

    def _of_agents(self) -> list[routes.Made]:
        """Routes of all agents. Where two have the same method the first by name is called."""
        taken: set[str] = set()
        found: list[routes.Made] = []
        for name in self._index.names():
            agent = self._agent(name)
            key = (
                agent.contracts,
                agent.traffic.SerializeToString(deterministic=True),
                sorted(agent.clusters.items()),
                agent.drill is not None,
            )
            mine = {method.path for methods, _ in agent.contracts for method in methods}
            known = self._made.get(name)
            if known is None or known[0] != key or known[2] != mine & taken:
                lost = frozenset(mine & taken)
                made = tuple(routes.of_agent(agent, self.options, set(taken)))
                known = self._made[name] = (key, made, lost)
            taken |= mine
            found += known[1]
        return found

    def _agent(self, name: str) -> routes.Agent:
        policy = self._index.policy(name)
        shares = policy.shares({each.subset for each in self._index.in_service(name)})
        return routes.Agent(
            name=name,
            contracts=self._contracts(name),
            traffic=policy.traffic,
            clusters={f"{name}/{subset}" if subset else name: n for subset, n in shares.items()},
            drill=policy.drill(),
        )

    def _contracts(self, name: str) -> list[tuple[tuple[Method, ...], bytes]]:
        known = self._index.agent(name)
        found = []
        for ref in () if known is None else known.services:
            service = self._sets.service(ref)
            content = self._sets.get(ref.descriptor_digest)
            if service is not None and content is not None:
                found.append((service.methods, content))
        return found
