"""An Envoy that says it is an edge, by `node.metadata` of its bootstrap: {"role": "edge", "listen": "IP:port"}."""

from __future__ import annotations

import ipaddress
import logging
from typing import NamedTuple

from weft.xds.v1 import discovery_pb2 as pb

log = logging.getLogger("weft.registry")

_ROLE = "edge"


class EdgeNode(NamedTuple):
    """What an edge says of itself.

    Attributes:
        host: IP address it listens on.
        port: and the port.
        door: file, on its machine, with the secret by which it shows callers a certificate (SDS); empty: what they send
            is not encrypted.
        certificate: the same for its certificate in the mesh; empty: it has none.
        roots: file with the secret by which it believes others of the mesh.
    """

    host: str
    port: int
    door: str = ""
    certificate: str = ""
    roots: str = ""

    @property
    def loopback(self) -> bool:
        """Whether only its own machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback


def read(node: pb.Node) -> EdgeNode | None:
    """What a node says of itself; None: it is no edge, or says where it listens in a way that nobody can read."""
    told = {
        name: value.string_value
        for name, value in node.metadata.fields.items()
        if value.HasField("string_value")
    }
    if told.get("role") != _ROLE:
        return None
    host, _, port = told.get("listen", "").rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        log.warning(
            "an edge does not say where to listen: node.metadata.listen must be IP:port",
            extra={"node": node.id},
        )
        return None
    return EdgeNode(
        str(address),
        number,
        door=told.get("door_certificate", ""),
        certificate=told.get("mesh_certificate", ""),
        roots=told.get("mesh_roots", ""),
    )
