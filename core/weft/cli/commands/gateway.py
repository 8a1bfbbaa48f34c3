"""`weft gateway`: one part alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weft.cli import failures, membership, part
from weft.cli.options import configured, examples

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.gateway import Gateway
    from weft.gateway.guards import BreakerSettings
    from weft.gateway.guards.tokens import TokenSettings
    from weft.gateway.http.cors import Cors
    from weft.gateway.jobs.office import JobSettings
    from weft.rpc.signing import Signer
    from weft.telemetry import Telemetry


@click.command(
    epilog=examples(
        "weft gateway --registry 10.0.0.5:7070 --listen 0.0.0.0:7080 --auth keys --database-url postgresql://weft@db/weft"
    )
)
@configured(
    "registry",
    "database_url",
    "redis_url",
    *membership.OPTIONS,
    "zone",
    listen="gateway_listen",
    grpc_listen="gateway_grpc_listen",
    metrics="gateway_metrics",
    auth="gateway_auth",
    log_format="log_format",
)
@part.supervisor_option
def gateway(*, settings: Settings, supervised: str | None) -> None:
    """Run the gateway alone: REST, Connect, gRPC-Web and gRPC in front of a registry's agents."""
    if not settings.database_url:
        raise failures.WrongSetting(
            "The gateway keeps API keys in PostgreSQL: give --database-url or WEFT_DATABASE_URL. "
            "`weft up` brings its own."
        )
    part.run(_serve(settings, supervised), supervised)


def _tokens(settings: Settings) -> TokenSettings | None:
    from weft.gateway.guards.claims import ClaimRules
    from weft.gateway.guards.tokens import TokenSettings

    if not settings.gateway_jwt_issuer:
        return None
    with failures.settings_checked("WEFT_GATEWAY_JWT_*"):
        return TokenSettings(
            issuer=settings.gateway_jwt_issuer,
            audience=_names(settings.gateway_jwt_audience),
            keys_url=settings.gateway_jwt_keys,
            leeway=settings.gateway_jwt_leeway,
            required=_names(settings.gateway_jwt_required),
            claims=ClaimRules.read(
                subject=settings.gateway_jwt_subject,
                scopes=settings.gateway_jwt_scopes,
                roles=settings.gateway_jwt_roles,
                scopes_of_roles=settings.gateway_jwt_role_scopes,
                tenant=settings.gateway_jwt_tenant,
            ),
        )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _signer(settings: Settings) -> Signer | None:
    from weft.rpc.signing import Signer

    if not settings.identity_key:
        return None
    with failures.settings_checked("WEFT_IDENTITY_KEY"):
        # No call may outlive its caller's name.
        lifetime = max(
            settings.identity_ttl, settings.gateway_max_timeout, settings.gateway_job_time
        )
        return Signer.load(Path(settings.identity_key), lifetime=lifetime)


def _jobs(settings: Settings) -> JobSettings:
    from weft.gateway.jobs.asked import JobLimits
    from weft.gateway.jobs.office import JobSettings
    from weft.gateway.jobs.runner import RunnerSettings
    from weft.gateway.jobs.webhooks import SenderSettings, Targets

    networks = _names(settings.gateway_webhook_networks)
    with failures.settings_checked("WEFT_GATEWAY_WEBHOOK_NETWORKS"):
        Targets(networks)
    return JobSettings(
        limits=JobLimits(
            time=settings.gateway_job_time,
            keep=settings.gateway_job_keep,
            most_open=settings.gateway_jobs_open,
        ),
        runner=RunnerSettings(
            at_once=settings.gateway_jobs_at_once, lease=settings.gateway_job_lease
        ),
        sender=SenderSettings(
            attempts=settings.gateway_webhook_attempts,
            first_pause=settings.gateway_webhook_pause,
            longest_pause=settings.gateway_webhook_longest_pause,
            time=settings.gateway_webhook_time,
        ),
        webhook_networks=networks,
    )


async def _serve(settings: Settings, supervised: str | None) -> None:
    from weft.gateway.guards import BreakerSettings
    from weft.gateway.http.cors import Cors
    from weft.rpc import process

    process.raise_files()
    tokens, signer = _tokens(settings), _signer(settings)
    with failures.settings_checked("WEFT_GATEWAY_BREAKER_*"):
        breaker = BreakerSettings(
            window=settings.gateway_breaker_window,
            failure_rate=settings.gateway_breaker_ratio,
            minimum_calls=settings.gateway_breaker_volume,
            open_for=settings.gateway_breaker_open,
        )
    with failures.settings_checked("WEFT_GATEWAY_CORS_*"):
        cors = Cors(
            settings.gateway_cors_origins.split(","),
            credentials=settings.gateway_cors_credentials == "on",
        )
    guards = _guards(settings) | _records(settings) | _tls(settings)
    async with (
        membership.as_part(settings, "gateway") as mtls,
        part.observed(settings, "gateway", settings.gateway_metrics, mtls=mtls) as telemetry,
    ):
        guards["mtls"] = mtls
        _divert_audit(settings)
        with failures.settings_checked("WEFT_GATEWAY_*"):
            gateway = _gateway(settings, telemetry, breaker, cors, tokens, signer, guards)
        async with gateway as found, process.collecting():
            await part.until_stopped(_serving(found, telemetry.metrics_address, supervised))


