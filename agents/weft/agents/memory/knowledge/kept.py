"""Results of searches as bytes, for a cache."""

from __future__ import annotations

import hashlib
from types import MappingProxyType
from typing import Any

import orjson

from weft.agents.memory.knowledge.documents import Citation, Found, Hit, Way
from weft.agents.memory.knowledge.searching import Search, SearchSettings


def name_of(what: Search, settings: SearchSettings, embedding: str) -> str:
    """A name that equal searches have in common."""
    asked = orjson.dumps((what, settings, embedding), default=dict, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(asked).hexdigest()


def as_bytes(found: Found) -> bytes:
    """A result as bytes."""
    return orjson.dumps(found, default=dict)


def of_bytes(kept: bytes) -> Found:
    """The result that `as_bytes` was given."""
    read: dict[str, Any] = orjson.loads(kept)
    hits = tuple(map(_hit, read.pop("hits")))
    return Found(hits=hits, way=Way(read.pop("way")), **read)


def _hit(read: dict[str, Any]) -> Hit:
    place = read.pop("citation")
    citation = Citation(headings=tuple(place.pop("headings")), **place)
    return Hit(citation=citation, metadata=MappingProxyType(read.pop("metadata")), **read)
