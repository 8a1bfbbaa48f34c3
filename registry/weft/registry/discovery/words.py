"""Free text: what agents say of themselves, looked for by PostgreSQL's full-text search."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from weft import rpc
from weft.postgres import Database
from weft.registry.catalog import Catalog, Method
from weft.registry.index import Index

log = logging.getLogger("weft.registry")

SQL = "weft.registry.discovery.sql"
_BATCH = 200  # agents written at a time
_AGAIN = 1.0  # seconds after the database was away
_FORBIDDEN = re.compile(r'(?:^|\s)-\s*("[^"]*"|\S+)')
_HUMPS = re.compile(r"[a-z0-9](?=[A-Z])|[A-Z](?=[A-Z][a-z])")
_MAX_CHARACTERS = 20_000  # of one kind of text of an agent: a tsvector holds 1 MiB


@dataclass(frozen=True, slots=True)
class Found:
    """An agent whose words meet a text.

    Attributes:
        rank: how well; greater is better.
        methods: paths of those of its skills that have any of the words, best first.
    """

    rank: float
    methods: tuple[str, ...]


@dataclass(slots=True)
class _Row:
    agent: str
    method: str
    names: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    descriptions: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    def texts(self) -> tuple[str, str, str, str]:
        kinds = (self.names, self.tags, self.descriptions, self.examples)
        # PostgreSQL keeps no zero bytes, and contracts may hold any text.
        joined = (" ".join(kind).replace("\0", " ")[:_MAX_CHARACTERS] for kind in kinds)
        names, tags, descriptions, examples = joined
        return names, tags, descriptions, examples


class Words:
    """Keeps the words of all agents in step with the index, and looks them up.

    Args:
        database: the registry's own schema.
        patience: how long a statement may take.
    """

    def __init__(
        self, database: Database, index: Index, sets: Catalog, *, patience: timedelta
    ) -> None:
        self._database = database
        self._index = index
        self._sets = sets
        self._patience = patience
        self._stored: dict[str, str] | None = None  # agent -> digest; None: not read yet

    async def run(self) -> None:
        """Writes what agents say as they register and change, for ever; late where the database is away."""
        revision = -1
        pending: dict[str, None] = {}
        while True:
            names = self._index.changes(revision)
            revision = self._index.revision
            pending |= dict.fromkeys(self._index.names() if names is None else names)
            try:
                await self._write(pending)
            except rpc.Error as failed:
                log.warning("words of agents wait to be written", extra={"error": failed.message})
                await asyncio.sleep(_AGAIN)
            else:
                if revision == self._index.revision:
                    await self._index.changed.wait()

    async def _write(self, pending: dict[str, None]) -> None:
        if self._stored is None:
            with rpc.Deadline.after(self._patience).applied():
                rows = await self._database.fetch("all_words")
            self._stored = {row["agent"]: row["digest"] for row in rows}
        while pending:
            batch = list(pending)[:_BATCH]
            changed = {name: made for name in batch if (made := self._changed(name)) is not None}
            if changed:
                await self._put(changed)
            for name in batch:
                del pending[name]

    def _changed(self, name: str) -> tuple[str, list[_Row]] | None:
        rows = list(_rows(name, self._index, self._sets))
        texts = [(row.method, row.texts()) for row in rows]
        digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        assert self._stored is not None
        return None if self._stored.get(name) == digest else (digest, rows)

    async def _put(self, changed: Mapping[str, tuple[str, list[_Row]]]) -> None:
        # In one order, so that two registries that write the same agents wait for each other and never deadlock.
        names = sorted(changed)
        rows = [(changed[name][0], row) for name in names for row in changed[name][1]]
        texts = [row.texts() for _, row in rows]
        with rpc.Deadline.after(self._patience).applied():
            async with self._database.transaction() as work:
                await work.execute("delete_words", names)
                await work.execute(
                    "put_words",
                    [row.agent for _, row in rows],
                    [row.method for _, row in rows],
                    [digest for digest, _ in rows],
                    *(list(kind) for kind in zip(*texts, strict=True)),
                )
        assert self._stored is not None
        self._stored |= {name: changed[name][0] for name in names}

    async def find(self, text: str) -> dict[str, Found]:
        """Agents whose words meet a text: those that have all of its words, or, where none has, any of them.

        Raises:
            rpc.InvalidArgument: there is no word in it that could be looked for.
            rpc.Unavailable, rpc.DeadlineExceeded: the database is away.
        """
        wanted = _FORBIDDEN.sub(" ", text)
        forbidden = " ".join(f"-{word}" for word in _FORBIDDEN.findall(text))
        with rpc.Deadline.after(self._patience).applied():
            if not await self._database.fetchval("count_words", wanted):
                raise rpc.InvalidArgument(
                    "has no word that could be looked for: words as common as 'the' do not count",
                    field="query.text",
                )
            rows = await self._database.fetch("find_words", text, wanted, forbidden)
        agents = {row["agent"]: row for row in rows if not row["method"]}
        whole = {name for name, row in agents.items() if row["whole"]}
        skills: dict[str, list[tuple[float, str]]] = {}
        for row in rows:
            if row["method"]:
                skills.setdefault(row["agent"], []).append((-row["rank"], row["method"]))
        return {
            name: Found(agents[name]["rank"], tuple(m for _, m in sorted(skills.get(name, ()))))
            for name in whole or agents
        }


def _rows(name: str, index: Index, sets: Catalog) -> Iterator[_Row]:
    """The rows of an agent: one of each skill, and at the end the agent with all of them."""
    agent = index.agent(name)
    if agent is None:
        return
    whole = _Row(name, "", [_split(name)], [*agent.tags, agent.tier], [agent.description])
    for ref in agent.services:
        service = sets.service(ref)
        whole.names.append(_split(ref.name))
        for method in () if service is None else service.methods:
            row = _skill(name, method)
            for into, of in zip(_kinds(whole), _kinds(row), strict=True):
                into.extend(of)
            yield row
    yield whole


def _skill(agent: str, method: Method) -> _Row:
    said = method.skill
    names = [_split(method.path.rpartition("/")[2]), said.tool_name]
    return _Row(
        agent, method.path, names, list(said.tags), [said.description], _contents(said.examples)
    )


def _kinds(row: _Row) -> tuple[list[str], ...]:
    return row.names, row.tags, row.descriptions, row.examples


def _contents(examples: Iterable[str]) -> list[str]:
    return [_split(example) for example in examples]


def _split(name: str) -> str:
    """A name and its words: "ListModels" is also "List Models", "support-triage" also "support triage"."""
    words = _HUMPS.sub(lambda found: f"{found[0]} ", re.sub(r"[-_./:{}\[\]\",]+", " ", name))
    return f"{name} {words}"
