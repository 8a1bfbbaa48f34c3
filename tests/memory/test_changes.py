"""Documents that change together, stand under headings, and are preferred."""

from __future__ import annotations

import pytest

from weft import rpc
from weft.agents.memory import Document, Knowledge, SearchSettings, Way
from weft.agents.memory.chunking import Form
from weft.agents.memory.testing import HashedEmbedder
from weft.postgres import Database

BOAT = "A boat floats."


async def test_many_changes_take_effect_together_and_keep_the_vectors_of_what_stays(
    knowledge: Knowledge, embedder: HashedEmbedder
):
    shop = knowledge.of("shop")
    async with shop.changes() as changes:
        await changes.add([Document(id=f"d{n}", text=f"Number x{n}.") for n in range(1_200)])
        await changes.add([Document(id="d1", text="Number one."), Document(id="d1", text=BOAT)])
        await changes.delete(["d2", "nothing"])
        assert not await shop.list()
    assert (await shop.get("d1")).text == BOAT
    assert not (await shop.search("x2", way=Way.LEXICAL)).hits
    assert [h.citation.document for h in (await shop.search("x1199", limit=1)).hits] == ["d1199"]
    assert await knowledge.versions.fill("hashed") == 1_199
    embedder.texts.clear()
    before = (await shop.get("d3")).update_time
    async with shop.changes() as changes:
        same = Document(id="d3", text="Number x3.")
        moved = Document(id="d1", text=f"{BOAT}\n\n# Keel\n\nIt has one.", title="d1")
        await changes.add([same, moved])
    assert (await shop.get("d3")).update_time == before
    assert await knowledge.versions.fill("hashed") == 1
    assert embedder.texts == ["d1 > Keel\nIt has one."]


async def test_of_changes_that_fail_none_takes_effect(knowledge: Knowledge):
    shop = knowledge.of("shop")
    await shop.add(Document(id="boat", text=BOAT))

    async def change() -> None:
        async with shop.changes() as changes:
            await changes.delete(["boat"])
            await changes.add([Document(id="car", text="A car.")])
            await changes.add([Document(id="", text="Bad.")])

    with pytest.raises(rpc.InvalidArgument):
        await change()
    assert [one.id for one in await shop.list()] == ["boat"]
    assert (await shop.search("boat")).hits


async def test_results_of_before_are_not_kept_after_changes(knowledge: Knowledge):
    shop = knowledge.of("shop")
    await shop.add(Document(id="boat", text=BOAT))
    assert (await shop.search("boat")).hits
    async with shop.changes() as changes:
        await changes.delete(["boat"])
    assert not (await shop.search("boat")).hits


async def test_a_part_of_something_is_found_by_the_headings_it_stands_under(db: Database):
    shop = Knowledge(db).of("shop")
    part = Document(
        id="part", title="Ships", headings=("Keels",), text="# Wood\n\nOf oak.", form=Form.MARKDOWN
    )
    await shop.add(part)
    await shop.add(Document(id="other", title="Ships", text="Keels are of wood."))
    found = await shop.search("keel")
    assert [hit.citation.document for hit in found.hits] == ["part", "other"]
    assert found.hits[0].citation.headings == ("Keels", "Wood")
    assert (await shop.get("part")).headings == ("Keels",)
    changed = Document(id="part", title="Ships", headings=("Sails",), text=part.text)
    assert (await shop.add(changed)).changed
    assert [hit.citation.document for hit in (await shop.search("sail")).hits] == ["part"]


async def test_preferred_documents_count_more_and_are_found_without_a_word(
    knowledge: Knowledge, db: Database
):
    for shop in (knowledge.of("hybrid"), Knowledge(db).of("lexical")):
        await shop.add(Document(id="a", text=f"{BOAT} A boat it is.", metadata={"about": ["sea"]}))
        await shop.add(Document(id="b", text="A boat, and more.", metadata={"about": ["lake"]}))
        await shop.add(Document(id="c", text="Quite other words.", metadata={"about": ["lake"]}))
        assert (await shop.search("boat", limit=1)).hits[0].citation.document == "a"
        prefer = {"about": ["lake"]}
        found = await shop.search("boat", prefer=prefer)
        assert {hit.citation.document for hit in found.hits} == {"a", "b", "c"}
        assert found.hits[0].citation.document == "b"
        found = await shop.search("boat", prefer=prefer, where={"about": ["sea"]})
        assert [hit.citation.document for hit in found.hits] == ["a"]
    for wrong in ("prefer", "where"):
        with pytest.raises(rpc.InvalidArgument) as refused:
            await knowledge.of("hybrid").search("boat", **{wrong: {"a": object()}})
        assert [path for path, _ in refused.value.violations] == [wrong]


async def test_what_is_too_far_in_meaning_is_not_found(db: Database, embedder: HashedEmbedder):
    knowledge = Knowledge(db, [embedder], settings=SearchSettings(similarity=0.5))
    await knowledge.versions.register()
    shop = knowledge.of("shop")
    await shop.add(Document(id="bikes", title="Bicycle", text="Repair a bicycle."))
    assert (await shop.search("bike fix", way=Way.VECTOR)).hits
    assert not (await shop.search("weather", way=Way.VECTOR)).hits
    anything = shop.with_settings(SearchSettings())
    assert (await anything.search("weather", way=Way.VECTOR)).hits


async def test_by_words_alone_scores_are_ranks(db: Database):
    shop = Knowledge(db).of("shop")
    await shop.add(Document(id="both", text="Oars and sails."))
    await shop.add(Document(id="one", text="Oars and wheels."))
    await shop.add(Document(id="none", text="A house."))
    found = (await shop.search("oars sails")).hits
    assert [hit.citation.document for hit in found] == ["both", "one"]
    assert found[0].score > 2 * found[1].score
