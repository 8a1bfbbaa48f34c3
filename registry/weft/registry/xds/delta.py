"""One type of resource on one incremental ADS stream, as Envoy speaks it. No input or output."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from weft.registry.xds.subscription import ALL, COMPLETE, Catalogue, Get, Rejected
from weft.xds.v1 import discovery_pb2 as pb


class DeltaSubscription:
    """Follows the incremental variant of the xDS transport protocol.

    Attributes:
        names: resources the client is subscribed to by name.
        everything: whether it is subscribed to all there are.
        sent: names of what the last response held.
    """

    def __init__(self, type_url: str) -> None:
        self.names: frozenset[str] = frozenset()
        self.everything = False
        self.sent: list[str] = []
        self._type_url = type_url
        self._nonce = 0
        self._first = True
        self._owed = False  # an answer, be it empty: the client waits for it
        self._known: dict[str, str] = {}  # versions the client has, by name
        self._unanswered: dict[str, list[str]] = {}  # names by nonce

    def take(self, request: pb.DeltaDiscoveryRequest) -> Rejected | None:
        """Takes a request: changes of the subscription, an ACK or a NACK; what was rejected, if it is a NACK.

        A rejected resource is not sent again before it changes: the client keeps the one it had.
        """
        wanted = {name for name in request.resource_names_subscribe if name}
        if self._first and not wanted and self._type_url in COMPLETE:
            wanted = {ALL}
        if ALL in wanted and not self.everything:
            self.everything = self._owed = True
        for name in (*wanted, *request.resource_names_unsubscribe):
            self._known.pop(name, None)  # a name that is subscribed again is sent again
        if self._first:
            self._known.update(request.initial_resource_versions)
        self._first = False
        if ALL in request.resource_names_unsubscribe:
            self.everything = False
        gone = set(request.resource_names_unsubscribe)
        self.names = frozenset((self.names | wanted) - gone - {ALL})
        answered = self._unanswered.pop(request.response_nonce, [])
        if request.HasField("error_detail"):
            return Rejected(answered, request.error_detail.message)
        return None

    def respond(
        self, get: Get, catalogue: Catalogue, among: Collection[str] | None = None
    ) -> pb.DeltaDiscoveryResponse | None:
        """What brings the client up to date; None: it is, or nothing may be said yet.

        Versions are made of contents, so that all replicas of the registry give the same contents the same version.

        Args:
            get: finds a resource by type and name.
            catalogue: names of all there are of a type; None: not known yet.
            among: names that may have changed; None: any may.
        """
        wanted, gone = self.names, list[str]()
        if self.everything:
            all_there_is = catalogue(self._type_url)
            if all_there_is is None:
                return None
            wanted |= all_there_is
            gone = sorted(self._known.keys() - wanted)
            among = None if self._owed else among
        response = pb.DeltaDiscoveryResponse(type_url=self._type_url, removed_resources=gone)
        changed = []
        for name in sorted(wanted if among is None else wanted.intersection(among)):
            found = get(self._type_url, name)
            if found is None:
                continue
            version = hashlib.blake2b(found, digest_size=8).hexdigest()
            if self._known.get(name) != version:
                self._known[name] = version
                changed.append(name)
                resource = pb.Resource(name=name, version=version, resource=found)
                response.resources.append(resource.SerializeToString())
        if not (changed or gone or self._owed):
            return None
        for name in gone:
            del self._known[name]
        self._owed = False
        self._nonce += 1
        response.nonce = f"{self._type_url.rpartition('.')[2]} {self._nonce}"
        self._unanswered[response.nonce] = self.sent = changed
        return response

    def again(self, names: Collection[str]) -> None:
        """The next response holds these as if the client did not have them."""
        for name in names:
            self._known.pop(name, None)
