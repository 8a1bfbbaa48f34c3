"""Documents are stored, found, and gone when they are deleted."""

from __future__ import annotations

import asyncpg
import pytest
import redis.asyncio

from weft import rpc
from weft.agents.memory import Document, DocumentNotFound, Knowledge, Way
from weft.agents.memory.testing import HashedEmbedder
from weft.postgres import Database

BICYCLES = """# Bicycles

A bicycle has two wheels. It needs air in its tyres.

## Repairs

A damaged chain is replaced within two days. Bring the bicycle to the shop.
"""
BOATS = "# Boats\n\nA boat floats. It needs water under its keel."


async def test_a_document_is_found_with_its_exact_place(knowledge: Knowledge):
    shop = knowledge.of("shop")
    added = await shop.add(
        Document(id="bikes", text=BICYCLES, source="https://shop.example/bikes", metadata={"a": 1})
    )
    assert added.changed
    assert added.embedded
    assert added.chunks == 2
    found = await shop.search("fix my broken bike")
    assert found.way is Way.HYBRID
    assert found.embedding == "hashed"
    hit = found.hits[0]
    place = hit.citation
    assert (place.document, place.title) == ("bikes", "Bicycles")
    assert place.headings == ("Bicycles", "Repairs")
    assert place.quote == BICYCLES[place.begin : place.end]
    assert place.quote.startswith("A damaged chain")
    assert place.source == "https://shop.example/bikes"
    assert hit.metadata == {"a": 1}


async def test_a_quotation_has_its_exact_place_and_an_invented_one_has_none(knowledge: Knowledge):
    shop = knowledge.of("shop")
    await shop.add(Document(id="bikes", text=BICYCLES))
    hit = (await shop.search("damaged chain", limit=1)).hits[0]
    citation = hit.cite("“A DAMAGED chain  is replaced\nwithin two days”")
    assert citation is not None
    assert citation.quote == "A damaged chain is replaced within two days"
    assert BICYCLES[citation.begin : citation.end] == citation.quote
    assert hit.cite("A damaged chain is replaced within one day") is None
    assert hit.cite("amaged chain") is None
    assert hit.cite("...") is None


async def test_no_tenant_sees_documents_of_another(knowledge: Knowledge):
    ours, theirs, nobodys = (knowledge.of(tenant) for tenant in ("ours", "theirs", ""))
    await ours.add(Document(id="bikes", text=BICYCLES))
    for other in (theirs, nobodys):
        for way in Way:
            assert not (await other.search("bicycle chain", way=way)).hits
        assert not await other.list()
        with pytest.raises(DocumentNotFound):
            await other.get("bikes")
        with pytest.raises(DocumentNotFound):
            await other.delete("bikes")
    await theirs.add(Document(id="bikes", text=BOATS))
    assert (await ours.get("bikes")).text == BICYCLES
    await theirs.delete_all()
    assert len((await ours.search("bicycle")).hits) == 2


async def test_filters_by_metadata(knowledge: Knowledge):
    shop = knowledge.of("shop")
    for number in range(4):
        metadata = {"year": 2020 + number, "tags": ["old", "sold"] if number < 2 else ["new"]}
        await shop.add(Document(id=f"bike-{number}", text=BICYCLES, metadata=metadata))
    for way in Way:
        found = await shop.search("chain", where={"year": 2022}, way=way, limit=50)
        assert {hit.citation.document for hit in found.hits} == {"bike-2"}
    found = await shop.search("chain", where={"tags": ["sold"]}, limit=50)
    assert {hit.citation.document for hit in found.hits} == {"bike-0", "bike-1"}
    assert not (await shop.search("chain", where={"year": 1999})).hits
    assert [one.id for one in await shop.list(where={"tags": ["new"]})] == ["bike-2", "bike-3"]


async def test_a_document_of_the_same_id_replaces_it_and_what_did_not_change_keeps_its_vectors(
    knowledge: Knowledge, embedder: HashedEmbedder
):
    shop = knowledge.of("shop")
    await shop.add(Document(id="bikes", text=BICYCLES))
    embedder.texts.clear()
    assert not (await shop.add(Document(id="bikes", text=BICYCLES))).changed
    later = BICYCLES.replace("two wheels", "two wheels, or three") + "\n## Sales\n\nNone.\n"
    added = await shop.add(Document(id="bikes", text=later))
    assert added.changed
    assert added.chunks == 3
    assert len(embedder.texts) == 2
    found = await shop.search("damaged chain wheels sales", limit=50)
    assert len(found.hits) == 3
    for hit in found.hits:
        assert hit.citation.quote == later[hit.citation.begin : hit.citation.end]
        assert hit.similarity is not None


