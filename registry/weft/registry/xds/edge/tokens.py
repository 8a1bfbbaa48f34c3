"""Tokens that callers bring, checked by Envoy (JWT), and the cluster that the issuer's keys come from."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

from google.protobuf import any_pb2

from weft.registry.xds.edge import names
from weft.registry.xds.edge.options import Tokens
from weft.registry.xds.resources import packed
from weft.xds.v1 import edge_pb2 as pb
from weft.xds.v1 import resources_pb2

FILTER = "tokens"
_TYPE = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3."
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_ISSUER = "issuer"
_FETCH = timedelta(seconds=5)
_FRESH = timedelta(minutes=5)
_AGAIN = timedelta(seconds=1)
_DNS = 2  # of SubjectAltNameMatcher.SanType


def authentication(tokens: Tokens) -> any_pb2.Any:
    """The filter: every call needs a token, but where a route says otherwise."""
    provider = pb.JwtProvider(
        issuer=tokens.issuer,
        audiences=tokens.audiences,
        clock_skew_seconds=int(tokens.leeway.total_seconds()),
        require_expiration=True,
    )
    if by_url(tokens):
        remote = provider.remote_jwks
        remote.http_uri.uri, remote.http_uri.cluster = tokens.keys, names.KEYS
        remote.http_uri.timeout.FromTimedelta(_FETCH)
        remote.cache_duration.FromTimedelta(_FRESH)
        remote.async_fetch.failed_refetch_duration.FromTimedelta(_AGAIN)
    else:
        provider.local_jwks.inline_string = tokens.keys
    made = pb.JwtAuthentication(bypass_cors_preflight=True)
    made.providers[_ISSUER].CopyFrom(provider)
    rule = made.rules.add()
    rule.match.prefix = "/"
    rule.requires.provider_name = _ISSUER
    return packed(_TYPE + "JwtAuthentication", made)


def none_needed() -> any_pb2.Any:
    """The filter of a route whose calls need no token, or have it checked elsewhere."""
    return packed(_TYPE + "PerRouteConfig", pb.JwtOfRoute(disabled=True))


def by_url(tokens: Tokens) -> bool:
    """Whether the issuer's keys are fetched."""
    return tokens.keys.startswith(("http://", "https://"))


def host_of(tokens: Tokens) -> tuple[str, int]:
    """Where the issuer's keys are fetched from: host and port."""
    url = urlsplit(tokens.keys)
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


def encryption(tokens: Tokens) -> resources_pb2.TransportSocket | None:
    """How the connection to the issuer is encrypted; None: it is not."""
    if not tokens.keys.startswith("https://"):
        return None
    host, _ = host_of(tokens)
    made = pb.UpstreamTls(sni=host)
    checked = made.common_tls_context.validation_context
    checked.system_root_certs.SetInParent()
    name = checked.match_typed_subject_alt_names.add(san_type=_DNS)
    name.matcher.exact = host
    return resources_pb2.TransportSocket(name="tls", typed_config=packed(_TLS, made))
