"""The gateway as a whole: both listeners, what they know of the mesh, and how they stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from types import TracebackType
from typing import Literal, Self

from weft import rpc
from weft.gateway.app import App
from weft.gateway.dataplane import Security
from weft.gateway.doors.a2a import A2aDoor, A2aGrpc, A2aSettings
from weft.gateway.doors.agents import AgentPages
from weft.gateway.doors.breakers import BreakerPages
from weft.gateway.doors.calls import Calls
from weft.gateway.doors.grpc import GrpcDoor, Target
from weft.gateway.doors.mcp import McpDoor, Origins
from weft.gateway.doors.pages import Pages
from weft.gateway.doors.reflection import Reflection
from weft.gateway.guarded import Guarded
from weft.gateway.guards import Breakers, BreakerSettings
from weft.gateway.guards.admission import Admission
from weft.gateway.guards.breaker_holds import BreakerHolds
from weft.gateway.guards.cache import CacheSettings, ResponseCache
from weft.gateway.guards.call_limits import CallLimits
from weft.gateway.guards.certificates import CertificateRules
from weft.gateway.guards.idempotency import LIFE, IdempotentCalls
from weft.gateway.guards.jwks import KeySet
from weft.gateway.guards.key_check import KeyCheck
from weft.gateway.guards.key_store import KeyStore
from weft.gateway.guards.limit_rules import Rule
from weft.gateway.guards.retries import Retries, RetrySettings
from weft.gateway.guards.tokens import TokenCheck, TokenSettings
from weft.gateway.http.cors import Cors
from weft.gateway.http.server import HttpServer
from weft.gateway.http.settings import HttpSettings
from weft.gateway.jobs import own_agent
from weft.gateway.jobs.asked import Asking
from weft.gateway.jobs.office import JobSettings, Office
from weft.gateway.mesh_view import Addresses, Contracts, MeshView, Paused, Spread
from weft.gateway.records import AuditLog, RequestLog, RequestLogSettings
from weft.gateway.tls import Tls, TlsSettings
from weft.gateway.transcoding.catalog import Catalog, Contract, Idempotency, Method
from weft.gateway.upstream import Upstream
from weft.gateway.watched import Watched
from weft.limits import SharedLimits
from weft.mtls import Credentials
from weft.postgres import Database
from weft.rpc.signing import Signer
from weft.telemetry import Telemetry, probe

log = logging.getLogger("weft.gateway")

_LEARNING = 1.0  # seconds a start waits for the registry
_DRAIN = timedelta(seconds=10)


class Gateway:
    """Opens the mesh to HTTP and gRPC callers.

    Args:
        registry: address of the registry, or of several of its replicas, joined by commas.
        zone: failure domain it runs in; calls stay there where operators say so.
        database_url: PostgreSQL, for API keys.
        listen: "host:port" for HTTP; port 0 takes any.
        grpc_listen: "host:port" for gRPC; port 0 takes any.
        auth: whom to let in. "on": callers with an API key or a token; "keys": with an API key only; "jwt": with
            a token only; "off": everybody; "auto": "off" where both listeners are on the loopback interface, else
            "on". A credential that is given is always verified. Scopes are asked for unless everybody is let in.
        tokens: which tokens are accepted; None: none.
        signer: signs the identities that go to agents; None: they are not signed.
        max_body: largest request, bytes.
        connections: open HTTP connections; fewer where the process may not open so many files.
        max_timeout: longest deadline a caller may ask for.
        idempotency_life: for how long idempotency keys are remembered.
        cors: which pages of other origins may call from a browser; by default none.
        mcp_origins: origins of web pages that may speak MCP, such as "https://app.example.com"; pages of
            this machine may when `listen` is on the loopback interface.
        a2a: how A2A is spoken.
        breaker: when circuits open and close.
        redis_url: Redis, by which gateways share limits; empty: each keeps them by itself.
        limits: how often may be called, beside what skills say themselves.
        cache: how much is kept of the answers of skills that say so.
        retry: how often calls that may run twice are tried again.
        jobs: how calls are run that nobody waits for.
        tls: certificates of both listeners; None: connections are not encrypted.
        certificates: who callers are by the certificates they bring, where `auth` is "on", "off" or "auto"; None: nobody.
        hsts: for how long browsers shall come by https alone; 0: nothing is said of that.
        request_log: which requests are logged.
        audit: whether the audit log is written (logger `weft.audit`); None: where callers are asked who they are.
        telemetry: where calls are counted and traced.
        mtls: what it shows to registry and agents, and whom it believes; None: what goes to them is not encrypted.

    Raises:
        ValueError: `auth` is "jwt" and `tokens` is None, the URL of their keys cannot be used, or certificates cannot.
    """

    def __init__(
        self,
        *,
        registry: str,
        zone: str = "",
        database_url: str,
        listen: str = "127.0.0.1:7080",
        grpc_listen: str = "127.0.0.1:7081",
        auth: Literal["auto", "off", "on", "keys", "jwt"] = "auto",
        tokens: TokenSettings | None = None,
        signer: Signer | None = None,
        max_body: int = 4 * 1024 * 1024,
        connections: int = 16_384,
        max_timeout: timedelta = timedelta(minutes=10),
        idempotency_life: timedelta = LIFE,
        cors: Cors | None = None,
        mcp_origins: Sequence[str] = (),
        a2a: A2aSettings | None = None,
        breaker: BreakerSettings | None = None,
        redis_url: str = "",
        limits: Sequence[Rule] = (),
        cache: CacheSettings | None = None,
        retry: RetrySettings | None = None,
        jobs: JobSettings | None = None,
        tls: TlsSettings | None = None,
        certificates: CertificateRules | None = None,
        hsts: timedelta = timedelta(0),
        request_log: RequestLogSettings | None = None,
        audit: bool | None = None,
        telemetry: Telemetry | None = None,
        mtls: Credentials | None = None,
    ) -> None:
        if auth == "auto":
            auth = "off" if _is_loopback(listen) and _is_loopback(grpc_listen) else "on"
        if auth == "jwt" and tokens is None:
            raise ValueError("tokens are asked for, and none are accepted: no issuer is named")
        self._auth = auth
        self._tokens = None if auth == "keys" else tokens
        self._token_keys = KeySet(self._tokens.keys_url) if self._tokens else None
        self._signer = signer
        self._database_url = database_url
        self._listen = listen
        self._grpc_listen = grpc_listen
        self._max_body = max_body
        self._connections = connections
        self._max_timeout = max_timeout
        self._idempotency_life = idempotency_life
        self._cors = cors
        self._mcp_origins = mcp_origins
        self._a2a = a2a
        self._breaker = breaker
        self._redis_url = redis_url
        self._limits = tuple(limits)
        self._cache = cache
        self._retry = retry
        self._jobs = jobs or JobSettings()
        self._tls = Tls(tls) if tls is not None else None
        self._certificates = None if auth in {"keys", "jwt"} else certificates
        self._hsts = hsts
        log_of_requests = request_log or RequestLogSettings()
        self._requests = RequestLog(log_of_requests) if log_of_requests.on else None
        self._audit = AuditLog() if (auth != "off" if audit is None else audit) else None
        self._telemetry = telemetry
        self._watched = Watched(telemetry, self._audit)
        self._mtls = mtls
        self._view = MeshView(registry, self._use, self._place, zone=zone, mtls=mtls)
        self._stack = contextlib.AsyncExitStack()
        self._guarded: Guarded
        self._app: App
        self._door: GrpcDoor
        self._reflection: Reflection
        self._upstream: Upstream
        self.url = ""
        self.grpc_address = ""

    async def start(self) -> None:
        """Listens. Agents are served as soon as the registry names them.

        Raises:
            AddressInUseError: a port is taken.
            Unavailable: the database cannot be reached.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        database = await Database.opened(self._database_url, "gateway", "weft.gateway.sql")
        self._stack.push_async_callback(database.close)
        self._tell_operators(database)
        admission = self._admission(database)
        breakers = Breakers(self._breaker, on_transition=self._watched.transition)
        metrics = self._telemetry.metrics if self._telemetry is not None else None
        office = Office(database, self._database_url, self._method, self._jobs, metrics)
        await self._stack.enter_async_context(office)
        self._upstream = Upstream(
            breakers,
            retries=Retries(self._retry, on_event=self._watched.retried),
            telemetry=self._telemetry,
            own=office.own,
            in_service=self._view.in_service,
            security=self._security if self._mtls is not None else None,
        )
        self._stack.push_async_callback(self._upstream.close)
        idempotent = IdempotentCalls(database, life=self._idempotency_life)
        self._stack.push_async_callback(idempotent.settle)
        forgetting = asyncio.create_task(idempotent.run(), name="idempotency keys")
        self._stack.push_async_callback(_cancel, forgetting)
        guarded = self._guarded = self._guards(idempotent, office.asking)
        working = office.working(self._upstream, self._signer, guarded.spent)
        direct = await self._stack.enter_async_context(working)
        holds = BreakerHolds(database, breakers.hold)
        await holds.look()
        holding = asyncio.create_task(holds.run(), name="held breakers")
        self._stack.push_async_callback(_cancel, holding)
        calls = Calls(
            guarded,
            admission,
            telemetry=self._telemetry,
            max_body=self._max_body,
            max_timeout=self._max_timeout,
        )
        agents = AgentPages(lambda: self._view.agents, calls.visit)
        pages = Pages(self._view.ready.is_set, agents, BreakerPages(breakers, holds, calls))
        origins = Origins(local=_is_loopback(self._listen), allowed=self._mcp_origins)
        mcp = McpDoor(calls, origins)
        a2a = A2aDoor(
            calls,
            guarded,
            database,
            office,
            direct,
            asks=self._auth != "off",
            settings=self._a2a,
            signer=self._signer,
            addresses=lambda: (self.url, self.grpc_address),
        )
        self._app = App(
            calls,
            pages,
            mcp,
            a2a,
            cors=self._cors,
            requests=self._requests,
            telemetry=self._telemetry,
        )
        self._door = GrpcDoor(
            guarded,
            admission,
            telemetry=self._telemetry,
            requests=self._requests,
            encrypted=self._tls is not None,
            longest=self._max_timeout.total_seconds(),
        )
        self._reflection = Reflection(admission)
        self._use({}, {})  # what the gateway serves of its own
        following = asyncio.create_task(self._view.run(), name="mesh view")
        self._stack.push_async_callback(_cancel, following)
        if self._tls is not None:
            tls = self._tls
            renewing = asyncio.create_task(tls.run(), name="certificates")
            if self._telemetry is not None:
                expiry = self._telemetry.metrics.certificate_expiry.labels("gateway")
                expiry.set_function(lambda: tls.expires)
            self._stack.push_async_callback(_cancel, renewing)
        await self._until_known()
        await self._listen_grpc(A2aGrpc(a2a, calls, telemetry=self._telemetry))
        address = await self._listen_http()
        self._stack.callback(mcp.close)
        self._stack.callback(a2a.end_streams)
        self._stack.callback(self._app.end_events)
        self.url = f"{'http' if self._tls is None else 'https'}://{address}"

    async def _until_known(self) -> None:
        """Waits a moment for the mesh: whoever came before would be told to try again, and another gateway may have them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEARNING):
                await self._view.ready.wait()

    async def _listen_http(self) -> str:
        host, _, port = self._listen.rpartition(":")
        settings = HttpSettings(
            host=host.strip("[]"),
            port=int(port),
            max_message=self._max_body,
            tls=self._tls.context if self._tls is not None else None,
            hsts=self._hsts,
            connections=self._connections,
        )
        http = HttpServer(self._app, settings)
        await http.start()
        self._stack.push_async_callback(http.stop, _DRAIN)
        return http.address

    def _security(self, agent: str) -> Security:
        assert self._mtls is not None
        return Security(credentials=self._mtls, expected=partial(self._view.ids, agent))

    def _tell_operators(self, database: Database) -> None:
        if self._telemetry is not None:
            asking = probe(self._telemetry.metrics, "postgres", database.ping)
            watching = asyncio.create_task(asking, name="probe of the database")
            self._stack.push_async_callback(_cancel, watching)
        if self._audit is not None:
            telling = asyncio.create_task(self._audit.follow(database), name="audit log")
            self._stack.push_async_callback(_cancel, telling)
            self._stack.callback(self._audit.settle)

    def _guards(self, idempotent: IdempotentCalls, asking: Asking) -> Guarded:
        shared = None
        if self._redis_url:
            shared = SharedLimits(self._redis_url, on_away=self._watched.unshared)
            self._stack.push_async_callback(shared.close)
            renewing = asyncio.create_task(shared.run(), name="places of shared limits")
            self._stack.push_async_callback(_cancel, renewing)
        limits = CallLimits(self._limits, shared, on_refused=self._watched.limited)
        cache = ResponseCache(self._cache, on_use=self._watched.cached)
        self._stack.push_async_callback(cache.settle)
        return Guarded(
            self._upstream,
            idempotent,
            limits,
            cache,
            asking,
            audit=self._audit,
            keeps=self._requests is not None and self._requests.bodies,
        )

    def _admission(self, database: Database) -> Admission:
        tokens = None
        if self._tokens is not None and self._token_keys is not None:
            self._stack.push_async_callback(self._token_keys.close)
            tokens = TokenCheck(self._tokens, self._token_keys)
        return Admission(
            None if self._auth == "jwt" else KeyCheck(KeyStore(database)),
            required=self._auth != "off",
            tokens=tokens,
            certificates=self._certificates,
            signer=self._signer,
            on_refused=self._watched.refused,
        )

    async def _listen_grpc(self, a2a: A2aGrpc) -> None:
        server = rpc.Server(
            self._grpc_listen,
            telemetry=self._telemetry,
            max_message_bytes=self._max_body,
            credentials=self._tls.grpc_credentials() if self._tls is not None else None,
            reflects=False,
        )
        server.add_fallback(self._reflection)
        server.add_fallback(a2a)
        server.add_fallback(self._door)
        await server.start()
        self._stack.push_async_callback(server.stop, _DRAIN)
        self.grpc_address = server.address

    async def ready(self) -> None:
        """Returns when the gateway has heard from the registry."""
        await self._view.ready.wait()

    async def stop(self) -> None:
        """Stops listening, lets running calls finish, closes what it holds."""
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _place(self, addresses: Addresses, paused: Paused, spread: Spread) -> None:
        self._upstream.update(addresses, paused, spread)

    def _use(self, contracts: Contracts, sets: Mapping[str, bytes]) -> None:
        catalog = Catalog(
            [own_agent.contract(), *_contracts(contracts, sets)], previous=self._app.catalog
        )
        for problem in catalog.problems:
            log.warning(
                "not served: %s",
                problem.text,
                extra={"agent": problem.agent, "of": problem.subject},
            )
        self._app.use(catalog)
        self._reflection.use(catalog)
        self._guarded.use(catalog)
        self._door.serve(
            {
                path: Target(
                    method=method,
                    agent=method.agent.name,
                    unary=not (method.client_streaming or method.server_streaming),
                    repeatable=method.idempotency is Idempotency.NO_SIDE_EFFECTS,
                    timeout=None
                    if method.client_streaming or method.server_streaming
                    else method.skill.default_timeout.total_seconds(),
                    scopes=method.skill.required_scopes,
                )
                for path, method in catalog.methods.items()
            }
        )
        log.info("routes made", extra={"agents": len(contracts), "methods": len(catalog.methods)})

    def _method(self, path: str) -> Method | None:
        return self._app.catalog.methods.get(path)


def _contracts(contracts: Contracts, sets: Mapping[str, bytes]) -> list[Contract]:
    found = []
    for agent, services in sorted(contracts.items()):
        for digest in sorted(set(services.values())):
            served = tuple(sorted(name for name, of in services.items() if of == digest))
            found.append(Contract(agent=agent, descriptor_set=sets[digest], services=served))
    return found


def _is_loopback(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
