from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weft import rpc
from weft.agents.memory import Knowledge
from weft.agents.memory.embedding import Vectors
from weft.agents.memory.testing import HashedEmbedder
from weft.agents.support import ResearchAgent
from weft.agents.support.research import shipped
from weft.postgres import Database
from weft.rpc.testing import channel_for
from weft.support.v1 import research_pb2, research_pb2_grpc

CARD = (
    "---\nintents: card\n---\n# Cards\n\nA card is a card.\n\n## Limits\n\nThe limit is 5 euros.\n"
)
HOUSE = "# Houses\n\nA house has a roof.\n\n## Limits\n\nA fence is the limit of a house.\n"


@pytest_asyncio.fixture
async def research(store: Database) -> AsyncIterator[research_pb2_grpc.ResearchServiceAsyncStub]:
    async with channel_for(
        research_pb2_grpc.add_ResearchServiceServicer_to_server, ResearchAgent(store)
    ) as channel:
        yield research_pb2_grpc.ResearchServiceStub(channel)


async def put(
    research: research_pb2_grpc.ResearchServiceAsyncStub, **articles: str
) -> research_pb2.ImportArticlesResponse:
    return await research.ImportArticles(
        iter(
            [
                research_pb2.ImportArticlesRequest(
                    articles=[research_pb2.Article(article_id=name, markdown=markdown)]
                )
                for name, markdown in articles.items()
            ]
        )
    )


async def search(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
    query: str,
    *,
    intent: str = "",
    limit: int = 0,
) -> list[str]:
    found = await research.Search(
        research_pb2.SearchRequest(query=query, intent=intent, limit=limit)
    )
    return [passage.passage_id for passage in found.passages]


async def failure(call: Awaitable[Any]) -> rpc.Error:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return rpc.error_from_call(failed.value)


async def test_what_is_imported_is_found(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
) -> None:
    imported = await put(research, cards=CARD, houses=HOUSE)
    assert (imported.changed, imported.unchanged, imported.passages) == (2, 0, 4)
    found = await research.Search(research_pb2.SearchRequest(query="What is the card limit?"))
    best = found.passages[0]
    assert (best.passage_id, best.article_id) == ("cards#limits", "cards")
    assert (best.title, best.heading, best.text) == ("Cards", "Limits", "The limit is 5 euros.")
    scores = [passage.score for passage in found.passages]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0


async def test_title_counts_more_than_heading_and_heading_more_than_text(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
) -> None:
    await put(
        research,
        text="# One\n\n## Two\n\nAll about zebras.",
        heading="# Two\n\n## Zebras\n\nAll about two.",
        title="# Zebras\n\n## Three\n\nAll about three.",
    )
    assert await search(research, "zebra") == ["title#three", "heading#zebras", "text#two"]


async def test_rare_words_count_more_than_common_ones(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
) -> None:
    common = {f"common{n}": f"# Card {n}\n\nYour card and your card." for n in range(8)}
    await put(research, rare="# Other\n\nThe aardvark.", **common)
    assert (await search(research, "my card and the aardvark", limit=3))[0] == "rare#top"


async def test_the_intent_prefers_its_articles_and_finds_them_without_a_word(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
) -> None:
    await put(research, cards=CARD, houses=HOUSE)
    assert (await search(research, "limit of a house"))[0] == "houses#limits"
    assert (await search(research, "limit", intent="card"))[0] == "cards#limits"
    assert set(await search(research, "xyzzy", intent="card")) == {"cards#top", "cards#limits"}


async def test_a_query_that_nothing_fits_finds_nothing(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
) -> None:
    await put(research, cards=CARD)
    assert await search(research, "the weather in Paris") == []
    assert await search(research, "the and of") == []


async def test_with_an_embedding_passages_are_found_by_meaning_and_what_changed_is_embedded_soon(
    store: Database,
) -> None:
    embedder = Told()
    async with kept(ResearchAgent(store, embedder)) as (research, knowledge):
        await put(research, cards=CARD, houses=HOUSE)
        await knowledge.versions.fill(embedder.name)
        assert (await search(research, "igloo"))[0] == "houses#top"
        assert (await search(research, "5 euros"))[0] == "cards#limits"
        assert await search(research, "xyzzy") == []
        embedder.texts.clear()
        embedder.told.clear()
        await put(research, cards=CARD, houses=HOUSE.replace("a roof", "two roofs"))
        async with asyncio.timeout(20):  # less than the 30 s after which it looks by itself
            await embedder.told.wait()
        assert embedder.texts == ["Houses\nA house has two roofs."]
        embedder.away = True
        assert await search(research, "igloo") == []
        assert (await search(research, "roofs"))[0] == "houses#top"


async def test_with_an_embedding_the_intent_prefers_its_articles(store: Database) -> None:
    embedder = Told()
    async with kept(ResearchAgent(store, embedder)) as (research, knowledge):
        await put(research, cards=CARD, houses=HOUSE)
        await knowledge.versions.fill(embedder.name)
        assert (await search(research, "limit"))[0] != "cards#limits"
        assert (await search(research, "limit", intent="card"))[0] == "cards#limits"
        assert set(await search(research, "xyzzy", intent="card")) == {"cards#top", "cards#limits"}


class Told(HashedEmbedder):
    """Tells when it has embedded passages."""

    def __init__(self) -> None:
        super().__init__(dimensions=512, same={"igloo": "roof"})
        self.told = asyncio.Event()

    async def embed(self, texts: Sequence[str], *, question: bool = False) -> Vectors:
        vectors = await super().embed(texts, question=question)
        if not question:
            self.told.set()
        return vectors


