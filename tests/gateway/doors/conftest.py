"""HTTP as bytes, and an agent of the tests' own, made from mirror.proto."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import google.rpc
import grpc_tools
import pytest
import pytest_asyncio
from tests.conformance.a2a import fleet as a2a_fleet

from weft import embedded, rpc
from weft.agents import Host
from weft.rpc.testing import wait_until

if TYPE_CHECKING:
    from tests.gateway.conftest import Mesh
    from tests.gateway.entries import Entry

_NUMBERS = itertools.count()
HERE = Path(__file__).parent
PROTO = HERE.parents[2] / "proto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP response. `whole`: it ended as its framing says it should."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool


class Connection:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        length: int | None = None,
    ) -> None:
        lines = [f"{method} {path} HTTP/1.1", "host: gateway.test"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body or method in {"POST", "PUT"}:
            lines.append(f"content-length: {len(body) if length is None else length}")
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return int(first.split()[1]), headers

    async def chunk(self) -> bytes:
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def answer(self, *, no_body: bool = False) -> Answer:
        status, headers = await self.head()
        body, whole = b"", True
        if not no_body and "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        elif not no_body and headers.get("transfer-encoding") == "chunked":
            whole = False
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while part := await self.chunk():
                    body += part
                whole = True
        return Answer(status=status, headers=headers, body=body, whole=whole)


@dataclass(frozen=True, slots=True)
class Wire:
    """Opens raw connections to a gateway."""

    host: str
    port: int

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        async with self.open() as connection:
            await connection.send(method, path, headers, body)
            return await connection.answer(no_body=method == "HEAD")


def wire_to(url: str) -> Wire:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return Wire(host, int(port))


@pytest.fixture
def wire(entry: Entry) -> Wire:
    return wire_to(entry.url)


@pytest.fixture(scope="session")
def mirror_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The generated modules of mirror.proto: `messages` and `services`."""
    folder = tmp_path_factory.mktemp("mirror")
    googleapis = Path(next(iter(google.rpc.__path__))).parents[1]
    made = subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"-I{HERE}", f"-I{PROTO}", f"-I{googleapis}"),
            f"-I{resources.files(grpc_tools) / '_proto'}",
            *(f"--python_out={folder}", f"--grpc_python_out={folder}", "mirror.proto"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    sys.path.insert(0, str(folder))
    yield SimpleNamespace(
        messages=importlib.import_module("mirror_pb2"),
        services=importlib.import_module("mirror_pb2_grpc"),
    )
    sys.path.remove(str(folder))


def mirror_of(messages: ModuleType, services: ModuleType) -> Any:  # noqa: C901 five methods
    """The agent."""

    class Mirror(services.MirrorServiceServicer):  # type: ignore[name-defined]
        async def Reflect(self, request: Any, context: Any) -> Any:
            metadata = [(key, value) for key, value in context.invocation_metadata()]
            await context.send_initial_metadata(
                (("mirror-leading", "a"), ("mirror-leading-bin", b"\x00\xff"), ("set-cookie", "x"))
            )
            context.set_trailing_metadata(
                (("mirror-trailing", "b"), ("mirror-trailing-bin", b"\xfe"), ("grpc-secret", "x"))
            )
            if request.fail:
                await context.abort(
                    rpc.NotFound.code,
                    "nobody is in the mirror: 100 % élan",
                    (("mirror-trailing", "c"),),
                )
            entries = [
                messages.Entry(key_name=k, value=v if isinstance(v, str) else v.hex())
                for k, v in metadata
            ]
            return messages.ReflectResponse(
                text=request.text,
                entries=entries,
                first_entry=entries[0],
                by_key={"a.b": "c"},
            )

        async def ReflectTwice(self, request: Any, context: Any) -> AsyncIterator[Any]:
            for _ in range(2):
                yield messages.ReflectResponse(text=request.text or "hello")
            trailing = (("mirror-trailing", "b"), ("mirror-trailing", "bb"))
            context.set_trailing_metadata(trailing)
            if request.fail:
                await context.abort(rpc.NotFound.code, "nobody is in the mirror", trailing)

        async def Turn(self, request: Any, context: Any) -> Any:
            return type(request)(content_type=request.content_type, data=request.data[::-1])

        async def TurnNamed(self, request: Any, context: Any) -> Any:
            turned = await self.Turn(request.body, context)
            turned.data += request.name.encode()
            return messages.TurnNamedResponse(name=request.name, body=turned)

        async def Pour(self, request: Any, context: Any) -> AsyncIterator[Any]:
            body = messages.TurnNamedRequest().body
            for number in range(request.count):
                yield type(body)(content_type=request.content_type, data=b"%d;" % number)
            if request.fail:
                raise rpc.NotFound("the jug is empty")

    return Mirror()


@pytest_asyncio.fixture(scope="module")
async def mirror_of_mesh(
    mesh: Mesh, mirror_code: SimpleNamespace
) -> AsyncIterator[SimpleNamespace]:
    """The agent mirror in the mesh; its generated code."""
    async with Host(registry=mesh.registry) as host:
        host.add(mirror_of(mirror_code.messages, mirror_code.services))
        await host.start()
        yield mirror_code


@pytest.fixture
async def mirror(entry: Entry, mirror_of_mesh: SimpleNamespace) -> SimpleNamespace:
    """The agent mirror, reached by this entry; its generated code."""

    async def served() -> bool:
        return (await entry.http.get("/v1/mirror:twice")).status_code == 200

    await wait_until(served)
    return mirror_of_mesh


@pytest_asyncio.fixture(scope="module")
async def scenarios(
    fresh_xds_of_module: None, servers: embedded.Endpoints
) -> AsyncIterator[a2a_fleet.Fleet]:
    """A mesh with the agent that shows every state of an A2A task."""
    name = f"scenarios_{next(_NUMBERS)}"
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute(f"create database {name} template template0")
    url = urlsplit(servers.database_url)._replace(path=f"/{name}").geturl()
    async with a2a_fleet.fleet(url) as made:
        yield made
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()
