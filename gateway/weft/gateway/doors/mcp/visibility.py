"""What of the mesh a caller sees: skills whose scopes it has."""

from __future__ import annotations

from collections.abc import Iterable

from weft.gateway.transcoding.catalog import Method

Scopes = frozenset[str]
Ways = tuple[Scopes, ...]
"""Sets of scopes, each of which is enough to see something."""


def way_of(method: Method) -> Scopes:
    """The scopes that a skill needs."""
    return frozenset(method.skill.required_scopes)


def sees(scopes: Scopes | None, ways: Iterable[Scopes]) -> bool:
    """Whether a caller with these scopes sees something."""
    return scopes is None or any(way <= scopes for way in ways)
