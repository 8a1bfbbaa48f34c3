"""The agent support-research."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from weft import rpc
from weft.agents.memory import Hit, Knowledge
from weft.agents.memory.embedding import Embedder
from weft.agents.support import fields
from weft.agents.support.research import shipped
from weft.agents.support.research.articles import Article, BadArticle, parse
from weft.agents.support.research.shelf import Shelf, StoredArticle
from weft.postgres import Database
from weft.rpc import paging
from weft.support.v1 import research_pb2, research_pb2_grpc, support_pb2

Context = grpc.aio.ServicerContext[Any, Any]

_INTENT = re.compile(r"[a-z][a-z0-9_]{0,99}")
_MOST_QUERY = 2_000
_MOST_PASSAGES = 50
_DEFAULT_PASSAGES = 5
_MOST_A_REQUEST = 100
_MOST_A_STREAM = 10_000


class ResearchAgent(research_pb2_grpc.ResearchServiceServicer):
    """Searches the knowledge base and keeps it.

    Args:
        database: where the knowledge base is.
        embedder: what makes vectors, so that passages are found by meaning, too; None: by their words only.
    """

    def __init__(self, database: Database, embedder: Embedder | None = None) -> None:
        self._shelf = Shelf(database, embedder)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[Knowledge]:
        """Brings the shipped articles in, and embeds what has no vectors yet as long as the context, which gets the passages.

        Raises:
            PgvectorMissing: vectors cannot be stored.
        """
        await self.import_shipped()
        async with self._shelf.kept() as knowledge:
            yield knowledge

    async def import_shipped(self) -> None:
        """Brings the shipped articles in."""
        await self._shelf.put_shipped(await asyncio.to_thread(shipped.articles))

    async def Search(
        self, request: research_pb2.SearchRequest, context: Context
    ) -> research_pb2.SearchResponse:
        """Finds the passages nearest to a query, best first."""
        del context
        fields.check(
            fields.text("query", request.query, _MOST_QUERY),
            fields.between("limit", request.limit, 0, _MOST_PASSAGES),
            fields.optional_matching(
                "intent", request.intent, _INTENT, "snake_case, at most 100 characters"
            ),
        )
        hits = await self._shelf.search(
            request.query, intent=request.intent, limit=request.limit or _DEFAULT_PASSAGES
        )
        return research_pb2.SearchResponse(passages=map(_passage, hits))

    async def GetArticle(
        self, request: research_pb2.GetArticleRequest, context: Context
    ) -> research_pb2.GetArticleResponse:
        """Returns an article."""
        del context
        fields.check(fields.text("article_id", request.article_id, 100))
        return research_pb2.GetArticleResponse(
            article=_article(await self._shelf.article(request.article_id))
        )

    async def ListArticles(
        self, request: research_pb2.ListArticlesRequest, context: Context
    ) -> research_pb2.ListArticlesResponse:
        """Lists articles by title."""
        del context
        size = paging.page_size(request.page_size, default=100, most=500)
        begin = paging.page_begin(request.page_token, made_for="articles", like=("", ""))
        title, article_id = begin or ("", "")
        found = await self._shelf.articles(behind=(str(title), str(article_id)), limit=size + 1)
        response = research_pb2.ListArticlesResponse(articles=map(_article, found[:size]))
        if len(found) > size:
            last = found[size - 1]
            response.next_page_token = paging.page_token(
                (last.title, last.article_id), made_for="articles"
            )
        return response

    async def ImportArticles(
        self, request_iterator: AsyncIterator[research_pb2.ImportArticlesRequest], context: Context
    ) -> research_pb2.ImportArticlesResponse:
        """Imports Markdown articles, all or none."""
        del context
        articles: dict[str, Article] = {}
        async for request in request_iterator:
            fields.check(fields.at_most("articles", request.articles, _MOST_A_REQUEST))
            for article in request.articles:
                articles[article.article_id] = _parsed(len(articles), article)
            if len(articles) > _MOST_A_STREAM:
                raise rpc.ResourceExhausted(f"An import takes at most {_MOST_A_STREAM:,} articles.")
        imported = await self._shelf.put(list(articles.values()))
        return research_pb2.ImportArticlesResponse(
            changed=imported.changed, unchanged=imported.unchanged, passages=imported.passages
        )


def _parsed(number: int, article: research_pb2.Article) -> Article:
    try:
        return parse(article.article_id, article.markdown)
    except BadArticle as bad:
        raise rpc.InvalidArgument(
            f'article "{article.article_id[:100]}": {bad}', field=f"articles[{number}]"
        ) from None


def _passage(hit: Hit) -> support_pb2.Passage:
    place = hit.citation
    return support_pb2.Passage(
        passage_id=place.document,
        article_id=place.document.partition("#")[0],
        title=place.title,
        heading="".join(place.headings),
        text=place.quote,
        score=hit.score,
    )


def _article(stored: StoredArticle) -> research_pb2.Article:
    article = research_pb2.Article(
        article_id=stored.article_id,
        title=stored.title,
        markdown=stored.markdown,
        intents=stored.intents,
    )
    article.update_time.FromDatetime(stored.update_time)
    return article
