# ruff: noqa: RUF009 (_doc is dataclasses.field with its documentation beside it)
"""Every setting of Weft, typed. Read once, at the edge of a process; libraries take arguments.

Precedence: environment, then the file named by WEFT_CONFIG (TOML, default ./weft.toml when it exists), then
the defaults below. `field` below is in the environment `WEFT_FIELD` and in the file `field`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from weft.config.models import ModelBudget, ModelChoice, ModelEndpoint
from weft.config.remotes import Remote, as_json, read_remotes
from weft.config.tables import read_tables, tables_as_json
from weft.config.tools import ToolSetting


class SettingError(ValueError):
    """A setting cannot be used; the message names it and says what it may be."""


def default_data() -> Path:
    """Where one machine keeps its servers' files: $XDG_DATA_HOME/weft, or /var/lib/weft for root."""
    if os.geteuid() == 0:
        return Path("/var/lib/weft")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "weft"


def _doc(text: str, default: Any) -> Any:
    return field(default=default, metadata={"doc": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of all parts."""

    data: Path = field(
        default_factory=default_data, metadata={"doc": "Folder of the embedded servers."}
    )
    database_url: str = _doc("PostgreSQL to use; empty: an embedded one.", "")
    redis_url: str = _doc("Redis to use; empty: an embedded one.", "")
    migrate: Literal["on", "off"] = _doc(
        "Whether parts bring their schemas up to date when they start; off: `weft migrate` does, and a part whose "
        "schema is older than it needs does not start.",
        "on",
    )
    registry: str = _doc(
        "Addresses of the registry's replicas, joined by commas, for whoever calls it.",
        "127.0.0.1:7070",
    )
    registry_listen: str = _doc("Where the registry listens.", "127.0.0.1:7070")
    registry_metrics: str = _doc("Where the registry serves /metrics.", "127.0.0.1:7170")
    registry_lease_ttl: timedelta = _doc(
        "How long an instance stays with no heartbeat.", timedelta(seconds=4)
    )
    registry_cold_start: timedelta = _doc(
        "How long after its start the registry says nothing of unknown agents.",
        timedelta(seconds=3),
    )
    broker: str = _doc(
        "Addresses of brokers, joined by commas, for whoever sends and consumes messages; empty: none.",
        "127.0.0.1:7072",
    )
    broker_listen: str = _doc("Where the broker listens.", "127.0.0.1:7072")
    broker_metrics: str = _doc("Where the broker serves /metrics.", "127.0.0.1:7172")
    broker_unknown_recipients: Literal["reject", "create"] = _doc(
        "What becomes of a message to a queue that nobody made: an error, or a new queue.", "reject"
    )
    broker_max_message: int = _doc("Largest message, in bytes.", 8 * 1024 * 1024)
    agents_listen: str = _doc("Where agents listen; port 0 takes any.", "127.0.0.1:0")
    agents_metrics: str = _doc(
        "Where agents serve /metrics; port 0 takes any, told in the label `metrics`.", "127.0.0.1:0"
    )
    agents_drain: timedelta = _doc(
        "How long running calls may take at stop.", timedelta(seconds=10)
    )
    zone: str = _doc("Failure domain of this process.", "")
    gateway: str = _doc("Base URL of the gateway, for whoever calls it.", "http://127.0.0.1:7080")
    gateway_listen: str = _doc("Where the gateway listens for HTTP.", "127.0.0.1:7080")
    gateway_grpc_listen: str = _doc("Where the gateway listens for gRPC.", "127.0.0.1:7081")
    edge_listen: str = _doc(
        "Where the edge listens, an Envoy; an IP address and a port.", "127.0.0.1:7090"
    )
    edge_gateway: str = _doc(
        "Where edges find a gateway by HTTP, host:port, for what an Envoy cannot do; the registry tells them; empty: "
        "they refuse it. https://host:port: by certificates of the mesh.",
        "",
    )
    edge_gateway_grpc: str = _doc(
        "Where edges find a gateway by gRPC, host:port or https://host:port.", ""
    )
    gateway_metrics: str = _doc("Where the gateway serves /metrics.", "127.0.0.1:7180")
    gateway_auth: Literal["auto", "off", "on", "keys", "jwt"] = _doc(
        "What callers need: an API key or a token (on), a key, a token (jwt), nothing (off); auto: off where the "
        "gateway listens on loopback only, else on.",
        "auto",
    )
    gateway_jwt_issuer: str = _doc("Issuer of the tokens that are accepted; empty: none are.", "")
    gateway_jwt_audience: str = _doc("Audiences of tokens for this gateway, joined by commas.", "")
    gateway_jwt_keys: str = _doc("URL of the issuer's keys (JWKS), https.", "")
    gateway_jwt_leeway: timedelta = _doc(
        "By how much the issuer's clock may differ.", timedelta(seconds=30)
    )
    gateway_jwt_required: str = _doc(
        "Claims a token must have beside iss, aud and exp, joined by commas.", ""
    )
    gateway_jwt_subject: str = _doc(
        "Subject of a token's bearer, claims in braces, after a word and a colon.", "user:{sub}"
    )
    gateway_jwt_scopes: str = _doc("Claims that hold scopes, joined by commas.", "scope,scp")
    gateway_jwt_roles: str = _doc(
        "Claim that holds roles, such as realm_access.roles; empty: none.", ""
    )
    gateway_jwt_role_scopes: str = _doc(
        "Scopes that roles bring, such as admin=a.read a.write, guest=a.read.", ""
    )
    gateway_jwt_tenant: str = _doc(
        "Claim that holds the tenant, which each token must have then; empty: none.", ""
    )
    identity_key: str = _doc(
        "Ed25519 key, a PEM file, that the gateway signs identities with; empty: they are not signed.",
        "",
    )
    identity_trust: str = _doc(
        "Public keys of gateways whose word for who calls agents take, joined by commas; empty: anybody's.",
        "",
    )
    identity_ttl: timedelta = _doc(
        "How long agents take calls in the name of a caller that the gateway let in.",
        timedelta(hours=1),
    )
    mtls: Literal["auto", "off", "on"] = _doc(
        "Whether registry, broker, gateway and agents show each other certificates; auto: where certificates are named, "
        "or `weft up --mtls` runs on this machine.",
        "auto",
    )
    mtls_certificate: str = _doc(
        "Certificate of this process in the mesh, a PEM file with a SPIFFE id; empty: issued by this machine's authority.",
        "",
    )
    mtls_key: str = _doc("Its private key, a PEM file.", "")
    mtls_ca: str = _doc("Roots that this process believes in the mesh, a PEM file.", "")
    mtls_trust_domain: str = _doc(
        "Trust domain of the mesh; empty: that of the certificate, and weft.local for a new authority.",
        "",
    )
    mtls_agents: str = _doc(
        "Agents that ids may be which do not name them, such as spiffe://example.org/ns/shop/sa/*=shop-* cashier, "
        "joined by commas.",
        "",
    )
    gateway_max_body: int = _doc("Largest request body, in bytes.", 4 * 1024 * 1024)
    gateway_connections: int = _doc(
        "Open HTTP connections; fewer where the process may not open so many files.", 16_384
    )
    gateway_max_timeout: timedelta = _doc(
        "Longest deadline a caller may ask.", timedelta(minutes=10)
    )
    gateway_idempotency_life: timedelta = _doc(
        "How long a call with an idempotency key is remembered.", timedelta(hours=24)
    )
    gateway_job_time: timedelta = _doc(
        "Longest time a job may take, and that of a job whose caller names none.",
        timedelta(hours=1),
    )
    gateway_job_keep: timedelta = _doc(
        "How long a job that has ended is kept, at most.", timedelta(hours=24)
    )
    gateway_job_lease: timedelta = _doc(
        "How long a gateway that says nothing keeps the jobs it runs.", timedelta(seconds=15)
    )
    gateway_jobs_at_once: int = _doc("Jobs one gateway runs at a time.", 64)
    gateway_jobs_open: int = _doc("Jobs of one caller that may wait or run.", 1_000)
    gateway_webhook_attempts: int = _doc("How often a webhook is tried.", 10)
    gateway_webhook_pause: timedelta = _doc(
        "Pause before a webhook is tried again; four times as long each time.",
        timedelta(seconds=5),
    )
    gateway_webhook_longest_pause: timedelta = _doc(
        "Longest that pause grows to.", timedelta(hours=6)
    )
    gateway_webhook_time: timedelta = _doc(
        "How long the receiver of a webhook may take.", timedelta(seconds=15)
    )
    gateway_webhook_networks: str = _doc(
        "Networks that are not public to which webhooks may go, such as 10.1.0.0/16, joined by commas; empty: none.",
        "",
    )
    orchestrator_at_once: int = _doc(
        "Runs of workflows that an orchestrator carries out at a time; 0: none.", 512
    )
    orchestrator_open: int = _doc("Runs of one caller that may wait or run.", 10_000)
    orchestrator_lease: timedelta = _doc(
        "How long an orchestrator that says nothing keeps the runs it carries out.",
        timedelta(seconds=5),
    )
    orchestrator_keep: timedelta = _doc(
        "How long a run is kept after its end, with its events and approvals; 0s: for ever.",
        timedelta(days=90),
    )
    orchestrator_webhook_networks: str = _doc(
        "Networks that are not public to which webhooks of approvals may go, such as 10.1.0.0/16, joined by commas; "
        "empty: none.",
        "",
    )
    support_pipeline: Literal["orchestrated", "in-process"] = _doc(
        "Who runs the workflow of the support fleet: the orchestrator, durably and as users changed it, or its "
        "supervisor, as it ships.",
        "orchestrated",
    )
    embedding: Literal["none", "local", "openai", "ollama"] = _doc(
        "What makes vectors of documents and articles: nothing, the model that ships, or a service with one of these "
        "APIs.",
        "none",
    )
    embedding_weights: Path = field(
        default=Path("models/all-MiniLM-L6-v2"),
        metadata={"doc": "Folder with the weights of the model that ships."},
    )
    embedding_url: str = _doc("URL of the embedding service.", "")
    embedding_model: str = _doc("Model of the embedding service.", "")
    embedding_dimensions: int = _doc("Numbers in a vector of that model.", 0)
    embedding_key: str = _doc("Key of the embedding service; empty: none.", "")
    gateway_cors_origins: str = _doc(
        "Origins whose pages may call the gateway from a browser, joined by commas; *: any; empty: none.",
        "",
    )
    gateway_cors_credentials: Literal["off", "on"] = _doc(
        "Whether a browser may send cookies and client certificates along from those origins.",
        "off",
    )
    gateway_breaker_window: timedelta = _doc(
        "Span over which a circuit breaker counts errors.", timedelta(seconds=10)
    )
    gateway_breaker_volume: int = _doc("Fewest calls in the window to judge by.", 20)
    gateway_breaker_ratio: float = _doc("Share of failed calls that opens a breaker.", 0.5)
    gateway_breaker_open: timedelta = _doc("How long a breaker stays open.", timedelta(seconds=5))
    gateway_limits: str = _doc(
        "How often may be called: rules such as per=identity rate=100/s burst=20, joined by semicolons.",
        "",
    )
    gateway_cache_bytes: int = _doc(
        "How much the gateway keeps of answers, in bytes; 0: nothing.", 64 * 1024 * 1024
    )
    gateway_cache_stale: timedelta = _doc(
        "How long beyond its time a kept answer stands in for an agent that cannot be reached.",
        timedelta(hours=1),
    )
    gateway_retry_attempts: int = _doc("Most attempts of a call that may run twice.", 4)
    gateway_retry_budget: float = _doc(
        "Second attempts for each call of an agent, over 10 s, 0 to 1.", 0.1
    )
    gateway_mcp_origins: str = _doc(
        "Origins whose pages may speak MCP, and whose names may stand in Host, joined by commas.",
        "",
    )
    gateway_public_url: str = _doc(
        "Where callers reach the gateway, for A2A cards; empty: where each request was sent to.", ""
    )
    gateway_public_grpc: str = _doc(
        "Where callers reach the gateway by gRPC, host:port, for A2A cards; empty: the same host, "
        "the port that is listened on.",
        "",
    )
    gateway_a2a_agent: str = _doc(
        "Agent that A2A callers mean who name none; empty: the mesh as a whole.", ""
    )
    gateway_tls_certificate: str = _doc(
        "Certificate of both listeners, a PEM file with the whole chain; empty: they are not encrypted.",
        "",
    )
    gateway_tls_key: str = _doc("Its private key, a PEM file.", "")
    gateway_tls_client_ca: str = _doc(
        "Authorities whose certificates callers bring (mTLS), a PEM file; empty: none are asked for.",
        "",
    )
    gateway_tls_client: Literal["required", "optional"] = _doc(
        "Whether callers must bring one; optional: by HTTP they may, gRPC asks for none.",
        "required",
    )
    gateway_tls_subject: Literal["spiffe", "cn"] = _doc(
        "Who the bearer of a certificate is: its SPIFFE id; cn: its common name where it has none.",
        "spiffe",
    )
    gateway_tls_scopes: str = _doc(
        "Scopes of bearers, such as spiffe://example.org/shop/*=a.read a.write, cert:billing=b.read.",
        "",
    )
    gateway_tls_tenants: str = _doc(
        "Tenants of bearers, such as spiffe://acme.example/*=acme, one of which must fit then; empty: none.",
        "",
    )
    gateway_tls_edges: str = _doc(
        "SPIFFE ids of edges, joined by commas, * for any characters: who calls by them is said by a key or a token alone.",
        "spiffe://*/part/edge",
    )
    gateway_hsts: timedelta = _doc(
        "For how long browsers shall come by https alone, where TLS is the gateway's or of a proxy before it; 0s: not said.",
        timedelta(0),
    )
    gateway_request_log: str = _doc(
        "Which requests are logged: off, failures, all, or a share such as 0.01, beside which all failures are.",
        "off",
    )
    gateway_request_log_bodies: Literal["off", "on"] = _doc(
        "Whether those lines hold the request, without its secret fields.", "off"
    )
    gateway_audit_log: str = _doc(
        "Where who did what is written: log (with the other lines), off, or a file; auto: log where callers need a key "
        "or a token, else off.",
        "auto",
    )
    remotes: Mapping[str, Remote] = field(
        default_factory=dict,
        metadata={
            "doc": "Agents and servers elsewhere, shown as agents of the mesh: [remotes.NAME]."
        },
    )
    endpoints: Mapping[str, ModelEndpoint] = field(
        default_factory=dict,
        metadata={
            "doc": "Where models are: [endpoints.NAME]. Kinds stand for endpoints of their name."
        },
    )
    models: Mapping[str, ModelChoice] = field(
        default_factory=dict,
        metadata={"doc": "Models of agents: [models.AGENT], or [models.default] for all others."},
    )
    budgets: Mapping[str, ModelBudget] = field(
        default_factory=dict,
        metadata={
            "doc": "What models may cost: [budgets.call], run, agent, tenant, or [budgets.'tenant:acme']."
        },
    )
    tools: Mapping[str, ToolSetting] = field(
        default_factory=dict, metadata={"doc": "Tools of agents: [tools.NAME]."}
    )
    model_prices: str = _doc("File with what tokens cost; empty: the shipped one.", "")
    tool_records_keep: timedelta = _doc(
        "How long uses of tools are kept on record; 0s: for ever.", timedelta(days=90)
    )
    trace_sample: float = _doc("Share of new traces recorded, 0 to 1.", 1.0)
    trace_keep: Literal["on", "off"] = _doc(
        "Whether calls that fail or take long are recorded though their trace is not sampled.",
        "on",
    )
    trace_slow: timedelta = _doc(
        "From when on a call takes long; 0s: none does.", timedelta(seconds=5)
    )
    otlp_endpoint: str = _doc("OTLP/gRPC receiver of spans, beside the registry.", "")
    sentry_dsn: str = _doc(
        "Where errors that are a server's own fault are told (Sentry); empty: nowhere.", ""
    )
    alerts_listen: str = _doc(
        "Where `weft alerts` listens for alerts of Prometheus or an Alertmanager.", "127.0.0.1:7193"
    )
    alerts_to: str = _doc("URL of the webhook that is told of alerts; it is a secret.", "")
    alerts_format: Literal["discord", "slack", "json"] = _doc(
        "Form in which that webhook wants them.", "json"
    )
    alerts_secret: str = _doc(
        "What webhooks in the form json are signed with, whsec_...; empty: they are not.", ""
    )
    log_format: Literal["auto", "json", "text"] = _doc(
        "auto: text on a terminal, else json.", "auto"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = _doc("Least level shown.", "INFO")

    def __post_init__(self) -> None:
        """Tells the sessions of the database whether they may migrate: it is they who are asked (weft.postgres).

        Raises:
            SettingError: the URL of the database is none.
        """
        if self.database_url and not _is_of_postgres(self.database_url):
            # Not the URL itself: there may be a password in it.
            raise SettingError(
                "database_url (WEFT_DATABASE_URL): is no URL of a PostgreSQL, such as postgresql://weft@db:5432/weft"
            )
        if self.migrate == "off" and self.database_url and _NO_MIGRATIONS not in self.database_url:
            joint = "&" if "?" in self.database_url else "?"
            object.__setattr__(self, "database_url", f"{self.database_url}{joint}{_NO_MIGRATIONS}")


def _is_of_postgres(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that do not close
        return False
    hosts = parts.netloc.rpartition("@")[2].split(",")
    ports = filter(None, (host.rpartition("]")[2].partition(":")[2] for host in hosts))
    return parts.scheme in {"postgresql", "postgres"} and all(map(_PORT.fullmatch, ports))


_PORT = re.compile(r"[0-9]{1,5}")
_NO_MIGRATIONS = "options=-c%20weft.migrate%3Doff"
_STANDARD_NAMES = {"otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT"}


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings of this process.

    Raises:
        SettingError: a value cannot be read, or the file names a setting that does not exist.
    """
    env = os.environ if environ is None else environ
    hints = get_type_hints(Settings)
    given: dict[str, Any] = dict(_file(env))
    if unknown := given.keys() - hints.keys():
        raise SettingError(f"unknown setting {min(unknown)!r} in the settings file")
    sources = dict.fromkeys(given, "the settings file")
    for name in hints:
        for variable in (_STANDARD_NAMES.get(name), f"WEFT_{name.upper()}"):
            if variable and env.get(variable):
                given[name], sources[name] = env[variable], variable
    values = {name: _read(hints[name], value, sources[name], name) for name, value in given.items()}
    return Settings(**values)


def environment(settings: Settings) -> dict[str, str]:
    """The environment that makes `load` return these settings in a child process."""
    found = {}
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if isinstance(value, Mapping):
            text = (as_json if item.name == "remotes" else tables_as_json)(value)
        else:
            text = f"{value.total_seconds()}s" if isinstance(value, timedelta) else str(value)
        found[f"WEFT_{item.name.upper()}"] = text
    return found


def _file(env: Mapping[str, str]) -> dict[str, Any]:
    named = env.get("WEFT_CONFIG")
    path = Path(named or "weft.toml")
    if not path.exists():
        if named:
            raise SettingError(f"WEFT_CONFIG: there is no file {path}")
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as failed:
        raise SettingError(f"{path}: {failed}") from failed


def _read(hint: Any, value: Any, source: str, name: str) -> Any:
    try:
        if get_origin(hint) is Literal:
            return _choice(value, get_args(hint))
        if get_origin(hint) is Mapping:
            kind = get_args(hint)[1]
            return read_remotes(value) if kind is Remote else read_tables(value, kind, name)
        if hint is timedelta:
            return _duration(value)
        return hint(value)
    except (TypeError, ValueError, OverflowError) as failed:
        raise SettingError(f"{name} ({source}): {failed}") from failed


def _choice(value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"must be one of {', '.join(allowed)}")
    return str(value)


def _duration(value: Any) -> timedelta:
    text = str(value).strip()
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    for unit, seconds in units.items():
        if text.endswith(unit):
            return timedelta(seconds=float(text.removesuffix(unit)) * seconds)
    return timedelta(seconds=float(text))
