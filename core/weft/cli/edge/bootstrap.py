"""What an Envoy at the edge is started with: where the registries are, and where it shall listen."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_REGISTRY = "registry"
# The routes of a contract are one pattern, and Envoy takes none that is longer than this; its default is 100.
_PATTERNS = {f"re2.max_program_size.{level}": 100_000 for level in ("error_level", "warn_level")}


def bootstrap(
    registries: Sequence[str],
    *,
    listen: str,
    admin: str,
    node: str = "edge",
    zone: str = "",
    certificate: str = "",
    key: str = "",
) -> dict[str, Any]:
    """Envoy's bootstrap, as JSON has it.

    Args:
        registries: "host:port" of the replicas of the registry.
        listen: "IP:port" to listen on.
        admin: "IP:port" of Envoy's own pages, which nobody else must reach.
        node: what the edge is called in the registry's logs.
        zone: where it runs.
        certificate: file with the certificate that callers are shown, where Envoy runs; empty: no encryption.
        key: file with its private key.
    """
    metadata = {"role": "edge", "listen": listen}
    if certificate:
        metadata |= {"certificate": certificate, "key": key}
    by_address = all(_is_address(each.rpartition(":")[0]) for each in registries)
    endpoints = [{"endpoint": {"address": _socket(each)}} for each in registries]
    follow = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": node, "cluster": "edge", "locality": {"zone": zone}, "metadata": metadata},
        "admin": {"address": _socket(admin)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": _REGISTRY}}],
            },
            "cds_config": follow,
            "lds_config": follow,
        },
        "layered_runtime": {"layers": [{"name": "patterns", "static_layer": _PATTERNS}]},
        "static_resources": {
            "clusters": [
                {
                    "name": _REGISTRY,
                    "type": "STATIC" if by_address else "STRICT_DNS",
                    "connect_timeout": "1s",
                    "load_assignment": {
                        "cluster_name": _REGISTRY,
                        "endpoints": [{"lb_endpoints": endpoints}],
                    },
                    "typed_extension_protocol_options": {
                        _HTTP: {
                            "@type": f"type.googleapis.com/{_HTTP}",
                            "explicit_http_config": {
                                "http2_protocol_options": {
                                    # A registry that hangs is found out, and another one followed.
                                    "connection_keepalive": {"interval": "5s", "timeout": "3s"}
                                }
                            },
                        }
                    },
                }
            ]
        },
    }


def _socket(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
