"""The knowledge base in PostgreSQL: import, search and lists of articles.

Each passage is a document of `weft.agents.memory`, which searches them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from weft import rpc
from weft.agents.memory import Changes, Chunking, Document, Form, Hit, Knowledge, SearchSettings
from weft.agents.memory.embedding import Embedder
from weft.agents.support.research.articles import MOST_PASSAGE, Article, anchors
from weft.postgres import Database

_SETTINGS = SearchSettings(similarity=0.25)
_WHOLE = Chunking(most=MOST_PASSAGE, overlap=0)  # a passage is found as a whole


class UnknownArticle(rpc.NotFound):
    """There is no article of this id."""

    reason = "UNKNOWN_ARTICLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArticle:
    """An article as lists show it; markdown is empty there."""

    article_id: str
    title: str
    intents: Sequence[str]
    update_time: datetime
    markdown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did."""

    changed: int
    unchanged: int
    passages: int


class Shelf:
    """Articles and their passages.

    Args:
        database: where they are.
        embedder: what makes vectors; None: passages are found by their words only.
    """

    def __init__(self, database: Database, embedder: Embedder | None = None) -> None:
        self._database = database
        self._knowledge = Knowledge(
            database, [embedder] if embedder else [], chunking=_WHOLE, settings=_SETTINGS
        )
        self._passages = self._knowledge.of("")

    def kept(self) -> AbstractAsyncContextManager[Knowledge]:
        """Embeds passages that have no vectors yet, as long as the context.

        Raises:
            PgvectorMissing: vectors cannot be stored.
        """
        return self._knowledge.kept()

    async def search(self, query: str, *, intent: str, limit: int) -> Sequence[Hit]:
        """Passages, best first; their ids are those of the documents.

        Those in articles about the intent are preferred, and found without a word of the query, too.
        """
        prefer = {"intents": [intent]} if intent else None
        return (await self._passages.search(query, limit=limit, prefer=prefer)).hits

    async def article(self, article_id: str) -> StoredArticle:
        """An article in full.

        Raises:
            UnknownArticle: there is none of this id.
        """
        row = await self._database.fetchrow("get_article", article_id)
        if row is None:
            raise UnknownArticle(
                f'There is no article "{article_id[:100]}".', metadata={"article": article_id[:100]}
            )
        return StoredArticle(**row)

    async def articles(self, *, behind: tuple[str, str], limit: int) -> list[StoredArticle]:
        """Articles by title and id that come behind a title and id."""
        rows = await self._database.fetch("list_articles", *behind, limit)
        return [StoredArticle(**row) for row in rows]

    async def put(self, articles: Sequence[Article]) -> Imported:
        """Adds or replaces articles, all or none."""
        async with self._passages.changes() as changes:
            await changes.transaction.execute("lock_articles")
            changed = await _put(changes, articles)
            passages: int = await changes.transaction.fetchval("count_passages")
        return Imported(changed=changed, unchanged=len(articles) - changed, passages=passages)

    async def put_shipped(self, articles: Sequence[Article]) -> None:
        """Imports those shipped articles that changed since they were last shipped, and leaves others as they are."""
        async with self._passages.changes() as changes:
            await changes.transaction.execute("lock_articles")
            rows = await changes.transaction.fetch("shipped_digests")
            known = {row["article_id"]: row["digest"] for row in rows}
            new = [one for one in articles if known.get(one.article_id) != one.digest]
            await _put(changes, new)
            await changes.transaction.execute(
                "put_shipped", [one.article_id for one in new], [one.digest for one in new]
            )


async def _put(changes: Changes, articles: Sequence[Article]) -> int:
    ids = [one.article_id for one in articles]
    rows = await changes.transaction.fetch("known_articles", ids)
    before = {row["article_id"]: row for row in rows}
    changed = 0
    gone: list[str] = []
    passages: list[Document] = []
    for article in articles:
        known = before.get(article.article_id)
        if known is not None and known["digest"] == article.digest:
            continue
        given = await _put_article(changes, article, known)
        changed += 1
        passages += _passages(article, given)
        if known is not None:
            left = set(known["anchors"]).difference(given)
            gone += [f"{article.article_id}#{anchor}" for anchor in left]
    await changes.delete(gone)
    await changes.add(passages)
    return changed


async def _put_article(
    changes: Changes, article: Article, before: asyncpg.Record | None
) -> list[str]:
    """Stores what is no passage of an article, and returns the anchors of its passages."""
    old = dict(zip(before["section_digests"], before["anchors"], strict=True)) if before else {}
    digests = [section.digest for section in article.sections]
    known = {
        section: old[digest]
        for section, digest in zip(article.sections, digests, strict=True)
        if digest in old
    }
    given = anchors(article.sections, known)
    await changes.transaction.execute(
        "put_article",
        article.article_id,
        article.title,
        article.markdown,
        article.intents,
        given,
        digests,
        article.digest,
    )
    return given


def _passages(article: Article, given: Sequence[str]) -> Iterator[Document]:
    for section, anchor in zip(article.sections, given, strict=True):
        yield Document(
            id=f"{article.article_id}#{anchor}",
            title=article.title,
            headings=(section.heading,) if section.heading else (),
            text=section.text,
            form=Form.PLAIN,
            metadata={"intents": article.intents},
        )
