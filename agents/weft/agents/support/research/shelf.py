"""The knowledge base in PostgreSQL: import, search and lists of articles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from weft import rpc
from weft.agents.support.research.articles import Article, Section, anchors
from weft.postgres import Database, Transaction


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
class Hit:
    """A passage found, with its relevance."""

    passage_id: str
    article_id: str
    title: str
    heading: str
    text: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did."""

    changed: int
    unchanged: int
    passages: int


class Shelf:
    """Articles and their passages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def search(self, query: str, *, intent: str, limit: int) -> list[Hit]:
        """Passages that hold any word of the query, best first."""
        rows = await self._database.fetch("search_passages", query, intent, limit)
        return [Hit(**row) for row in rows]

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
        async with self._database.transaction() as transaction:
            await transaction.execute("lock_articles")
            changed = await _put(transaction, articles)
            passages: int = await transaction.fetchval("count_passages")
        return Imported(changed=changed, unchanged=len(articles) - changed, passages=passages)

    async def put_shipped(self, articles: Sequence[Article]) -> None:
        """Imports those shipped articles that changed since they were last shipped, and leaves others as they are."""
        async with self._database.transaction() as transaction:
            await transaction.execute("lock_articles")
            rows = await transaction.fetch("shipped_digests")
            known = {row["article_id"]: row["digest"] for row in rows}
            new = [one for one in articles if known.get(one.article_id) != one.digest]
            await _put(transaction, new)
            await transaction.execute(
                "put_shipped", [one.article_id for one in new], [one.digest for one in new]
            )


async def _put(transaction: Transaction, articles: Sequence[Article]) -> int:
    rows = await transaction.fetch("article_digests", [one.article_id for one in articles])
    digests: Mapping[str, bytes] = {row["article_id"]: row["digest"] for row in rows}
    changed = [one for one in articles if digests.get(one.article_id) != one.digest]
    for article in changed:
        await _put_article(transaction, article)
    return len(changed)


async def _put_article(transaction: Transaction, article: Article) -> None:
    await transaction.execute(
        "put_article",
        article.article_id,
        article.title,
        article.markdown,
        list(article.intents),
        article.digest,
    )
    rows = await transaction.fetch("article_passages", article.article_id)
    known = {
        Section(heading=row["heading"], text=row["text"]): row["passage_id"].partition("#")[2]
        for row in rows
    }
    await transaction.execute("delete_passages", article.article_id)
    await transaction.execute(
        "put_passages",
        article.article_id,
        article.title,
        [f"{article.article_id}#{anchor}" for anchor in anchors(article.sections, known)],
        [section.heading for section in article.sections],
        [section.text for section in article.sections],
    )
