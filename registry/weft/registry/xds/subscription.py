"""One type of resource on one ADS stream: the client's subscription and what it was sent. No input or output."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from weft.registry.xds import resources
from weft.xds.v1 import discovery_pb2 as pb

# State of the world: a response of these types names everything that exists, so it must be complete.
_COMPLETE = frozenset((resources.LISTENER, resources.CLUSTER))


class Rejected(NamedTuple):
    """What a client refused."""

    names: Sequence[str]
    reason: str


class Subscription:
    """Follows gRPC's reading of the xDS transport protocol (gRFC A27).

    Attributes:
        names: resources the client is subscribed to.
    """

    def __init__(self, type_url: str) -> None:
        self.names: frozenset[str] = frozenset()
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
        for gone in self.names - names:
            self._sent.pop(gone, None)  # a name that is subscribed again is sent again
        self.names = names
        if request.HasField("error_detail"):
            return Rejected(sorted(names), request.error_detail.message)
        return None

    def respond(
        self,
        get: Callable[[str, str], bytes | None],
        among: Collection[str] | None = None,
    ) -> pb.DiscoveryResponse | None:
        """The response that brings the client up to date; None: it is.

        Its version is made of what it holds, so that all replicas of the registry give the same contents the same version.

        Args:
            get: finds a resource by type and name.
            among: names that may have changed; None: any may.
        """
        fresh: dict[str, bytes] = {}
        for name in sorted(self.names if among is None else self.names.intersection(among)):
            found = get(self._type_url, name)
            if found is not None and self._sent.get(name) != found:
                fresh[name] = found
        if not fresh:
            return None
        self._sent |= fresh
        self._nonce += 1
        sent = self._whole() if self._type_url in _COMPLETE else list(fresh.values())
        return pb.DiscoveryResponse(
            version_info=hashlib.blake2b(b"".join(sent), digest_size=8).hexdigest(),
            type_url=self._type_url,
            nonce=str(self._nonce),
            resources=sent,
        )

    def _whole(self) -> list[bytes]:
        return [self._sent[name] for name in sorted(self.names)]
