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
        found = _version(version)
        return found is not None and bool(self._spec.match(found))


@functools.lru_cache(maxsize=4_096)
def _version(text: str) -> Version | None:
    """None: it is no version, as of an instance that was registered under looser rules; it is in no range."""
    try:
        return Version(text)
    except ValueError:
        return None
