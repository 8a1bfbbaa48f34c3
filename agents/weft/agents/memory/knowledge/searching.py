"""Searches a tenant's documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
import numpy as np

from weft import rpc
from weft.agents.memory.knowledge.diversity import chosen
from weft.agents.memory.knowledge.documents import (
    LANGUAGES,
    Citation,
    Found,
    Hit,
    Metadata,
    Way,
    metadata_json,
    metadata_of,
)
from weft.agents.memory.knowledge.versions import Version, Versions, vector_text
from weft.postgres import Database

MOST_QUESTION = 2_000
MOST_HITS = 50
_POOL = 4  # candidates for each hit that shall be diverse


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How is searched. The weights are a compromise, of which docs/memory.md has figures."""

    words: float = 1.0
    """Weight of what is found by words; 0: nothing is."""
    meaning: float = 2.0
    """Weight of what is found by meaning."""
    preferred: float = 1.5
    """By how much preferred documents count more: the score is multiplied by it, and the rank by words after 1 was added."""
    similarity: float = -1.0
    """Least similarity of what is found by meaning, -1 to 1: else something always is."""
    k: float = 10.0
    """The k of reciprocal rank fusion: the larger, the less the first places count."""
    candidates: int = 50
    """How many are taken of each kind."""
    ranked: int = 400
    """Chunks that are ranked by their words, at most: those that hold the rarest words of the question."""
    exact: int = 4_000
    """Up to how many chunks, of those a search may see, are compared one by one; more are looked up in an index."""
    effort: int = 100
    """How thoroughly the index is searched (pgvector's hnsw.ef_search)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is looked for."""

    question: str
    limit: int = 5
    where: Metadata | None = None
    prefer: Metadata | None = None
    way: Way = Way.HYBRID
    diversity: float = 0.0
    language: str = "english"

    def check(self) -> None:
        """Makes sure that it can be searched for.

        Raises:
            InvalidArgument: it cannot.
        """
        wrong = []
        if not self.question.strip() or len(self.question) > MOST_QUESTION or "\0" in self.question:
            wrong.append(("question", f"must have 1 to {MOST_QUESTION:,} characters, and no NUL"))
        if not 1 <= self.limit <= MOST_HITS:
            wrong.append(("limit", f"must be 1 to {MOST_HITS}"))
        if not 0 <= self.diversity <= 1:
            wrong.append(("diversity", "must be 0 to 1"))
        if self.language not in LANGUAGES:
            wrong.append(("language", f"must be one of {', '.join(sorted(LANGUAGES))}"))
        if wrong:
            raise rpc.InvalidArgument(violations=wrong)
        metadata_json(self.where or {}, field="where")
        metadata_json(self.prefer or {}, field="prefer")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """The question as a vector, or why there is none."""

    way: Way
    version: Version | None = None
    vector: str | None = None
    because: str = ""


async def search(
    database: Database, versions: Versions, settings: SearchSettings, tenant: str, what: Search
) -> Found:
    """Finds chunks. Without an embedding they are found by their words, and the result says so.

    Args:
        database: where they are.
        versions: of the embedding.
        settings: how is searched.
        tenant: whose they are.
        what: a search that is valid.

    Raises:
        rpc.Error: the database cannot be reached.
    """
    among = None
    if what.where:
        among = (
            await database.fetchval("allowed_documents", tenant, metadata_json(what.where)) or []
        )
    asked = await _asked(versions, what)
    rows = await database.fetch(
        "search",
        tenant,
        among,
        what.question,
        what.language,
        asked.version.number if asked.version else None,
        asked.vector,
        max(settings.candidates, what.limit),
        min(what.limit * _POOL, settings.candidates) if what.diversity else what.limit,
        0.0 if asked.way is Way.VECTOR else settings.words,
        settings.meaning if asked.version else 0.0,
        settings.k,
        settings.ranked,
        settings.exact,
        settings.effort,
        metadata_json(what.prefer) if what.prefer else None,
        settings.preferred,
        settings.similarity,
    )
    if what.diversity and asked.version:
        rows = await _diverse(database, asked.version, rows, what)
    return Found(
        hits=tuple(map(_hit, rows[: what.limit])),
        way=asked.way,
        embedding=asked.version.name if asked.version else "",
        because=asked.because,
    )


async def _asked(versions: Versions, what: Search) -> _Asked:
    if what.way is Way.LEXICAL:
        return _Asked(way=Way.LEXICAL)
    serving = await versions.serving()
    if serving is None:
        return _Asked(way=Way.LEXICAL, because=await versions.why_not())
    version, embedder = serving
    try:
        vectors = await embedder.embed([what.question], question=True)
    except rpc.Error as failed:
        why = f"the embedding {version.name} failed: {failed.message}"
        return _Asked(way=Way.LEXICAL, because=why)
    return _Asked(way=what.way, version=version, vector=vector_text(vectors[0]))


async def _diverse(
    database: Database, version: Version, rows: Sequence[asyncpg.Record], what: Search
) -> list[asyncpg.Record]:
    """The rows in an order in which each says something new; those without a vector come last."""
    found = await database.fetch("vectors_of", version.number, [row["number"] for row in rows])
    by_number = {row["chunk"]: row["vector"] for row in found}
    known = [row for row in rows if row["number"] in by_number]
    if not known:
        return list(rows)
    vectors = np.array([by_number[row["number"]] for row in known], np.float32)
    scores = np.array([row["score"] for row in known], np.float32)
    order = chosen(scores / scores.max(), vectors, diversity=what.diversity, most=what.limit)
    return [*(known[one] for one in order), *(r for r in rows if r["number"] not in by_number)]


def _hit(row: asyncpg.Record) -> Hit:
    return Hit(
        citation=Citation(
            document=row["id"],
            title=row["title"],
            headings=tuple(row["headings"]),
            begin=row["place_begin"],
            end=row["place_end"],
            quote=row["text"],
            source=row["source"],
        ),
        score=row["score"],
        similarity=row["similarity"],
        word_place=row["word_place"],
        meaning_place=row["meaning_place"],
        metadata=metadata_of(row["metadata"]),
    )