@asynccontextmanager
async def kept(
    agent: ResearchAgent,
) -> AsyncIterator[tuple[research_pb2_grpc.ResearchServiceAsyncStub, Knowledge]]:
    """A stub of an agent that embeds, and its passages."""
    async with (
        channel_for(research_pb2_grpc.add_ResearchServiceServicer_to_server, agent) as channel,
        agent.kept() as knowledge,
    ):
        yield research_pb2_grpc.ResearchServiceStub(channel), knowledge


async def test_a_passage_is_found_as_a_whole_however_long(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
) -> None:
    text = " ".join(f"Sentence {number} is about zebras." for number in range(100))
    await put(research, long=f"# Long\n\n{text}")
    found = await research.Search(research_pb2.SearchRequest(query="zebra"))
    assert [passage.text for passage in found.passages] == [text]


async def test_what_an_article_no_longer_says_is_not_found(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
) -> None:
    await put(research, cards=CARD)
    await put(research, cards="# Cards\n\nA card is a card.\n")
    assert await search(research, "limit euros") == []
    assert await search(research, "anything", intent="card") == []


async def test_limit(research: research_pb2_grpc.ResearchServiceAsyncStub) -> None:
    await put(research, **{f"a{n}": f"# T{n}\n\nzebra" for n in range(9)})
    assert len(await search(research, "zebra")) == 5
    assert len(await search(research, "zebra", limit=7)) == 7


async def test_no_query_breaks_the_search(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
) -> None:
    for query in ("it's", "a\\b 'c'", "x & y | !z", "a:b <-> (", "https://a.b/?c=1&d=2"):
        await put(research, odd=f"# Odd\n\nabout {query} and more")
        await search(research, query)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(min_size=1, max_size=50).filter(lambda text: text.strip() and "\x00" not in text))
async def test_any_text_can_be_searched(
    research: research_pb2_grpc.ResearchServiceAsyncStub, query: str
) -> None:
    assert await search(research, query.encode("utf-8", "replace").decode()) == []


async def test_a_second_import_changes_what_changed_and_keeps_ids(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
) -> None:
    await put(research, cards=CARD, houses=HOUSE)
    changed = CARD.replace("## Limits", "## Limits\n\nNone at all.\n\n## Limits")
    imported = await put(research, cards=changed, houses=HOUSE)
    assert (imported.changed, imported.unchanged, imported.passages) == (1, 1, 5)
    found = await research.Search(research_pb2.SearchRequest(query="limit 5 euros"))
    assert {one.text: one.passage_id for one in found.passages if one.article_id == "cards"} == {
        "The limit is 5 euros.": "cards#limits",
        "None at all.": "cards#limits-2",
    }


async def test_a_bad_article_is_named_and_nothing_is_stored(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
) -> None:
    failed = await failure(put(research, good=CARD, bad="no heading"))
    assert isinstance(failed, rpc.InvalidArgument)
    assert failed.violations[0][0] == "articles[1]"
    assert '"bad"' in failed.message
    assert await search(research, "card") == []


async def test_an_article_comes_back_as_it_went_in(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
) -> None:
    await put(research, cards=CARD)
    got = await research.GetArticle(research_pb2.GetArticleRequest(article_id="cards"))
    assert (got.article.title, got.article.markdown) == ("Cards", CARD)
    assert list(got.article.intents) == ["card"]
    failed = await failure(
        research.GetArticle(research_pb2.GetArticleRequest(article_id="nothing"))
    )
    assert (type(failed), failed.reason) == (rpc.NotFound, "UNKNOWN_ARTICLE")


async def test_articles_are_listed_by_title_in_pages(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
) -> None:
    await put(research, **{f"a{n}": f"# Title {9 - n // 2}\n\ntext" for n in range(7)})
    listed: list[str] = []
    token = ""
    while True:
        page = await research.ListArticles(
            research_pb2.ListArticlesRequest(page_size=3, page_token=token)
        )
        assert len(page.articles) <= 3
        assert not any(one.markdown for one in page.articles)
        listed += [one.article_id for one in page.articles]
        token = page.next_page_token
        if not token:
            break
    assert listed == ["a6", "a4", "a5", "a2", "a3", "a0", "a1"]


async def test_bad_requests_name_the_field(
    research: research_pb2_grpc.ResearchServiceAsyncStub,
) -> None:
    for request, field in (
        (research_pb2.SearchRequest(query=" "), "query"),
        (research_pb2.SearchRequest(query="x" * 2_001), "query"),
        (research_pb2.SearchRequest(query="x", limit=51), "limit"),
        (research_pb2.SearchRequest(query="x", limit=-1), "limit"),
        (research_pb2.SearchRequest(query="x", intent="Not Snake"), "intent"),
        # Not base64; not JSON; a token of another list; one of another type.
        *(
            (research_pb2.ListArticlesRequest(page_token=token), "page_token")
            for token in ("x", "bm90IGpzb24=", "WyJ0aWNrZXRzIl0=", "WyJhcnRpY2xlcyIsMV0=")
        ),
        (research_pb2.ListArticlesRequest(page_size=-1), "page_size"),
    ):
        skill = type(request).__name__.removesuffix("Request")
        failed = await failure(getattr(research, skill)(request))
        assert isinstance(failed, rpc.InvalidArgument)
        assert [path for path, _ in failed.violations] == [field]


async def test_shipped_articles_come_in_once_and_leave_peoples_own_alone(
    store: Database, research: research_pb2_grpc.ResearchServiceAsyncStub
) -> None:
    agent = ResearchAgent(store)
    await agent.import_shipped()
    listed = await research.ListArticles(research_pb2.ListArticlesRequest())
    assert len(listed.articles) == len(shipped.articles())
    await put(research, **{"card-arrival": CARD})
    await agent.import_shipped()
    got = await research.GetArticle(research_pb2.GetArticleRequest(article_id="card-arrival"))
    assert got.article.markdown == CARD
