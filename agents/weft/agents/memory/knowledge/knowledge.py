"""The door to long-term memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from weft.agents.memory.chunking import Chunking, Form
from weft.agents.memory.knowledge import adding, kept, searching
from weft.agents.memory.knowledge.derived import Derived
from weft.agents.memory.knowledge.documents import (
    Added,
    Document,
    DocumentNotFound,
    Found,
    Metadata,
    StoredDocument,
    Way,
    metadata_json,
    metadata_of,
)
from weft.agents.memory.knowledge.searching import Search, SearchSettings
from weft.agents.memory.knowledge.versions import Versions
from weft.postgres import Database, Transaction

if TYPE_CHECKING:
    import asyncpg
    import redis.asyncio

    from weft.agents.memory.embedding import Embedder

SCHEMA = "memory"
SQL = "weft.agents.memory.sql"
_MOST_PAGE = 500


async def database(url: str) -> Database:
    """The schema of long-term memory in a PostgreSQL database, brought up to date. Close it by `close()`."""
    return await Database.opened(url, SCHEMA, SQL)


class Knowledge:
    """Long-term memory of all tenants.

    Args:
        database: as `database` gives it.
        embedders: what makes vectors; the newest version that is complete is searched by. None: words only.
        cache: Redis, where results are kept for a minute, with replies in bytes; None: they are not.
        chunking: how documents are cut.
        settings: how is searched.
    """

    def __init__(
        self,
        database: Database,
        embedders: Sequence[Embedder] = (),
        *,
        cache: redis.asyncio.Redis | None = None,
        chunking: Chunking | None = None,
        settings: SearchSettings | None = None,
    ) -> None:
        self.versions = Versions(database, embedders)
        self._database = database
        self._derived = Derived(cache) if cache is not None else None
        self._chunking = chunking or Chunking()
        self._settings = settings or SearchSettings()

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[Knowledge]:
        """Registers the embedders, and embeds what has no vectors yet as long as the context.

        Raises:
            PgvectorMissing: vectors cannot be stored.
        """
        await self.versions.register()
        task = asyncio.create_task(self.versions.keep(), name="embeddings")
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def of(self, tenant: str) -> Library:
        """What is remembered for a tenant; empty: those who belong to none."""
        return Library(
            tenant,
            database=self._database,
            versions=self.versions,
            derived=self._derived,
            chunking=self._chunking,
            settings=self._settings,
        )


class Library:
    """The documents of one tenant. Made by `Knowledge.of`."""

    def __init__(
        self,
        tenant: str,
        *,
        database: Database,
        versions: Versions,
        derived: Derived | None,
        chunking: Chunking,
        settings: SearchSettings,
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._versions = versions
        self._derived = derived
        self._chunking = chunking
        self._settings = settings

    def with_settings(self, settings: SearchSettings) -> Library:
        """The same documents, searched otherwise."""
        return Library(
            self._tenant,
            database=self._database,
            versions=self._versions,
            derived=self._derived,
            chunking=self._chunking,
            settings=settings,
        )

    async def add(self, document: Document) -> Added:
        """Adds a document, or replaces the one of its id.

        Raises:
            InvalidArgument: it cannot be stored.
            CacheUnavailable: what was made of the tenant's documents cannot be dropped; nothing was changed.
        """
        async with self._changing():
            return await adding.add(
                self._database, self._versions, self._chunking, self._tenant, document
            )

    @contextlib.asynccontextmanager
    async def changes(self) -> AsyncIterator[Changes]:
        """Changes of many documents, which take effect at the end of the block, all or none.

        Raises:
            CacheUnavailable: what was made of the tenant's documents cannot be dropped; nothing was changed.
        """
        async with self._changing():
            async with self._database.transaction() as transaction:
                yield Changes(transaction, self._tenant, self._chunking)
            self._versions.wake()

    async def get(self, document_id: str) -> StoredDocument:
        """A document in full.

        Raises:
            DocumentNotFound: there is none of this id.
        """
        row = await self._database.fetchrow("get_document", self._tenant, document_id)
        if row is None:
            raise DocumentNotFound
        return _stored(row)

    async def list(
        self, *, behind: str = "", most: int = 100, where: Metadata | None = None
    ) -> list[StoredDocument]:
        """Documents by id, without their text.

        Args:
            behind: only those whose id comes behind this one.
            most: how many, 1 to 500.
            where: only those with these metadata.
        """
        text = metadata_json(where or {}, field="where")
        most = min(max(most, 1), _MOST_PAGE + 1)
        rows = await self._database.fetch("list_documents", self._tenant, behind, text, most)
        return [_stored(row) for row in rows]

    async def delete(self, document_id: str) -> None:
        """Deletes a document with all that was made of it: chunks, vectors of every version, cached results.

        Raises:
            DocumentNotFound: there is none of this id.
            CacheUnavailable: cached results cannot be dropped; nothing was deleted.
        """
        async with self._changing():
            if not await self._database.execute("delete_document", self._tenant, document_id):
                raise DocumentNotFound

    async def delete_all(self) -> int:
        """Deletes every document of the tenant and returns how many there were."""
        async with self._changing():
            return await self._database.execute("delete_tenant", self._tenant)

    async def search(
        self,
        question: str,
        *,
        limit: int = 5,
        where: Metadata | None = None,
        prefer: Metadata | None = None,
        way: Way = Way.HYBRID,
        diversity: float = 0.0,
        language: str = "english",
    ) -> Found:
        """Finds pieces of documents, best first.

        Where there is no embedding, or it fails, they are found by their words, and the result says so and why.

        Args:
            question: what to look for, in anybody's words; 1 to 2,000 characters.
            limit: how many, 1 to 50.
            where: metadata their documents have, with these values.
            prefer: metadata of documents that count more, and are found without a word of the question, too.
            way: by words, by meaning or by both.
            diversity: how much being unlike what was found already counts against being relevant, 0 to 1 (MMR).
            language: by whose rules the words of the question are compared.

        Raises:
            InvalidArgument: the search is not valid.
        """
        what = Search(
            question=question,
            limit=limit,
            where=where,
            prefer=prefer,
            way=way,
            diversity=diversity,
            language=language,
        )
        what.check()
        if self._derived is None:
            return await self._search(what)
        serving = await self._versions.serving()
        name = kept.name_of(what, self._settings, serving[0].name if serving else "")
        before, begun = await self._derived.get(self._tenant, name)
        if before is not None:
            return kept.of_bytes(before)
        found = await self._search(what)
        if not found.because:
            await self._derived.put(self._tenant, name, kept.as_bytes(found), begun)
        return found

    async def _search(self, what: Search) -> Found:
        return await searching.search(
            self._database, self._versions, self._settings, self._tenant, what
        )

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        if self._derived is None:
            yield
            return
        async with self._derived.changing(self._tenant):
            yield


class Changes:
    """Changes under way. Made by `Library.changes`."""

    def __init__(self, transaction: Transaction, tenant: str, chunking: Chunking) -> None:
        self.transaction = transaction
        """For what else shall take effect with them, in the same schema."""
        self._tenant = tenant
        self._chunking = chunking

    async def add(self, documents: Sequence[Document]) -> None:
        """Adds or replaces documents. By meaning they are found as soon as the embedding has caught up.

        Raises:
            InvalidArgument: one cannot be stored.
        """
        await adding.add_all(self.transaction, self._chunking, self._tenant, documents)

    async def delete(self, document_ids: Sequence[str]) -> None:
        """Deletes documents with all that was made of them; an id that there is not is passed over."""
        await self.transaction.execute("delete_documents", self._tenant, document_ids)


def _stored(row: asyncpg.Record) -> StoredDocument:
    values = dict(row)
    return StoredDocument(
        form=Form(values.pop("form")),
        headings=tuple(values.pop("headings")),
        metadata=metadata_of(values.pop("metadata")),
        **values,
    )
