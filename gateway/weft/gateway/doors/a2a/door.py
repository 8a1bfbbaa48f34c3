"""The A2A door: cards, and the operations by two bindings at one URL for each agent.

/a2a/{agent}                                  JSON-RPC
/a2a/{agent}/message:send, /tasks, ...        HTTP+JSON
/a2a/{agent}/.well-known/agent-card.json      the card
/a2a/.well-known/jwks.json                    the key that cards are signed with

The mesh as a whole is the agent "-"; its card also stands at the root of the host. The third binding is in `grpc`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qs, urlsplit

import orjson

from weft import rpc
from weft.gateway.doors.a2a import cards, errors, protocol
from weft.gateway.doors.a2a.jsonrpc import JsonRpc
from weft.gateway.doors.a2a.operations import OPERATIONS, Answer
from weft.gateway.doors.a2a.params import Params
from weft.gateway.doors.a2a.protocol import OperationUnknown
from weft.gateway.doors.a2a.pushing import push_form
from weft.gateway.doors.a2a.request import Parts, Request
from weft.gateway.doors.a2a.rest import Rest
from weft.gateway.doors.a2a.shelf import Shelf
from weft.gateway.doors.a2a.signing import CardSigner
from weft.gateway.doors.a2a.skills import MESH, SkillSet, skill_sets
from weft.gateway.doors.calls import Calls
from weft.gateway.failures import AgentUnknown
from weft.gateway.guarded import Guarded
from weft.gateway.http.exchange import Exchange, Headers
from weft.gateway.jobs import Owner
from weft.gateway.jobs.direct import Direct
from weft.gateway.jobs.office import Office
from weft.gateway.transcoding.catalog import Catalog
from weft.gateway.transcoding.router import MethodNotAllowed
from weft.postgres import Database
from weft.rpc.signing import Signer

PATH = "/a2a"

GRPC_PREFIX = "/lf.a2a.v1.A2AService/"

_CARD = ".well-known/agent-card.json"
_KEYS = ".well-known/jwks.json"
_ROOT_CARD = f"/{_CARD}"
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
_VERSION = b"a2a-version"
_VERSION_QUERY = "A2A-Version"
_EXTENSIONS = b"a2a-extensions"
_FRESH = 60  # seconds
_MOST_CARDS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class A2aSettings:
    """How the gateway speaks A2A."""

    public_url: str = ""
    """Where callers reach the gateway by HTTP, for cards; empty: where each request was sent to."""
    public_grpc: str = ""
    """Where by gRPC, "host:port"; empty: at the same host, and the port that is listened on."""
    agent: str = ""
    """Agent that is meant by who names none: the card at the root of the host, calls by gRPC; empty: the mesh."""


class A2aDoor:
    """Serves agents to other vendors' agents.

    Args:
        calls: the way of requests to agents.
        guarded: the way to agents, with all guards.
        database: keeps tasks.
        office: where jobs, which tasks are, are seen to.
        direct: begins them here.
        asks: whether callers must say who they are.
        signer: signs cards; None: they are not signed.
        addresses: where is listened: a URL for HTTP, "host:port" for gRPC.
    """

    def __init__(
        self,
        calls: Calls,
        guarded: Guarded,
        database: Database,
        office: Office,
        direct: Direct,
        *,
        asks: bool,
        settings: A2aSettings | None = None,
        signer: Signer | None = None,
        addresses: Callable[[], tuple[str, str]],
    ) -> None:
        self._calls = calls
        self._asks = asks
        self._settings = settings or A2aSettings()
        self._signer = None if signer is None else CardSigner(signer)
        self._addresses = addresses
        self._shelf = Shelf(database, office.jobs)
        self._closing = asyncio.Event()
        self._parts = Parts(
            calls=calls,
            guarded=guarded,
            shelf=self._shelf,
            direct=direct,
            asking=office.asking,
            targets=office.targets,
            closing=self._closing,
        )
        office.forms[protocol.NAME] = push_form(self._shelf)
        self._sets: Mapping[str, SkillSet] = {MESH: SkillSet(MESH, ())}
        self._cards: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self._since = b""

    def use(self, catalog: Catalog) -> None:
        """Takes the methods to serve."""
        self._sets = skill_sets(catalog)
        self._shelf.mesh = self._sets[MESH]
        self._cards.clear()
        self._since = format_datetime(datetime.now(UTC), usegmt=True).encode()

    def end_streams(self) -> None:
        """Ends the streams that have no end of their own."""
        self._closing.set()

    def serves(self, path: str) -> bool:
        """Whether a path is one of this door."""
        return path.startswith(PATH + "/") or path in {PATH, _ROOT_CARD}

    def name_of(self, exchange: Exchange) -> str:
        """What a request was for, to count it: the skill it called, or the door itself."""
        called = exchange.call.method if exchange.call is not None else PATH
        own = self.serves(called) or called.startswith(GRPC_PREFIX)
        return called.lstrip("/") if called.count("/") > 1 and not own else "a2a"

    def agent_of(self, tenant: str) -> str:
        """The agent that is meant by a tenant, where there is no path to name it."""
        return tenant if tenant in self._sets else self._settings.agent or MESH

    async def serve(self, exchange: Exchange) -> rpc.Error | None:
        """Serves a request and returns the error that was told, if one was."""
        agent, rest = _split(exchange.path)
        if exchange.path == _ROOT_CARD:
            agent = self.agent_of("")
        binding = Rest(exchange, rest) if rest else JsonRpc(exchange)
        try:
            if rest == _KEYS:
                await self._keys(exchange)
                return None
            skills = self._sets.get(agent)
            if skills is None:
                raise AgentUnknown
            if rest == _CARD:
                await self._card(exchange, skills)
                return None
            return await self._operate(exchange, skills, binding)
        except rpc.Error as failed:
            if exchange.started:
                raise
            await binding.fail(failed)
            return failed

    async def _operate(
        self, exchange: Exchange, skills: SkillSet, binding: JsonRpc | Rest
    ) -> rpc.Error | None:
        if isinstance(binding, JsonRpc) and exchange.method != "POST":
            raise MethodNotAllowed(exchange.method, exchange.path, {"POST", "OPTIONS"})
        scopes = await self._calls.visit(exchange)
        params = Params(binding.read(await self._calls.read(exchange)))
        if params.text("tenant") not in {"", _owner(exchange).tenant}:
            protocol.check_version(_version(exchange))
            raise rpc.InvalidArgument("is not that of the caller; leave it out", field="tenant")
        answer = await self.ask(exchange, skills.agent, binding.operation, params, scopes)
        if isinstance(answer, bytes):
            await binding.answer(answer)
            return None
        return await binding.stream(answer)

    async def ask(
        self,
        exchange: Exchange,
        agent: str,
        name: str,
        params: Params,
        scopes: frozenset[str] | None,
    ) -> Answer:
        """Does an operation for a caller that was let in, by whatever binding it came.

        Args:
            exchange: the request.
            agent: whom it is asked of, or MESH.
            name: of the operation.
            params: its parameters.
            scopes: of the caller; None: all.

        Raises:
            rpc.Error: it cannot be done.
        """
        protocol.check_version(_version(exchange))
        skills = self._sets.get(agent)
        operation = OPERATIONS.get(name)
        if skills is None:
            raise AgentUnknown
        if operation is None:
            raise OperationUnknown(f"A2A has no operation {name!r}.")
        _activate(exchange)
        return await operation(
            Request(
                exchange=exchange,
                skills=skills,
                params=params,
                owner=_owner(exchange),
                parts=self._parts,
                extended_card=lambda: self._made(exchange, skills, scopes),
            )
        )

    async def _card(self, exchange: Exchange, skills: SkillSet) -> None:
        _only_read(exchange)
        key = (skills.agent, self._url(exchange))
        known = self._cards.get(key)
        if known is None:
            body = self._made(exchange, skills, frozenset() if self._asks else None)
            known = (body, b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode())
            if len(self._cards) >= _MOST_CARDS:
                self._cards.clear()
            self._cards[key] = known
        body, tag = known
        headers: Headers = [
            (b"etag", tag),
            (b"cache-control", b"public, max-age=%d" % _FRESH),
            (b"last-modified", self._since),
            (b"vary", b"host"),
        ]
        if exchange.header(b"if-none-match") == tag:
            await exchange.begin(304, headers)
            await exchange.write(b"", more=False)
        else:
            await exchange.reply(200, body, headers=headers)

    async def _keys(self, exchange: Exchange) -> None:
        """The key that cards are signed with."""
        _only_read(exchange)
        body = b'{"keys":[]}' if self._signer is None else self._signer.keys
        fresh: Headers = [(b"cache-control", b"public, max-age=%d" % _FRESH)]
        await exchange.reply(200, body, b"application/jwk-set+json", fresh)

    def _made(self, exchange: Exchange, skills: SkillSet, scopes: Collection[str] | None) -> bytes:
        url = self._url(exchange)
        here = f"{url}{PATH}/{skills.agent}"
        card = cards.card(skills, here, self._grpc(url), asks=self._asks, scopes=scopes)
        if self._signer is not None:
            card = self._signer.sign(card, f"{url}{PATH}/{_KEYS}")
        return orjson.dumps(card)

    def _url(self, exchange: Exchange) -> str:
        if self._settings.public_url:
            return self._settings.public_url.rstrip("/")
        host = exchange.header(b"host").decode("latin-1")
        if not host and exchange.path.startswith(GRPC_PREFIX):
            return self._addresses()[0]
        if not _HOST.fullmatch(host):
            raise rpc.InvalidArgument("is missing or malformed", field="host")
        return f"http://{host}"

    def _grpc(self, url: str) -> str:
        if self._settings.public_grpc:
            return self._settings.public_grpc
        host = urlsplit(url).hostname or ""
        port = self._addresses()[1].rpartition(":")[2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def fail(exchange: Exchange, error: rpc.Error) -> None:
    """Answers with what went wrong outside of any binding."""
    with contextlib.suppress(ConnectionError):
        await exchange.fail(error, errors.rest)


def _split(path: str) -> tuple[str, str]:
    """The agent and what follows it."""
    if path in {_ROOT_CARD, f"{PATH}/{_CARD}"}:
        return MESH, _CARD
    if path == f"{PATH}/{_KEYS}":
        return MESH, _KEYS
    agent, _, rest = path[len(PATH) + 1 :].partition("/")
    return agent or MESH, rest


def _version(exchange: Exchange) -> str:
    header = exchange.header(_VERSION)
    if header or _VERSION_QUERY not in exchange.query:
        return header.decode("latin-1")
    return parse_qs(exchange.query).get(_VERSION_QUERY, [""])[0]


def _activate(exchange: Exchange) -> None:
    """Says that the extension is used, to who asked for it."""
    asked = exchange.header(_EXTENSIONS).decode("latin-1")
    if protocol.EXTENSION in (each.strip() for each in asked.split(",")):
        exchange.answer_headers.append((_EXTENSIONS, protocol.EXTENSION.encode()))


def _owner(exchange: Exchange) -> Owner:
    assert exchange.call is not None
    return Owner.of(exchange.call.identity)


def _only_read(exchange: Exchange) -> None:
    if exchange.method not in {"GET", "HEAD"}:
        raise MethodNotAllowed(exchange.method, exchange.path, {"GET", "HEAD", "OPTIONS"})
