"""How an edge encrypts: by secrets in files on its own machine, which it follows (SDS), so that a renewed certificate is taken."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from weft.registry.xds.edge.node import EdgeNode
from weft.registry.xds.resources import packed
from weft.xds.v1 import edge_pb2 as pb
from weft.xds.v1 import resources_pb2

_CONTEXTS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_DNS, _URI = 2, 3  # of SubjectAltNameMatcher.SanType
_TLS_1_2, _TLS_1_3 = 3, 4  # of TlsParameters.TlsProtocol


def of_door(node: EdgeNode) -> resources_pb2.TransportSocket | None:
    """How connections of callers are encrypted; None: they are not."""
    if not node.door:
        return None
    made = pb.DownstreamTls(common_tls_context=pb.CommonTls(tls_params=_versions()))
    made.common_tls_context.alpn_protocols.extend(("h2", "http/1.1"))
    made.common_tls_context.tls_certificate_sds_secret_configs.append(_secret(node.door))
    return _socket("DownstreamTlsContext", made)


def to_agents(node: EdgeNode, ids: Iterable[str]) -> resources_pb2.TransportSocket | None:
    """How connections to agents are encrypted; None: they are not.

    Args:
        node: the edge.
        ids: SPIFFE ids of which a server must show one.
    """
    return _to(node, [_name(_URI, each) for each in sorted(set(ids))])


def to_part(node: EdgeNode, name: str) -> resources_pb2.TransportSocket | None:
    """How connections to a part are encrypted, which must show a DNS name; None: they are not."""
    return _to(node, [_name(_DNS, name)])


def _to(node: EdgeNode, names: Iterable[pb.SubjectAltName]) -> resources_pb2.TransportSocket | None:
    if not (node.certificate and node.roots):
        return None
    made = pb.UpstreamTls(common_tls_context=pb.CommonTls(tls_params=_versions()))
    context = made.common_tls_context
    context.tls_certificate_sds_secret_configs.append(_secret(node.certificate))
    believed = context.combined_validation_context
    believed.default_validation_context.match_typed_subject_alt_names.extend(names)
    believed.validation_context_sds_secret_config.CopyFrom(_secret(node.roots))
    return _socket("UpstreamTlsContext", made)


def _name(kind: int, text: str) -> pb.SubjectAltName:
    return pb.SubjectAltName(san_type=kind, matcher=resources_pb2.StringMatcher(exact=text))


def _secret(path: str) -> pb.SecretConfig:
    """A secret in a file, which is named like the file."""
    made = pb.SecretConfig(name=PurePosixPath(path).stem)
    made.sds_config.path_config_source.path = path
    made.sds_config.resource_api_version = resources_pb2.API_VERSION_V3
    return made


def _versions() -> pb.TlsVersions:
    return pb.TlsVersions(
        tls_minimum_protocol_version=_TLS_1_2, tls_maximum_protocol_version=_TLS_1_3
    )


def _socket(kind: str, context: pb.UpstreamTls | pb.DownstreamTls) -> resources_pb2.TransportSocket:
    return resources_pb2.TransportSocket(name="tls", typed_config=packed(_CONTEXTS + kind, context))