async def test_deleting_deletes_all_of_it(
    knowledge: Knowledge, db: Database, client: redis.asyncio.Redis, database_url: str
):
    """Looks for a word of the document in every table and every key."""
    second = HashedEmbedder("second", dimensions=8)
    both = Knowledge(db, [HashedEmbedder(), second], cache=client)
    await both.versions.register()
    await both.versions.fill("second")
    shop = both.of("shop")
    await shop.add(
        Document(
            id="secret-id",
            text="# Zebra\n\nThe zebra is xylophonic.",
            source="zebra",
            metadata={"z": "zebra"},
        )
    )
    await shop.add(Document(id="other", text=BOATS))
    assert (await shop.search("zebra")).hits
    assert await rows_with(database_url, "zebra") == {"documents": 1, "chunks": 1}
    assert await counted(database_url) == {
        "documents": 2,
        "chunks": 2,
        "vectors_1": 2,
        "vectors_2": 2,
    }
    assert await keys_with(client, b"zebra")
    await shop.delete("secret-id")
    for trace in ("zebra", "xylophon", "secret-id"):
        assert await rows_with(database_url, trace) == {}
        assert not await keys_with(client, trace.encode())
    assert await counted(database_url) == {
        "documents": 1,
        "chunks": 1,
        "vectors_1": 1,
        "vectors_2": 1,
    }
    assert [hit.citation.document for hit in (await shop.search("zebra boat")).hits] == ["other"]
    with pytest.raises(DocumentNotFound):
        await shop.delete("secret-id")


async def test_results_are_cached_until_something_changes(
    knowledge: Knowledge, embedder: HashedEmbedder
):
    shop = knowledge.of("shop")
    await shop.add(Document(id="bikes", text=BICYCLES))
    embedder.texts.clear()
    first = await shop.search("bicycle", where={})
    assert await shop.search("bicycle", where={}) == first
    assert embedder.texts == ["bicycle"]
    await knowledge.of("others").add(Document(id="boats", text=BOATS))
    await shop.search("bicycle", where={})
    assert embedder.texts.count("bicycle") == 1
    await shop.add(Document(id="boats", text=BOATS))
    await shop.search("bicycle", where={})
    assert embedder.texts.count("bicycle") == 2


async def test_a_search_that_began_before_a_change_is_not_kept(client: redis.asyncio.Redis):
    from weft.agents.memory.knowledge.derived import Derived

    derived = Derived(client)
    _, begun = await derived.get("shop", "search")
    async with derived.changing("shop"):
        assert not await derived.put("shop", "search", b"old", begun)
        _, within = await derived.get("shop", "search")
        assert not await derived.put("shop", "search", b"within", within)
    assert not await derived.put("shop", "search", b"old", begun)
    kept, begun = await derived.get("shop", "search")
    assert kept is None
    assert await derived.put("shop", "search", b"new", begun)
    assert (await derived.get("shop", "search"))[0] == b"new"
    assert (await derived.get("others", "search"))[0] is None


async def test_nothing_is_deleted_where_the_cache_cannot_be_dropped(db: Database):
    from weft import embedded
    from weft.agents.memory.knowledge.derived import CacheUnavailable

    async with embedded.redis_client("redis://127.0.0.1:1") as nowhere:
        shop = Knowledge(db, cache=nowhere).of("shop")
        with pytest.raises(CacheUnavailable):
            await shop.add(Document(id="bikes", text=BICYCLES))
        assert not await shop.list()
        assert not (await shop.search("bicycle")).hits


async def test_without_an_embedding_it_searches_by_words_and_says_so(db: Database):
    shop = Knowledge(db).of("shop")
    added = await shop.add(Document(id="bikes", text=BICYCLES))
    assert added.embedded is False
    found = await shop.search("damaged chains", way=Way.HYBRID)
    assert found.hits[0].citation.headings[-1] == "Repairs"
    assert (found.way, found.embedding) == (Way.LEXICAL, "")
    assert found.because == "no embedding is set up"
    asked = await shop.search("chains", way=Way.LEXICAL)
    assert asked.because == ""


