"""How a gRPC client finds the registry: the xDS bootstrap (gRFC A27)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weft.mtls import Credentials

BOOTSTRAP_VARIABLE = "GRPC_XDS_BOOTSTRAP_CONFIG"


def xds_bootstrap(registry: str, node_id: str = "weft", *, mtls: Credentials | None = None) -> str:
    """The bootstrap document for a registry at "host:port", for any gRPC client in any language.

    Args:
        registry: where.
        node_id: how the client is called in the registry's log.
        mtls: what it shows to registry and agents; None: connections are not encrypted.
    """
    creds: dict[str, Any] = {"type": "insecure"}
    if mtls is not None:
        creds = {"type": "tls", "config": mtls.bootstrap_files()}
    document: dict[str, Any] = {
        "xds_servers": [
            {
                "server_uri": registry,
                "channel_creds": [creds],
                "server_features": ["xds_v3", "ignore_resource_deletion"],
            }
        ],
        "node": {"id": node_id},
    }
    if mtls is not None:
        document["certificate_providers"] = mtls.bootstrap()
    return json.dumps(document)


def use_registry(registry: str, node_id: str = "weft", *, mtls: Credentials | None = None) -> None:
    """Makes this process resolve `xds:///` at a registry; call it before the first such channel is made.

    The gRPC core takes its bootstrap from the environment and from nowhere else.
    """
    os.environ[BOOTSTRAP_VARIABLE] = xds_bootstrap(registry, node_id, mtls=mtls)
