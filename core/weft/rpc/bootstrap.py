"""How a gRPC client finds the registry: the xDS bootstrap (gRFC A27)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from weft.rpc.addresses import Addresses

if TYPE_CHECKING:
    from weft.mtls import Credentials

BOOTSTRAP_VARIABLE = "GRPC_XDS_BOOTSTRAP_CONFIG"


def xds_bootstrap(
    registry: str, node_id: str = "weft", zone: str = "", *, mtls: Credentials | None = None
) -> str:
    """The bootstrap document for any gRPC client in any language.

    Args:
        registry: "host:port". Of several, joined by commas, C-core goes on to the next when one is gone (Python, C++, Ruby,
            PHP); Go and Java take no list of addresses: give them one name that has them all. With mTLS each is a server
            of its own in the document, since no certificate is of a list: a client asks the next for what it does not
            have when the first is gone (gRFC A71), and otherwise waits until that is back.
        node_id: how the client calls itself.
        zone: failure domain it runs in; calls stay there where operators say so. Empty: unknown.
        mtls: what it shows to registry and agents; None: connections are not encrypted.
    """
    addresses = Addresses(registry)
    creds: dict[str, Any] = {"type": "insecure"}
    targets = [addresses.target]
    if mtls is not None:
        creds = {"type": "tls", "config": mtls.bootstrap_files()}
        targets = list(addresses)
    document: dict[str, Any] = {
        "xds_servers": [
            {
                "server_uri": target,
                "channel_creds": [creds],
                "server_features": ["xds_v3", "ignore_resource_deletion"],
            }
            for target in targets
        ],
        # Node.js takes no node without a locality.
        "node": {"id": node_id, "locality": {"zone": zone} if zone else {}},
    }
    if mtls is not None:
        document["certificate_providers"] = mtls.bootstrap()
    return json.dumps(document)


def use_registry(
    registry: str, node_id: str = "weft", zone: str = "", *, mtls: Credentials | None = None
) -> None:
    """Makes this process resolve `xds:///` at a registry, or one of several joined by commas; call it before the first such channel is made.

    The gRPC core takes its bootstrap from the environment and from nowhere else.
    """
    os.environ[BOOTSTRAP_VARIABLE] = xds_bootstrap(registry, node_id, zone, mtls=mtls)
