"""How a gRPC client finds the registry: the xDS bootstrap (gRFC A27)."""

from __future__ import annotations

import json
import os

from weft.rpc.addresses import Addresses

BOOTSTRAP_VARIABLE = "GRPC_XDS_BOOTSTRAP_CONFIG"


def xds_bootstrap(registry: str, node_id: str = "weft", zone: str = "") -> str:
    """The bootstrap document for any gRPC client in any language.

    Args:
        registry: "host:port". Of several, joined by commas, C-core goes on to the next when one is gone (Python, C++, Ruby,
            PHP); Go and Java take no list of addresses: give them one name that has them all.
        node_id: how the client calls itself.
        zone: failure domain it runs in; calls stay there where operators say so. Empty: unknown.
    """
    # Node.js takes no node without a locality.
    node = {"id": node_id, "locality": {"zone": zone} if zone else {}}
    return json.dumps(
        {
            "xds_servers": [
                {
                    "server_uri": Addresses(registry).target,
                    "channel_creds": [{"type": "insecure"}],
                    "server_features": ["xds_v3", "ignore_resource_deletion"],
                }
            ],
            "node": node,
        }
    )


def use_registry(registry: str, node_id: str = "weft", zone: str = "") -> None:
    """Makes this process resolve `xds:///` at a registry, or one of several joined by commas; call it before the first such channel is made.

    The gRPC core takes its bootstrap from the environment and from nowhere else.
    """
    os.environ[BOOTSTRAP_VARIABLE] = xds_bootstrap(registry, node_id, zone)
