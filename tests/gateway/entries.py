"""Where callers come in: at the gateway itself, or at an Envoy before it and the agents, and what is not the same there.

A test that asks for `entry`, `http` or `wire` runs at both. One that is about what differs at the edge says so by
`@pytest.mark.gateway_only(Why.…)`: at the edge it has to fail, so that no reason outlives its cause.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

import httpx
import pytest
from tests.edge import conftest as edges

from weft.gateway import Gateway
from weft.registry import Registry
from weft.registry.xds import EdgeOptions
from weft.registry.xds.edge import Breaker

EDGE = "edge"
ENTRIES = ("gateway", EDGE)


class Why(StrEnum):
    """Why a test is about the gateway alone; docs/edge.md has each of these in its table."""

    LAXER = (
        "Envoy's transcoder takes more than ProtoJSON and `google/api/http.proto` allow, such as fields that no message "
        "has"
    )
    NO_FIELDS = "Envoy's transcoder refuses a body without naming the field that is wrong in it"
    MEDIA_TYPES = "a body of a type that is no JSON is 400 and not 415"
    ARRAYS = "a JSON array of a stream that fails ends without the error, and has no line break at its end"
    HANGS_UP = "Envoy hangs up on who goes on sending a body that is too large"
    TRACES = "Envoy passes traces on, and neither begins nor answers with one"
    WEB_HEADERS = "gRPC-Web has none of the headers that are for browsers' pages"
    WEB_TYPE = "an answer to `application/grpc-web` says `application/grpc-web+proto`"
    WEB_FRAMES = (
        "gRPC-Web is translated without a look into its messages: what is wrong with them the agent says, as gRPC does, "
        "and answers are packed where the agent packs them"
    )
    WEB_REFUSALS = (
        "what Envoy itself refuses of gRPC-Web has a status of HTTP: 400 for base64 that is padded between, and for a "
        "deadline that it sees pass before the agent does 504, with `grpc-status` 14 and not 4"
    )
    LARGE_GRPC = "Envoy ends a call of gRPC with too large metadata by resetting it"
    GRPC_BY_HTTP1 = "`application/grpc` by HTTP/1.1 is gRPC to Envoy, and refused in its words"
    UPGRADES = (
        "where no WebSocket comes of an upgrade, the answer lacks its body, or its header `upgrade`"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where callers come in.

    Attributes:
        url: for HTTP.
        grpc_address: for gRPC.
        http: a client of it.
        at_edge: whether it is an Envoy.
    """

    url: str
    grpc_address: str
    http: httpx.AsyncClient
    at_edge: bool

    @property
    def nobody(self) -> str:
        """What agents are told of callers whom nobody knows: an Envoy tells them of none."""
        return "" if self.at_edge else "anonymous"


def at_gateway(gateway: Gateway, http: httpx.AsyncClient) -> Entry:
    return Entry(url=gateway.url, grpc_address=gateway.grpc_address, http=http, at_edge=False)


@contextlib.asynccontextmanager
async def at_edge(database_url: str, gateway: Gateway, folder: Path) -> AsyncIterator[Entry]:
    """An Envoy before a gateway and its agents, told what to do by a further replica of their registry."""
    options = EdgeOptions(
        gateway=gateway.url.removeprefix("http://"),
        gateway_grpc=gateway.grpc_address,
        # Tests make agents fail on purpose, more often than an instance may that is called again.
        breaker=Breaker(
            ratio=1, volume=1_000_000, window=timedelta(seconds=10), open_for=timedelta(seconds=5)
        ),
    )
    async with (
        Registry(
            database_url=database_url,
            address="127.0.0.1:0",
            cold_start=timedelta(0),
            edge=options,
        ) as registry,
        edges.running(folder, registry.address) as edge,
    ):
        await edges.routed(edge.http)
        yield Entry(url=edge.url, grpc_address=edge.address, http=edge.http, at_edge=True)


def expect(items: Iterable[pytest.Item]) -> None:
    """What is marked as the gateway's alone has to fail at the edge."""
    for item in items:
        mark = item.get_closest_marker("gateway_only")
        if mark is None:
            continue
        (why,) = mark.args
        if not isinstance(why, Why) or not {"entry", "entry_of_own"} & set(
            getattr(item, "fixturenames", ())
        ):
            raise pytest.UsageError(
                f"{item.nodeid}: gateway_only takes a Why, at a test of both entries"
            )
        callspec = getattr(item, "callspec", None)
        if callspec is not None and EDGE in (
            callspec.params.get("entry"),
            callspec.params.get("entry_of_own"),
        ):
            run = mark.kwargs.get("run", True)
            item.add_marker(pytest.mark.xfail(reason=str(why), strict=True, run=run))
