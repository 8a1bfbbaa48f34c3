"""Versions of the embedding, side by side: a new one is made while the old one is searched by."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import orjson

from weft import rpc
from weft.agents.memory.embedding import Embedder, Vector, Vectors, WrongVectors
from weft.agents.memory.embedding.port import MOST_DIMENSIONS
from weft.postgres import Database, Transaction

log = logging.getLogger("weft.agents")

_BATCH = 256  # chunks
_KNOWN = 5.0  # seconds the list is believed
_LOOKED = timedelta(seconds=30)


class PgvectorMissing(rpc.FailedPrecondition):
    """PostgreSQL has no pgvector. Install it, and run CREATE EXTENSION vector as a superuser."""

    reason = "PGVECTOR_MISSING"


class UnknownEmbedding(rpc.NotFound):
    """There is no embedding of this name."""

    reason = "UNKNOWN_EMBEDDING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of the embedding."""

    number: int
    name: str
    """What makes its vectors."""
    dimensions: int
    ready: bool
    """Whether every chunk had its vector once: it is searched by."""


class Versions:
    """The versions, and what fills them.

    Args:
        database: where they are.
        embedders: those this process has.
    """

    def __init__(self, database: Database, embedders: Sequence[Embedder]) -> None:
        self._database = database
        self._embedders: Mapping[str, Embedder] = {one.name: one for one in embedders}
        self._known: Sequence[Version] = ()
        self._looked = float("-inf")
        self._wanted = asyncio.Event()

    async def register(self) -> None:
        """Makes a version for each embedder of this process that has none.

        Raises:
            PgvectorMissing: vectors cannot be stored.
            WrongVectors: the version of an embedder's name has other dimensions.
        """
        if not self._embedders:
            return
        async with self._database.transaction() as transaction:
            await transaction.execute("lock_embeddings")
            known = {one.name: one for one in _versions(await transaction.fetch("list_embeddings"))}
            for embedder in self._embedders.values():
                before = known.get(embedder.name)
                if before is None:
                    await _make(transaction, embedder)
                elif before.dimensions != embedder.dimensions:
                    raise WrongVectors(
                        f"Vectors of {embedder.name} have {before.dimensions} dimensions, not "
                        f"{embedder.dimensions}. Give the new embedding another name."
                    )
        self._looked = float("-inf")

    async def all(self) -> Sequence[Version]:
        """Every version, the oldest first, as it was within the last 5 seconds."""
        if time.monotonic() - self._looked > _KNOWN:
            self._known = _versions(await self._database.fetch("list_embeddings"))
            self._looked = time.monotonic()
        return self._known

    async def serving(self) -> tuple[Version, Embedder] | None:
        """The newest version that is ready and has an embedder here; None: there is none."""
        for version in reversed(await self.all()):
            if version.ready and version.name in self._embedders:
                return version, self._embedders[version.name]
        return None

    async def covers(self, tenant: str, document_id: str, chunks: int) -> bool:
        """Whether every chunk of a document is found by the version that serves."""
        if (serving := await self.serving()) is None:
            return False
        number = serving[0].number
        return bool(
            await self._database.fetchval("vectors_in", tenant, document_id, number) == chunks
        )

    async def why_not(self) -> str:
        """Why none serves, in words."""
        if not self._embedders:
            return "no embedding is set up"
        making = [one.name for one in await self.all() if one.name in self._embedders]
        return (
            f"the embedding {making[-1]} is still being made" if making else "there is no embedding"
        )

    async def embed(self, texts: Sequence[str]) -> list[tuple[Version, Vectors]]:
        """Vectors of texts, by each version that is ready and has an embedder here.

        What cannot be embedded now is left to `keep`, which is told.
        """
        made = []
        for version in await self.all():
            if not version.ready or version.name not in self._embedders:
                continue
            try:
                made.append((version, await self._embedders[version.name].embed(texts)))
            except rpc.Error as failed:
                log.warning(
                    "chunks are embedded later",
                    extra={"embedding": version.name, "failure": failed.reason},
                )
                self.wake()
        return made

    async def fill(self, name: str) -> int:
        """Embeds every chunk that has no vector of a version, makes the version ready, and returns how many there were.

        Several processes may do so at once: none waits for another, and what two embed is stored once.

        Raises:
            UnknownEmbedding: this process has no embedder of that name.
            rpc.Error: they cannot be embedded or stored now.
        """
        version = await self._registered(name)
        embedder = self._embedders[name]
        filled = 0
        while found := await self._pass(version, embedder):
            filled += found
        if not version.ready:
            await self._database.execute("mark_ready", version.number)
            self._looked = float("-inf")
            log.info("embedding is ready", extra={"embedding": name, "chunks": filled})
        return filled

    def wake(self) -> None:
        """Has `keep` of this process look at once."""
        self._wanted.set()

    async def keep(self) -> None:
        """Fills what is not complete, for ever; for a task of its own. It looks every 30 s, and when something is left to it."""
        while True:
            self._wanted.clear()
            for name in self._embedders:
                try:
                    await self.fill(name)
                except rpc.Error as failed:
                    log.warning(
                        "an embedding is not complete",
                        extra={"embedding": name, "failure": failed.reason},
                    )
            try:
                async with asyncio.timeout(_LOOKED.total_seconds()):
                    await self._wanted.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(1)  # whatever failed a moment ago would fail again

    async def retire(self, name: str) -> None:
        """Deletes a version with its vectors.

        Raises:
            UnknownEmbedding: there is none of this name.
        """
        async with self._database.transaction() as transaction:
            await transaction.execute("lock_embeddings")
            rows = await transaction.fetch("list_embeddings")
            gone = [one for one in _versions(rows) if one.name == name]
            if not gone:
                raise UnknownEmbedding
            await transaction.execute("delete_embedding", gone[0].number)
            await transaction.execute("drop_vectors", gone[0].number)
        self._looked = float("-inf")

    async def _registered(self, name: str) -> Version:
        self._looked = float("-inf")
        for version in await self.all():
            if version.name == name and name in self._embedders:
                return version
        raise UnknownEmbedding

    async def _pass(self, version: Version, embedder: Embedder) -> int:
        """Embeds all that is missing, once through; returns how many vectors were stored."""
        behind = stored = 0
        while rows := await self._database.fetch("without_vector", version.number, behind, _BATCH):
            texts = [embedded_text(row["title"], row["headings"], row["text"]) for row in rows]
            vectors = await embedder.embed(texts)
            numbers = [row["number"] for row in rows]
            async with self._database.transaction() as transaction:
                stored += await put(transaction, version, numbers, vectors)
            behind = numbers[-1]
        return stored


async def put(
    transaction: Transaction, version: Version, numbers: Sequence[int], vectors: Iterable[Vector]
) -> int:
    """Stores vectors of chunks and returns how many."""
    texts = [vector_text(vector) for vector in vectors]
    stored: int = await transaction.fetchval("put_vectors", version.number, list(numbers), texts)
    return stored


def vector_text(vector: Vector) -> str:
    """A vector in pgvector's text form."""
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def embedded_text(title: str, headings: Sequence[str], text: str) -> str:
    """What is embedded of a chunk: where it stands, then what it says."""
    under = [heading for heading in headings if heading != title]
    return f"{' > '.join([title, *under])}\n{text}"


async def _make(transaction: Transaction, embedder: Embedder) -> None:
    if not 1 <= embedder.dimensions <= MOST_DIMENSIONS:
        raise WrongVectors(f"A vector has 1 to {MOST_DIMENSIONS:,} dimensions.")
    number = await transaction.fetchval("put_embedding", embedder.name, embedder.dimensions)
    if not await transaction.fetchval("make_vectors", number, embedder.dimensions):
        raise PgvectorMissing


def _versions(rows: Iterable[asyncpg.Record]) -> list[Version]:
    return [Version(**row) for row in rows]
