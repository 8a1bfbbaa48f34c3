"""The options of edges, made of the gateway's settings: what an Envoy cannot keep to is left to a gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.cli import failures

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from weft.config import Settings
    from weft.gateway.guards.limit_rules import Rule
    from weft.registry.xds.edge import EdgeOptions, Rate, Tokens

_ALL = "*"


def options(settings: Settings) -> EdgeOptions:
    """How edges let callers in.

    Raises:
        failures.WrongSetting: a setting cannot be used.
    """
    from weft import config
    from weft.gateway.guards import limit_rules
    from weft.registry.xds.edge import Breaker, EdgeOptions

    with failures.settings_checked("WEFT_GATEWAY_LIMITS"):
        rules = limit_rules.parse(settings.gateway_limits)
    with failures.settings_checked("WEFT_EDGE_*"):
        found = EdgeOptions(
            access=_access(settings),
            gateway=settings.edge_gateway,
            gateway_grpc=settings.edge_gateway_grpc,
            tokens=_tokens(settings),
            guarded=_guarded(settings, rules),
            rate=_rate(rules),
            origins=_names(settings.gateway_cors_origins),
            credentials=settings.gateway_cors_credentials == "on",
            max_body=settings.gateway_max_body,
            max_timeout=settings.gateway_max_timeout,
            breaker=Breaker(
                ratio=settings.gateway_breaker_ratio,
                volume=settings.gateway_breaker_volume,
                window=settings.gateway_breaker_window,
                open_for=settings.gateway_breaker_open,
            ),
        )
    with failures.settings_checked("WEFT_MTLS_*"):
        member = config.membership(settings)
    if found.encrypts and member is None:
        raise failures.WrongSetting(
            "WEFT_EDGE_GATEWAY has https://, for edges that show certificates of the mesh, and this registry has none: "
            "set WEFT_MTLS_CERTIFICATE, _KEY and _CA, or leave out https://."
        )
    return found


def _access(settings: Settings) -> Literal["open", "tokens", "gateway", "auto"]:
    """Keys are in a database, which an Envoy cannot ask."""
    if settings.gateway_auth == "off":
        return "open"
    if settings.gateway_auth == "jwt":
        return "tokens"
    return "auto" if settings.gateway_auth == "auto" else "gateway"


def _tokens(settings: Settings) -> Tokens | None:
    from weft.registry.xds.edge import Tokens

    if not settings.gateway_jwt_issuer:
        return None
    return Tokens(
        issuer=settings.gateway_jwt_issuer,
        audiences=_names(settings.gateway_jwt_audience),
        keys=settings.gateway_jwt_keys,
        leeway=settings.gateway_jwt_leeway,
    )


def _guarded(settings: Settings, rules: Sequence[Rule]) -> tuple[str, ...]:
    """Methods that only a gateway can guard: by claims of tokens, or by limits for each caller."""
    if settings.gateway_auth == "jwt" and (
        settings.gateway_jwt_required or settings.gateway_jwt_tenant
    ):
        return (_ALL,)
    return tuple(sorted({rule.methods for rule in rules if not _is_of_edge(rule)}))


def _rate(rules: Sequence[Rule]) -> Rate | None:
    """The strictest rule for all calls together; each edge counts its own."""
    from weft.registry.xds.edge import Rate

    mine = [rule for rule in rules if _is_of_edge(rule)]
    if not mine:
        return None
    strictest = max(mine, key=lambda rule: rule.interval)
    return Rate(per_second=1 / strictest.interval, burst=round(strictest.at_once))


def _is_of_edge(rule: Rule) -> bool:
    from weft.gateway.guards.limit_rules import Kind

    return rule.kind is Kind.RATE and not rule.per and rule.methods == _ALL


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