async def test_an_embedder_that_fails_leaves_words_and_later_catches_up(
    knowledge: Knowledge, embedder: HashedEmbedder
):
    shop = knowledge.of("shop")
    embedder.away = True
    added = await shop.add(Document(id="bikes", text=BICYCLES))
    assert not added.embedded
    found = await shop.search("chain")
    assert found.way is Way.LEXICAL
    assert "hashed failed" in found.because
    assert found.hits
    assert not (await shop.add(Document(id="bikes", text=BICYCLES))).embedded
    embedder.away = False
    again = await shop.add(Document(id="bikes", text=BICYCLES, metadata={"changed": True}))
    assert (again.changed, again.embedded) == (True, False)
    assert await knowledge.versions.fill("hashed") == 2
    assert (await shop.add(Document(id="bikes", text=BICYCLES))).embedded
    found = await shop.search("chain")
    assert (found.way, found.because) == (Way.HYBRID, "")
    assert all(hit.similarity is not None for hit in found.hits)


async def test_diversity_prefers_what_was_not_said_yet(knowledge: Knowledge):
    shop = knowledge.of("shop")
    for number in range(3):
        await shop.add(Document(id=f"same-{number}", text=BOATS))
    await shop.add(Document(id="other", text="# Water\n\nA boat on a lake, with oars of wood."))
    plain = await shop.search("boat floats keel", limit=2)
    diverse = await shop.search("boat floats keel", limit=2, diversity=0.6)
    assert "other" not in {hit.citation.document for hit in plain.hits}
    assert "other" in {hit.citation.document for hit in diverse.hits}


async def test_words_of_other_languages(db: Database):
    shop = Knowledge(db).of("shop")
    await shop.add(
        Document(id="rad", text="# Räder\n\nDie Fahrräder wurden repariert.", language="german")
    )
    assert (await shop.search("Fahrrädern", language="german")).hits
    assert not (await shop.search("Fahrrädern", language="english")).hits


async def test_questions_are_never_a_syntax_error(knowledge: Knowledge):
    shop = knowledge.of("shop")
    await shop.add(Document(id="bikes", text=BICYCLES + "\nIt's C:\\\\ o'clock."))
    for question in ("'", "\\", "a & | ! ( :*", "it's \\ 'bicycle'", "ﷺ 漢字", "the of and", "%_"):
        await shop.search(question)
    assert (await shop.search("o'clock bicycle \\")).hits


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "a\nb"}, "id"),
        ({"text": " \n"}, "text"),
        ({"text": "a\0b"}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"title": "x" * 501}, "title"),
        ({"language": "klingon"}, "language"),
        ({"metadata": {"a": object()}}, "metadata"),
        ({"metadata": {"a": "\0"}}, "metadata"),
        ({"metadata": {"a": "x" * 20_000}}, "metadata"),
        ({"metadata": {"a": float("nan")}}, "metadata"),
    ],
)
async def test_what_cannot_be_stored_is_refused_by_name(knowledge: Knowledge, wrong, field):
    with pytest.raises(rpc.InvalidArgument) as refused:
        await knowledge.of("shop").add(Document(**{"id": "a", "text": "Text.", **wrong}))
    assert [path for path, _ in refused.value.violations] == [field]


async def test_searches_that_make_no_sense_are_refused(knowledge: Knowledge):
    shop = knowledge.of("shop")
    for wrong in ({"limit": 0}, {"limit": 51}, {"diversity": 1.1}, {"language": "x"}):
        with pytest.raises(rpc.InvalidArgument):
            await shop.search("boat", **wrong)
    with pytest.raises(rpc.InvalidArgument):
        await shop.search(" ")


async def counted(url: str) -> dict[str, int]:
    """Rows of each table that has any."""
    connection = await asyncpg.connect(url)
    try:
        return {
            table: count
            for table in await tables(connection)
            if table not in {"weft_migrations", "embeddings"}
            and (count := await connection.fetchval(f"select count(*) from memory.{table}"))
        }
    finally:
        await connection.close()


async def rows_with(url: str, word: str) -> dict[str, int]:
    """Rows that hold a word anywhere, of each table that has any."""
    connection = await asyncpg.connect(url)
    try:
        found = {}
        for table in await tables(connection):
            sql = (
                f"select count(*) from memory.{table} t where lower(t::text) like '%' || $1 || '%'"
            )
            if count := await connection.fetchval(sql, word):
                found[table] = count
        return found
    finally:
        await connection.close()


async def tables(connection: asyncpg.Connection) -> list[str]:
    sql = "select tablename from pg_tables where schemaname = 'memory' order by 1"
    return [row["tablename"] for row in await connection.fetch(sql)]


async def keys_with(client: redis.asyncio.Redis, word: bytes) -> list[bytes]:
    """Keys that hold a word in their name or value."""
    found = []
    async for key in client.scan_iter():
        kind = await client.type(key)
        value = await client.hgetall(key) if kind == b"hash" else await client.get(key)
        if word in key or word in repr(value).encode().lower():
            found.append(key)
    return found
