"""The addresses of a mesh on one machine: checked before anything starts, or chosen where they may be any."""

from __future__ import annotations

import dataclasses
import errno
import socket
from contextlib import ExitStack
from typing import Any

from weft.cli.failures import Failure
from weft.config import Settings

# Addresses that others must know before their process runs, so that port 0 cannot be left to it.
_LISTENS = (
    "registry_listen",
    "broker_listen",
    "gateway_listen",
    "gateway_grpc_listen",
    "edge_listen",
)
_METRICS = ("registry_metrics", "broker_metrics", "gateway_metrics", "agents_metrics")


def check_free(settings: Settings) -> None:
    """Sees that every address can be bound.

    Raises:
        Failure: one cannot; names the setting to change.
    """
    with ExitStack() as held:
        alerts = ("alerts_listen",) if settings.alerts_to else ()
        for field in (*_LISTENS, *_METRICS, *alerts):
            address = getattr(settings, field)
            try:
                held.enter_context(_bound(address))
            except OSError as failed:
                why = "is in use" if failed.errno == errno.EADDRINUSE else f"fails: {failed}"
                raise Failure(
                    f"{address} {why}. Stop what uses it, or set WEFT_{field.upper()} "
                    f"(in weft.toml: {field}) to another address; port 0 takes any."
                ) from failed
            except ValueError as failed:
                raise Failure(
                    f"WEFT_{field.upper()} must be HOST:PORT, not {address!r}."
                ) from failed


def with_free_ports(settings: Settings, registries: int = 1) -> Settings:
    """The settings with every port 0 that others must know replaced by a free port, and callers told.

    Args:
        settings: of the mesh.
        registries: replicas of the registry; those after the first get any ports.
    """
    with ExitStack() as held:
        chosen: dict[str, Any] = {}
        for field in _LISTENS:
            address = getattr(settings, field)
            if address.endswith(":0"):
                # All held until all are chosen, so that no two get the same.
                host, port = held.enter_context(_bound(address)).getsockname()[:2]
                chosen[field] = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        found = dataclasses.replace(settings, **chosen)
        host = found.registry_listen.rpartition(":")[0]
        further = [held.enter_context(_bound(f"{host}:0")) for _ in range(registries - 1)]
        listens = [found.registry_listen, *(f"{host}:{s.getsockname()[1]}" for s in further)]
    tls = bool(found.gateway_tls_certificate)
    return dataclasses.replace(
        found,
        registry=",".join(map(dialled, listens)),
        broker=dialled(found.broker_listen),
        gateway=f"http://{dialled(found.gateway_listen)}",
        # Whose certificate callers are shown is not of the mesh, and edges believe no others.
        edge_gateway=found.edge_gateway if tls else dialled(found.gateway_listen),
        edge_gateway_grpc=found.edge_gateway_grpc if tls else dialled(found.gateway_grpc_listen),
    )


def any_ports(settings: Settings) -> Settings:
    """The settings with every port of the loopback interface's free ones."""
    ports: dict[str, Any] = dict.fromkeys((*_LISTENS, *_METRICS, "alerts_listen"), "127.0.0.1:0")
    return dataclasses.replace(settings, **ports)


def dialled(address: str) -> str:
    """The address by which this machine reaches a server that listens on `address`."""
    host, _, port = address.rpartition(":")
    anywhere = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 compared, not bound
    return f"{anywhere.get(host, host)}:{port}"


def _bound(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port whose last connections linger can be had; one that is listened on cannot.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host.strip("[]"), int(port)))
    except BaseException:
        found.close()
        raise
    return found
