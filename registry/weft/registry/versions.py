"""Ranges of semantic versions, as npm writes them."""

from __future__ import annotations

import functools

from semantic_version import NpmSpec, Version


class Range:
    """A range of versions (node-semver, "Ranges").

    Raises:
        ValueError: the text is none.
    """

    def __init__(self, text: str) -> None:
        try:
            self._spec = NpmSpec(text)
        except ValueError:
            raise ValueError(
                f'{text!r} is no range of versions; write "^1.2", "~1.2.3", ">=1.2.0 <2.0.0" or "1.x || 2.x"'
            ) from None

    def __contains__(self, version: str) -> bool:
        return bool(self._spec.match(_version(version)))


@functools.lru_cache(maxsize=4_096)
def _version(text: str) -> Version:
    return Version(text)
