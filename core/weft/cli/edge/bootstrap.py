"""What an Envoy at the edge is started with: where the registries are, where it shall listen, and its certificates.

Envoy follows certificates only by a file of their own each, which says where they are (SDS): those go with the bootstrap.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft import mtls

_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS = "envoy.extensions.transport_sockets.tls.v3."
_REGISTRY = "registry"
_BOOTSTRAP = "edge.json"
# The routes of a contract are one pattern, and Envoy takes none that is longer than this; its default is 100.
_PATTERNS = {f"re2.max_program_size.{level}": 100_000 for level in ("error_level", "warn_level")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What callers are shown, as PEM files where Envoy runs."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Who an edge is in a mesh with mTLS.

    Attributes:
        certificate: PEM file, where Envoy runs.
        key: its private key.
        ca: roots to believe.
        trust_domain: of the mesh.
    """

    certificate: Path
    key: Path
    ca: Path
    trust_domain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What an Envoy is started with.

    Attributes:
        bootstrap: as JSON has it.
        secrets: further documents by the name of their file, in the folder that `bootstrap` says.
    """

    bootstrap: dict[str, Any]
    secrets: Mapping[str, dict[str, Any]]

    def write(self, folder: Path) -> Path:
        """Writes all files into a folder; returns that of the bootstrap.

        Raises:
            OSError: they cannot be written.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, document in {**self.secrets, _BOOTSTRAP: self.bootstrap}.items():
            (folder / name).write_text(json.dumps(document, indent=2) + "\n")
        return folder / _BOOTSTRAP


def start(
    registries: Sequence[str],
    *,
    listen: str,
    admin: str,
    node: str = "edge",
    zone: str = "",
    folder: Path | None = None,
    door: Door | None = None,
    member: Member | None = None,
) -> Start:
    """What an Envoy is started with.

    Args:
        registries: "host:port" of the replicas of the registry.
        listen: "IP:port" to listen on.
        admin: "IP:port" of Envoy's own pages, which nobody else must reach.
        node: what the edge is called in the registry's logs.
        zone: where it runs.
        folder: where Envoy finds the secrets; needed where there are any.
        door: the certificate that callers are shown; None: connections are not encrypted.
        member: who it is in a mesh with mTLS; None: there is none.

    Raises:
        ValueError: an address cannot be read, or secrets have no folder.
    """
    metadata = {"role": "edge", "listen": listen}
    secrets: dict[str, dict[str, Any]] = {}

    def told(name: str, kind: str, content: dict[str, Any]) -> str:
        if folder is None:
            raise ValueError("certificates need a folder with files by which Envoy follows them")
        path = str(folder / f"{name}.json")
        metadata[name.replace("-", "_")] = path
        # A secret is called like its file: so the registry calls it, too.
        secret = {"@type": f"type.googleapis.com/{_TLS}Secret", "name": name, kind: content}
        secrets[f"{name}.json"] = {"resources": [secret]}
        return path

    if door is not None:
        told("door-certificate", "tls_certificate", _pair(door))
    made = _bootstrap(registries, metadata, admin=admin, node=node, zone=zone)
    if member is not None:
        certificate = told("mesh-certificate", "tls_certificate", _pair(member))
        believed = {"trusted_ca": _file(member.ca), "watched_directory": _watched(member.ca)}
        roots = told("mesh-roots", "validation_context", believed)
        (registry,) = made["static_resources"]["clusters"]
        names = {
            mtls.part_at(each.rpartition(":")[0], member.trust_domain, _REGISTRY)
            for each in registries
        }
        registry["transport_socket"] = _encrypted(certificate, roots, sorted(names))
    return Start(bootstrap=made, secrets=secrets)


def _pair(of: Door | Member) -> dict[str, Any]:
    return {
        "certificate_chain": _file(of.certificate),
        "private_key": _file(of.key),
        "watched_directory": _watched(of.certificate),
    }


def _file(path: Path) -> dict[str, str]:
    return {"filename": str(path)}


def _watched(path: Path) -> dict[str, str]:
    return {"path": str(mtls.watched(path))}


def _encrypted(certificate: str, roots: str, names: Sequence[str]) -> dict[str, Any]:
    """A connection to a server that shows one of these DNS names."""

    def secret(path: str) -> dict[str, Any]:
        source = {"path_config_source": {"path": path}, "resource_api_version": "V3"}
        return {"name": Path(path).stem, "sds_config": source}

    expected = [{"san_type": "DNS", "matcher": {"exact": each}} for each in names]
    return {
        "name": "tls",
        "typed_config": {
            "@type": f"type.googleapis.com/{_TLS}UpstreamTlsContext",
            "common_tls_context": {
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_2",
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "tls_certificate_sds_secret_configs": [secret(certificate)],
                "combined_validation_context": {
                    "default_validation_context": {"match_typed_subject_alt_names": expected},
                    "validation_context_sds_secret_config": secret(roots),
                },
            },
        },
    }


def _bootstrap(
    registries: Sequence[str], metadata: dict[str, str], *, admin: str, node: str, zone: str
) -> dict[str, Any]:
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
