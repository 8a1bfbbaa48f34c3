"""How a gRPC client finds the registry: the xDS bootstrap (gRFC A27)."""

from __future__ import annotations

import json

BOOTSTRAP_VARIABLE = "GRPC_XDS_BOOTSTRAP_CONFIG"


def xds_bootstrap(registry: str, node_id: str = "weft") -> str:
    """The bootstrap document for a registry at "host:port", for any gRPC client in any language."""
    return json.dumps(
        {
            "xds_servers": [
                {
                    "server_uri": registry,
                    "channel_creds": [{"type": "insecure"}],
                    "server_features": ["xds_v3", "ignore_resource_deletion"],
                }
            ],
            "node": {"id": node_id},
        }
    )
