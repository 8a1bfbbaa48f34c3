"""Stores documents: cut, embedded, and what did not change kept as it is."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from weft.agents.memory.chunking import Chunking, chunks
from weft.agents.memory.embedding import Vector
from weft.agents.memory.knowledge import storing, versions
from weft.agents.memory.knowledge.documents import Added, Document, metadata_json
from weft.agents.memory.knowledge.storing import Cut, Piece
from weft.agents.memory.knowledge.versions import Version, Versions
from weft.postgres import Database, Transaction

_BATCH = 500  # documents
_Embedded = dict[bytes, list[tuple[Version, Vector]]]


async def add(
    database: Database, made: Versions, chunking: Chunking, tenant: str, document: Document
) -> Added:
    """Adds or replaces a document. Its chunks that are as they were keep their vectors.

    Raises:
        InvalidArgument: it cannot be stored.
        rpc.Error: the database cannot be reached.
    """
    cut = await asyncio.to_thread(_cut, document, chunking)
    before = await database.fetch("find_documents", tenant, [document.id])
    if cut.digest in {row["digest"] for row in before}:
        return await _added(made, tenant, cut, changed=False)
    known = set()
    if before:
        rows = await database.fetch("chunk_digests", [row["number"] for row in before])
        known = {row["digest"] for row in rows}
    embedded = await _embedded(made, cut, [p for p in cut.pieces if p.digest not in known])
    async with database.transaction() as transaction:
        await transaction.execute("lock_document", tenant, document.id)
        fresh = await storing.put(transaction, tenant, [cut])
        await _put_vectors(transaction, fresh, embedded)
    return await _added(made, tenant, cut, changed=True)


async def add_all(
    transaction: Transaction, chunking: Chunking, tenant: str, documents: Sequence[Document]
) -> None:
    """Adds or replaces documents as a part of a transaction. What is new in them has no vectors yet.

    Raises:
        InvalidArgument: one cannot be stored.
    """
    given = list({one.id: one for one in documents}.values())
    for begin in range(0, len(given), _BATCH):
        cuts = await asyncio.to_thread(_all_cut, given[begin : begin + _BATCH], chunking)
        ids = [cut.document.id for cut in cuts]
        rows = await transaction.fetch("find_documents", tenant, ids)
        before = {row["id"]: row["digest"] for row in rows}
        changed = [cut for cut in cuts if before.get(cut.document.id) != cut.digest]
        await storing.put(transaction, tenant, changed)


async def _added(made: Versions, tenant: str, cut: Cut, *, changed: bool) -> Added:
    count = len(cut.pieces)
    covered = await made.covers(tenant, cut.document.id, count)
    return Added(id=cut.document.id, changed=changed, chunks=count, embedded=covered)


async def _embedded(made: Versions, cut: Cut, pieces: Sequence[Piece]) -> _Embedded:
    """Vectors of pieces by their digest."""
    if not pieces:
        return {}
    texts = [
        versions.embedded_text(cut.title, piece.chunk.headings, piece.chunk.text)
        for piece in pieces
    ]
    found: _Embedded = defaultdict(list)
    for version, vectors in await made.embed(texts):
        for piece, vector in zip(pieces, vectors, strict=True):
            found[piece.digest].append((version, vector))
    return dict(found)


async def _put_vectors(
    transaction: Transaction, fresh: Sequence[tuple[int, Piece]], embedded: _Embedded
) -> None:
    numbers: dict[int, list[int]] = defaultdict(list)
    vectors: dict[int, list[Vector]] = defaultdict(list)
    made: dict[int, Version] = {}
    for number, piece in fresh:
        for version, vector in embedded.get(piece.digest, ()):
            made[version.number] = version
            numbers[version.number].append(number)
            vectors[version.number].append(vector)
    for key, version in made.items():
        await versions.put(transaction, version, numbers[key], vectors[key])


def _all_cut(documents: Sequence[Document], chunking: Chunking) -> list[Cut]:
    return [_cut(one, chunking) for one in documents]


def _cut(document: Document, chunking: Chunking) -> Cut:
    document.check()
    found = chunks(document.text, document.form, chunking)
    first = next((chunk.headings[0] for chunk in found if chunk.headings), "")
    title = document.title or first[:500] or document.id
    under = [replace(one, headings=(*document.headings, *one.headings)) for one in found]
    pieces = [
        Piece(
            chunk=chunk,
            digest=_digest(title, chunk.headings, chunk.text, document.language),
        )
        for chunk in under
    ]
    whole = _digest(
        title,
        document.headings,
        document.text,
        str(document.form),
        document.language,
        document.source,
        metadata_json(document.metadata),
        (chunking.most, chunking.overlap),
    )
    return Cut(document=document, title=title, pieces=pieces, digest=whole)


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()
