"""One type of resource on one ADS stream: the client's subscription and what it was sent. No input or output."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from weft.registry.xds import resources
from weft.xds.v1 import discovery_pb2 as pb

# State of the world: a response of these types names everything that exists, so it must be complete.
COMPLETE = frozenset((resources.LISTENER, resources.CLUSTER))
ALL = "*"

Get = Callable[[str, str], bytes | None]
Catalogue = Callable[[str], AbstractSet[str] | None]


class Rejected(NamedTuple):
    """What a client refused."""

    names: Sequence[str]
    reason: str


class Subscription:
    """Follows gRPC's reading of the xDS transport protocol (gRFC A27).

    Attributes:
        names: resources the client is subscribed to.
        everything: whether that is all there are, as Envoy subscribes to listeners and clusters.
    """

    def __init__(self, type_url: str) -> None:
        self.names: frozenset[str] = frozenset()
        self.everything = False
        self._never_named = True
        self._named: frozenset[str] = frozenset()
        self._owed = False  # an answer, be it empty: the client waits for it
        self._type_url = type_url
        self._nonce = 0
        self._sent: dict[str, bytes] = {}  # what the client was last sent, by name

    def take(self, request: pb.DiscoveryRequest) -> Rejected | None:
        """Takes a request: a subscription, an ACK or a NACK; what was rejected, if it is a NACK.

        A request that answers an older response is stale: the client repeats it with the newer nonce. A rejected
        resource is not sent again before it changes: the client keeps the one it had.
        """
        if request.response_nonce and request.response_nonce != str(self._nonce):
            return None
        names = frozenset(name for name in request.resource_names if name)
        # A list that was empty from the first on stands for all there are, as "*" does at any time.
        self._never_named = self._never_named and not names
        everything = ALL in names or (self._never_named and self._type_url in COMPLETE)
        self._owed = self._owed or (everything and not self.everything)
        self.everything = everything
        names = self._named = names - {ALL}
        if everything:
            names |= self.names
        for gone in self.names - names:
            self._sent.pop(gone, None)  # a name that is subscribed again is sent again
        self.names = names
        if request.HasField("error_detail"):
            return Rejected(sorted(names), request.error_detail.message)
        return None

    def respond(
        self, get: Get, catalogue: Catalogue, among: Collection[str] | None = None
    ) -> pb.DiscoveryResponse | None:
        """The response that brings the client up to date; None: it is.

        Its version is made of what it holds, so that all replicas of the registry give the same contents the same version.

        Args:
            get: finds a resource by type and name.
            catalogue: names of all there are of a type; None: not known yet.
            among: names that may have changed; None: any may.
        """
        gone: AbstractSet[str] = frozenset()
        if self.everything:
            all_there_is = catalogue(self._type_url)
            if all_there_is is None:
                return None
            gone = self.names - all_there_is - self._named
            for name in gone:
                self._sent.pop(name, None)  # should it come back, it is sent again
            self.names = self._named.union(all_there_is)
            among = None if self._owed else among
        fresh: dict[str, bytes] = {}
        for name in sorted(self.names if among is None else self.names.intersection(among)):
            found = get(self._type_url, name)
            if found is not None and self._sent.get(name) != found:
                fresh[name] = found
        if not (fresh or gone or self._owed):
            return None
        self._owed = False
        self._sent |= fresh
        self._nonce += 1
        sent = self._whole() if self._type_url in COMPLETE else list(fresh.values())
        return pb.DiscoveryResponse(
            version_info=hashlib.blake2b(b"".join(sent), digest_size=8).hexdigest(),
            type_url=self._type_url,
            nonce=str(self._nonce),
            resources=sent,
        )

    def _whole(self) -> list[bytes]:
        return [self._sent[name] for name in sorted(self.names) if name in self._sent]
