"""Documents, cut, into the tables: in five statements, however many they are."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from weft.agents.memory.chunking import Chunk
from weft.agents.memory.knowledge.documents import Document, metadata_json
from weft.postgres import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A chunk of a document."""

    chunk: Chunk
    digest: bytes
    """Of all of it that is searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A document with its chunks."""

    document: Document
    title: str
    pieces: Sequence[Piece]
    digest: bytes
    """Of all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """Where a chunk stands."""

    document: int
    position: int
    cut: Cut
    piece: Piece


async def put(
    transaction: Transaction, tenant: str, cuts: Sequence[Cut]
) -> list[tuple[int, Piece]]:
    """Stores documents of different ids; returns those of their pieces that were not there, with their numbers."""
    if not cuts:
        return []
    documents = await _put_documents(transaction, tenant, cuts)
    there: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for row in await transaction.fetch("chunk_digests", list(documents.values())):
        there[row["document"], row["digest"]].append(row["number"])
    kept: list[tuple[int, _Placed]] = []
    new: list[_Placed] = []
    for cut in cuts:
        document = documents[cut.document.id]
        for position, piece in enumerate(cut.pieces):
            placed = _Placed(document=document, position=position, cut=cut, piece=piece)
            if same := there[document, piece.digest]:
                kept.append((same.pop(0), placed))
            else:
                new.append(placed)
    if gone := [number for numbers in there.values() for number in numbers]:
        await transaction.execute("delete_chunks", gone)
    if kept:
        await _move_chunks(transaction, kept)
    return await _put_chunks(transaction, tenant, new) if new else []


async def _put_documents(
    transaction: Transaction, tenant: str, cuts: Sequence[Cut]
) -> dict[str, int]:
    given = [cut.document for cut in cuts]
    rows = await transaction.fetch(
        "put_documents",
        tenant,
        [one.id for one in given],
        [cut.title for cut in cuts],
        [json.dumps(one.headings) for one in given],
        [one.text for one in given],
        [str(one.form) for one in given],
        [one.language for one in given],
        [one.source for one in given],
        [metadata_json(one.metadata) for one in given],
        [cut.digest for cut in cuts],
    )
    return {row["id"]: row["number"] for row in rows}


async def _move_chunks(transaction: Transaction, kept: Sequence[tuple[int, _Placed]]) -> None:
    await transaction.execute(
        "move_chunks",
        [number for number, _ in kept],
        [placed.position for _, placed in kept],
        [placed.piece.chunk.begin for _, placed in kept],
        [placed.piece.chunk.end for _, placed in kept],
    )


async def _put_chunks(
    transaction: Transaction, tenant: str, new: Sequence[_Placed]
) -> list[tuple[int, Piece]]:
    rows = await transaction.fetch(
        "put_chunks",
        tenant,
        [one.document for one in new],
        [one.cut.document.language for one in new],
        [one.cut.title for one in new],
        [one.position for one in new],
        [one.piece.chunk.begin for one in new],
        [one.piece.chunk.end for one in new],
        [json.dumps(one.piece.chunk.headings) for one in new],
        [one.piece.chunk.text for one in new],
        [one.piece.digest for one in new],
    )
    pieces = {(one.document, one.position): one.piece for one in new}
    return [(row["number"], pieces[row["document"], row["position"]]) for row in rows]