def _tls(settings: Settings) -> dict[str, Any]:
    from weft.gateway.guards.certificates import CertificateRules
    from weft.gateway.tls import TlsSettings

    if not settings.gateway_tls_certificate:
        return {"hsts": settings.gateway_hsts}
    if not settings.gateway_tls_key:
        raise failures.WrongSetting("WEFT_GATEWAY_TLS_CERTIFICATE needs WEFT_GATEWAY_TLS_KEY.")
    ca = settings.gateway_tls_client_ca
    with failures.settings_checked("WEFT_GATEWAY_TLS_*"):
        rules = CertificateRules.read(
            subject=settings.gateway_tls_subject,
            scopes=settings.gateway_tls_scopes,
            tenants=settings.gateway_tls_tenants,
            edges=settings.gateway_tls_edges,
        )
    return {
        "hsts": settings.gateway_hsts,
        "certificates": rules if ca else None,
        "tls": TlsSettings(
            certificate=Path(settings.gateway_tls_certificate),
            key=Path(settings.gateway_tls_key),
            client_ca=Path(ca) if ca else None,
            client=settings.gateway_tls_client,
        ),
    }


def _records(settings: Settings) -> dict[str, Any]:
    from weft.gateway.records import RequestLogSettings

    with failures.settings_checked("WEFT_GATEWAY_REQUEST_LOG"):
        requests = RequestLogSettings.read(
            settings.gateway_request_log, bodies=settings.gateway_request_log_bodies == "on"
        )
    audit = {"auto": None, "off": False}.get(settings.gateway_audit_log, True)
    return {"request_log": requests, "audit": audit}


def _divert_audit(settings: Settings) -> None:
    from weft.telemetry import logs

    if settings.gateway_audit_log not in {"auto", "off", "log"}:
        with failures.settings_checked("WEFT_GATEWAY_AUDIT_LOG"):
            logs.divert("weft.audit", Path(settings.gateway_audit_log), service="gateway")


def _guards(settings: Settings) -> dict[str, Any]:
    from weft.gateway.guards import limit_rules
    from weft.gateway.guards.cache import CacheSettings
    from weft.gateway.guards.retries import RetrySettings

    with failures.settings_checked("WEFT_GATEWAY_LIMITS"):
        limits = limit_rules.parse(settings.gateway_limits)
    with failures.settings_checked("WEFT_GATEWAY_CACHE_*"):
        cache = CacheSettings(
            max_bytes=settings.gateway_cache_bytes, stale=settings.gateway_cache_stale
        )
    with failures.settings_checked("WEFT_GATEWAY_RETRY_*"):
        retry = RetrySettings(
            attempts=settings.gateway_retry_attempts, budget=settings.gateway_retry_budget
        )
    return {"redis_url": settings.redis_url, "limits": limits, "cache": cache, "retry": retry}


def _gateway(
    settings: Settings,
    telemetry: Telemetry,
    breaker: BreakerSettings,
    cors: Cors,
    tokens: TokenSettings | None,
    signer: Signer | None,
    guards: dict[str, Any],
) -> Gateway:
    from weft.gateway import Gateway
    from weft.gateway.doors.a2a import A2aSettings

    return Gateway(
        registry=settings.registry,
        zone=settings.zone,
        listen=settings.gateway_listen,
        grpc_listen=settings.gateway_grpc_listen,
        database_url=settings.database_url,
        telemetry=telemetry,
        auth=settings.gateway_auth,
        tokens=tokens,
        signer=signer,
        max_body=settings.gateway_max_body,
        connections=settings.gateway_connections,
        max_timeout=settings.gateway_max_timeout,
        cors=cors,
        idempotency_life=settings.gateway_idempotency_life,
        breaker=breaker,
        mcp_origins=_names(settings.gateway_mcp_origins),
        **guards,
        jobs=_jobs(settings),
        a2a=A2aSettings(
            public_url=settings.gateway_public_url,
            public_grpc=settings.gateway_public_grpc,
            agent=settings.gateway_a2a_agent,
        ),
    )


async def _serving(found: Gateway, metrics: str, supervised: str | None) -> None:
    # Ready is when it knows the mesh: before, it has no routes.
    await found.ready()
    part.announce(supervised, address=found.url, grpc=found.grpc_address, metrics=metrics)
    await asyncio.Event().wait()
