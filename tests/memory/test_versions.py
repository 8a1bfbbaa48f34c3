"""Embeddings side by side: a new one is made while the old one is searched by; an index where there is much."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit

import asyncpg
import pytest

from weft.agents.memory import Document, Knowledge, SearchSettings, Way, database
from weft.agents.memory.embedding import Vectors, WrongVectors
from weft.agents.memory.knowledge.versions import PgvectorMissing, UnknownEmbedding
from weft.agents.memory.testing import HashedEmbedder
from weft.postgres import Database
from weft.rpc.testing import wait_until


class Gated(HashedEmbedder):
    """It embeds documents only when it may."""

    def __init__(self, name: str, **more) -> None:
        super().__init__(name, **more)
        self.may = asyncio.Event()

    async def embed(self, texts: Sequence[str], *, question: bool = False) -> Vectors:
        if not question:
            await self.may.wait()
        return await super().embed(texts, question=question)


async def filled(db: Database, *embedders: HashedEmbedder, count: int = 20) -> Knowledge:
    knowledge = Knowledge(db, embedders)
    await knowledge.versions.register()
    for number in range(count):
        text = f"# Number {number}\n\nThis is text number {number} about things."
        await knowledge.of("t").add(Document(id=f"d{number}", text=text))
    return knowledge


async def test_a_new_embedding_is_made_while_the_old_one_is_searched_by(db: Database):
    old, new = HashedEmbedder("old"), Gated("new", dimensions=16)
    await filled(db, old)
    both = Knowledge(db, [old, new])
    async with both.kept():
        for _ in range(5):
            found = await both.of("t").search("number 7")
            assert (found.way, found.embedding) == (Way.HYBRID, "old")
        only_new = Knowledge(db, [new])
        found = await only_new.of("t").search("number 7")
        assert found.way is Way.LEXICAL
        assert found.because == "the embedding new is still being made"
        await both.of("t").add(Document(id="meanwhile", text="Added meanwhile."))
        new.may.set()

        async def is_searched_by() -> bool:
            found = await both.of("t").search("number 7")
            assert found.way is Way.HYBRID
            return found.embedding == "new"

        both.versions._looked = float("-inf")
        await wait_until(is_searched_by)
    found = await both.of("t").search("meanwhile", way=Way.VECTOR)
    assert found.hits[0].citation.document == "meanwhile"
    await both.versions.retire("old")
    assert (await both.of("t").search("number 7")).embedding == "new"
    with pytest.raises(UnknownEmbedding):
        await both.versions.retire("old")


async def test_two_processes_make_it_at_once(db: Database):
    await filled(db, HashedEmbedder("old"), count=30)
    twins = [Knowledge(db, [HashedEmbedder("new")]) for _ in range(2)]
    for twin in twins:
        await twin.versions.register()
    await asyncio.gather(*(twin.versions.fill("new") for twin in twins))
    found = await twins[0].of("t").search("things", way=Way.VECTOR, limit=50)
    assert len({hit.citation.document for hit in found.hits}) == 30
    with pytest.raises(UnknownEmbedding):
        await twins[0].versions.fill("old")


async def test_what_was_deleted_while_it_was_embedded_stays_gone(db: Database):
    old, new = HashedEmbedder("old"), Gated("new")
    knowledge = await filled(db, old, count=3)
    both = Knowledge(db, [old, new])
    await both.versions.register()
    filling = asyncio.create_task(both.versions.fill("new"))
    await asyncio.sleep(0)
    await knowledge.of("t").delete("d1")
    new.may.set()
    await filling
    found = await both.of("t").search("things", way=Way.VECTOR, limit=50)
    assert {hit.citation.document for hit in found.hits} == {"d0", "d2"}


async def test_one_name_has_one_number_of_dimensions(db: Database):
    await filled(db, HashedEmbedder("one", dimensions=8), count=1)
    with pytest.raises(WrongVectors, match="another name"):
        await Knowledge(db, [HashedEmbedder("one", dimensions=9)]).versions.register()
    with pytest.raises(WrongVectors, match="4,000"):
        await Knowledge(db, [HashedEmbedder("two", dimensions=4_001)]).versions.register()


async def test_an_index_finds_what_comparing_all_finds_and_no_other_tenants(db: Database):
    knowledge = await filled(db, HashedEmbedder(dimensions=256), count=40)
    others = knowledge.of("others")
    for number in range(40):
        text = f"# Number {number}\n\nThis is text number {number} about things."
        await others.add(Document(id=f"o{number}", text=text, metadata={"odd": number % 2}))
    indexed = SearchSettings(exact=0, words=0.0)
    for question in ("text number 3", "number 17 about things", "things"):
        exact = await knowledge.of("t").search(question, way=Way.VECTOR, limit=5)
        found = (
            await knowledge.of("t").with_settings(indexed).search(question, way=Way.VECTOR, limit=5)
        )
        best = exact.hits[0].similarity
        assert best is not None
        assert found.hits[0].similarity == pytest.approx(best)
        assert all(hit.citation.document.startswith("d") for hit in found.hits)
        assert len(found.hits) == 5
    found = await others.with_settings(indexed).search("number 4", where={"odd": 1}, limit=5)
    assert len(found.hits) == 5
    assert all(hit.metadata == {"odd": 1} for hit in found.hits)


async def test_without_pgvector_it_says_what_to_do_and_words_do(database_url: str):
    admin = await asyncpg.connect(database_url)
    name = urlsplit(database_url).path.lstrip("/")
    try:
        await admin.execute("drop role if exists plain; create role plain login")
        await admin.execute(f'grant create on database "{name}" to plain')
        plain = urlsplit(database_url)
        url = plain._replace(netloc="plain@").geturl()
        async with await database(url) as db:
            knowledge = Knowledge(db, [HashedEmbedder()])
            with pytest.raises(PgvectorMissing, match="CREATE EXTENSION vector"):
                await knowledge.versions.register()
            words = Knowledge(db).of("t")
            await words.add(Document(id="a", text="Some words."))
            assert (await words.search("words")).hits
    finally:
        await admin.execute("drop owned by plain cascade; drop role plain")
        await admin.close()
