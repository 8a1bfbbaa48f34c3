"""The A2A door: cards, and the operations by two bindings at one URL for each agent.

/a2a/{agent}                                  JSON-RPC
/a2a/{agent}/message:send, /tasks, ...        HTTP+JSON
/a2a/{agent}/.well-known/agent-card.json      the card

The mesh as a whole is the agent "-"; its card also stands at the root of the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import parse_qs

from weft import rpc
from weft.gateway.doors.a2a import cards, errors, protocol
from weft.gateway.doors.a2a.jsonrpc import JsonRpc
from weft.gateway.doors.a2a.operations import OPERATIONS, Parts, Request
from weft.gateway.doors.a2a.params import Params
from weft.gateway.doors.a2a.protocol import OperationUnknown
from weft.gateway.doors.a2a.pushing import Pusher
from weft.gateway.doors.a2a.rest import Rest
from weft.gateway.doors.a2a.running import Runner
from weft.gateway.doors.a2a.skills import MESH, SkillSet, skill_sets
from weft.gateway.doors.a2a.store import LIFE, Store
from weft.gateway.doors.a2a.tasks import Owner
from weft.gateway.doors.a2a.webhooks import Webhooks
from weft.gateway.doors.calls import Calls
from weft.gateway.failures import AgentUnknown
from weft.gateway.http.exchange import Exchange, Headers
from weft.gateway.transcoding.catalog import Catalog
from weft.gateway.transcoding.router import MethodNotAllowed
from weft.postgres import Database

PATH = "/a2a"

_CARD = ".well-known/agent-card.json"
_ROOT_CARD = f"/{_CARD}"
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
_VERSION = b"a2a-version"
_VERSION_QUERY = "A2A-Version"
_EXTENSIONS = b"a2a-extensions"
_FRESH = 60  # seconds
_MOST_CARDS = 1_000


class A2aDoor:
    """Serves agents to other vendors' agents.

    Args:
        calls: the way to agents.
        database: keeps tasks.
        asks: whether callers must say who they are.
        public_url: where callers reach the gateway; empty: where the header Host says.
        push_hosts: hosts inside that may be told of tasks; see Webhooks.
        task_life: how long settled tasks are kept.
    """

    def __init__(
        self,
        calls: Calls,
        database: Database,
        *,
        asks: bool,
        public_url: str = "",
        push_hosts: Collection[str] = (),
        task_life: timedelta = LIFE,
    ) -> None:
        store = Store(database, life=task_life)
        webhooks = Webhooks(push_hosts)
        self._calls = calls
        self._asks = asks
        self._public_url = public_url.rstrip("/")
        self._runner = Runner(calls, store)
        self._pusher = Pusher(store, webhooks)
        self._parts = Parts(calls=calls, store=store, runner=self._runner, webhooks=webhooks)
        self._sets: Mapping[str, SkillSet] = {MESH: SkillSet(MESH, ())}
        self._cards: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self._since = b""

    def use(self, catalog: Catalog) -> None:
        """Takes the methods to serve."""
        self._sets = skill_sets(catalog)
        self._cards.clear()
        self._since = format_datetime(datetime.now(UTC), usegmt=True).encode()

    async def run(self) -> None:
        """Looks after tasks and tells of them, until cancelled; for a task of its own."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._runner.run())
            group.create_task(self._pusher.run())

    def end_streams(self) -> None:
        """Ends the streams that have no end of their own."""
        self._runner.closing.set()

    async def close(self, grace: timedelta) -> None:
        """Lets tasks end, and gives up those that do not."""
        await self._runner.close(grace)

    def serves(self, path: str) -> bool:
        """Whether a path is one of this door."""
        return path.startswith(PATH + "/") or path in {PATH, _ROOT_CARD}

    def name_of(self, exchange: Exchange) -> str:
        """What a request was for, to count it: the skill it called, or the door itself."""
        called = exchange.call.method if exchange.call is not None else PATH
        return called.lstrip("/") if called.count("/") > 1 and not self.serves(called) else "a2a"

    async def serve(self, exchange: Exchange) -> rpc.Error | None:
        """Serves a request and returns the error that was told, if one was."""
        agent, rest = _split(exchange.path)
        binding = Rest(exchange, rest) if rest else JsonRpc(exchange)
        try:
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
        protocol.check_version(_version(exchange))
        operation = OPERATIONS.get(binding.operation)
        if operation is None:
            raise OperationUnknown(f"A2A has no operation {binding.operation!r}.")
        owner = _owner(exchange)
        if params.text("tenant") not in {"", owner.tenant}:
            raise rpc.InvalidArgument("is not that of the caller; leave it out", field="tenant")
        _activate(exchange)
        answer = await operation(
            Request(
                exchange=exchange,
                skills=skills,
                params=params,
                owner=owner,
                parts=self._parts,
                extended_card=lambda: self._made(exchange, skills, scopes),
            )
        )
        if isinstance(answer, bytes):
            await binding.answer(answer)
            return None
        return await binding.stream(answer)

    async def _card(self, exchange: Exchange, skills: SkillSet) -> None:
        if exchange.method not in {"GET", "HEAD"}:
            raise MethodNotAllowed(exchange.method, exchange.path, {"GET", "HEAD", "OPTIONS"})
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

    def _made(self, exchange: Exchange, skills: SkillSet, scopes: Collection[str] | None) -> bytes:
        url = f"{self._url(exchange)}{PATH}/{skills.agent}"
        return cards.card(skills, url, asks=self._asks, scopes=scopes)

    def _url(self, exchange: Exchange) -> str:
        if self._public_url:
            return self._public_url
        host = exchange.header(b"host").decode("latin-1")
        if not _HOST.fullmatch(host):
            raise rpc.InvalidArgument("is missing or malformed", field="host")
        return f"http://{host}"


async def fail(exchange: Exchange, error: rpc.Error) -> None:
    """Answers with what went wrong outside of any binding."""
    with contextlib.suppress(ConnectionError):
        await exchange.fail(error, errors.rest)


def _split(path: str) -> tuple[str, str]:
    """The agent and what follows it."""
    if path in {_ROOT_CARD, f"{PATH}/{_CARD}"}:
        return MESH, _CARD
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
    identity = exchange.call.identity if exchange.call is not None else None
    assert identity is not None  # whoever was let in has one
    return Owner(identity.tenant, identity.subject)
