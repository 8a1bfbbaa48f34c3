"""A gRPC server as every Weft process runs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from weft.rpc._handlers import FusedHandlers
from weft.rpc.health import Health
from weft.rpc.live import LiveSettings
from weft.rpc.load import LoadMeter
from weft.telemetry import Telemetry

if TYPE_CHECKING:
    from weft.mtls import Credentials
    from weft.rpc.membership import Membership
    from weft.rpc.signing import Verifier

log = logging.getLogger("weft.rpc")

DEFAULT_MAX_CONCURRENCY = 1_000
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_OPTIONS: tuple[tuple[str, int], ...] = (
    # Two processes on one port would share its calls at random: a wrong set-up must fail at start.
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 32 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    # Clients may ping idle connections to notice a dead peer (gRFC A8).
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_HEALTH = "grpc.health.v1.Health"
_NO_GRACE = timedelta(0)


class AddressInUseError(OSError):
    """The address is taken by another process."""


class Server:
    """Serves gRPC on one address: handlers that are added, health, reflection and channelz.

    Every added handler gets errors with details, the deadline and identity of its caller, a concurrency
    limit, metrics and traces.

    Args:
        address: "host:port"; port 0 takes any. `address` tells the real one after `start`.
        telemetry: where calls are counted and traced; None: nowhere.
        max_concurrency: calls worked on at a time by each load meter that `add` is not given.
        max_message_bytes: largest message taken in.
        trace_roots: whether a call that brings no trace may begin one.
        verifier: believes who calls, and has the scopes of skills kept; None: whoever calls is believed.
        credentials: of encrypted connections; None: they are not.
        mtls: the same, and callers are members of the mesh, by their certificates; None: whoever comes is served.
        reflects: whether it serves reflection of its own services; not where a fallback serves it.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:0",
        *,
        telemetry: Telemetry | None = None,
        max_concurrency: int = DEFAULT_MAX_CONCURRENCY,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        trace_roots: bool = True,
        verifier: Verifier | None = None,
        credentials: grpc.ServerCredentials | None = None,
        mtls: Credentials | None = None,
        reflects: bool = True,
    ) -> None:
        self._membership: Membership | None = None
        if mtls is not None:
            from weft.rpc.membership import Membership  # cryptography takes its time

            credentials, self._membership = mtls.server(), Membership(mtls)
        self._verifier = verifier
        self.address = address
        self._reflects = reflects
        self._credentials = credentials
        self.load = LoadMeter(max_concurrency)
        self.stopping = asyncio.Event()
        self._telemetry = telemetry
        self._trace_roots = trace_roots
        self._server = grpc.aio.server(
            options=(*_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes))
        )
        self._health = Health()
        self._services: dict[str, None] = {}
        self._meters = [self.load]

    def add(
        self,
        add_to_server: Callable[[Any, Any], None],
        servicer: object,
        *,
        load: LoadMeter | None = None,
        agent: str = "",
        service: ServiceDescriptor | None = None,
        live: LiveSettings | None = None,
    ) -> list[str]:
        """Adds a servicer by its generated `add_...Servicer_to_server` and returns its services' full names.

        Args:
            add_to_server: the generated function.
            servicer: an object with the service's async methods.
            load: counts and limits its calls apart from others.
            agent: agent it serves, named in spans.
            service: its contract, where that is of no generated code.
            live: what operators set of the agent; whoever has it changes it.

        Raises:
            ValueError: the service is served already.
        """
        if load is not None and load not in self._meters:
            self._meters.append(load)
        fused = FusedHandlers(
            load=load or self.load,
            telemetry=self._telemetry,
            agent=agent,
            trace_roots=self._trace_roots,
            verifier=self._verifier,
            membership=self._membership,
            service=service,
            live=live,
        )
        capture = _Capture()
        add_to_server(servicer, capture)
        for name, handlers in capture.services.items():
            if name in self._services:
                raise ValueError(f"{name} is served on this port already; use another port")
            self._services[name] = None
            wrapped = {
                method: fused.wrap(f"/{name}/{method}", handler)
                for method, handler in handlers.items()
            }
            self._server.add_registered_method_handlers(name, wrapped)
        return list(capture.services)

    def add_fallback(self, handler: grpc.GenericRpcHandler) -> None:
        """Adds a handler for methods that no servicer has. It is called as it stands, with no wrapping."""
        self._server.add_generic_rpc_handlers((handler,))

    def add_own_door(self, target: str) -> None:
        """Also serves at a socket ("unix:PATH") that this process alone can reach: what comes there is not encrypted."""
        self._server.add_insecure_port(target)

    async def start(self) -> None:
        """Binds and serves.

        Raises:
            AddressInUseError: the port is taken.
        """
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        channelz.add_channelz_servicer(self._server)
        if self._reflects:
            reflection.enable_server_reflection(
                [*self._services, _HEALTH, reflection.SERVICE_NAME], self._server
            )
        host, _, _ = self.address.rpartition(":")
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(self.address)
            else:
                port = self._server.add_secure_port(self.address, self._credentials)
        except RuntimeError as failed:
            raise AddressInUseError(
                f"cannot listen on {self.address}: stop what uses the port, or choose another"
            ) from failed
        self.address = f"{host}:{port}"
        await self._server.start()
        for service in self._services:
            self._health.set(service, serving=True)
        if self._telemetry is not None:
            self._telemetry.metrics.in_flight.set_function(
                lambda: sum(meter.in_flight for meter in self._meters)
            )

    def set_health(self, service: str, *, serving: bool) -> None:
        """Tells health watchers how a service is; "" is the server as a whole."""
        self._health.set(service, serving=serving)

    async def stop(self, grace: timedelta = _NO_GRACE) -> None:
        """Takes no new calls, lets running ones finish within `grace`, then cancels them."""
        self._health.stop()
        self.stopping.set()
        await self._server.stop(grace.total_seconds())

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


class _Capture:
    """Stands in for a server while generated code adds its handlers."""

    def __init__(self) -> None:
        self.services: dict[str, Mapping[str, grpc.RpcMethodHandler[Any, Any]]] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """All that code generated before grpcio-tools 1.66 calls; newer code calls both."""
        for handler in handlers:
            assert isinstance(handler, grpc.ServiceRpcHandler)
            service = handler.service_name()
            methods: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
            methods = handler._method_handlers  # type: ignore[attr-defined]  # noqa: SLF001 it lists them nowhere else
            named = {path.rpartition("/")[2]: method for path, method in methods.items()}
            self.services.setdefault(service, named)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        self.services[service_name] = method_handlers
