"""For tests: an embedder that needs no model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from weft.agents.memory.embedding import EmbedderUnavailable, Vectors, checked

_WORD = re.compile(r"\w+")


class HashedEmbedder:
    """Texts that share words are near each other: each word is a dimension, by its hash (Weinberger et al. 2009).

    Args:
        name: as which embedding it goes.
        dimensions: of its vectors.
        same: words that mean the same, such as {"bike": "bicycle"}.
    """

    def __init__(
        self, name: str = "hashed", *, dimensions: int = 64, same: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.dimensions = dimensions
        self.away = False
        """Set it, and it cannot be reached."""
        self.texts: list[str] = []
        """All that it embedded."""
        self._same = same or {}

    async def embed(self, texts: Sequence[str], *, question: bool = False) -> Vectors:
        """A vector of length 1 for each text.

        Raises:
            EmbedderUnavailable: `away` is set.
        """
        del question
        if self.away:
            raise EmbedderUnavailable
        self.texts += texts
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[0] = 0.01  # a text of no words has a direction, too
            for word in _WORD.findall(text.lower()):
                said = self._same.get(word, word)
                hashed = hashlib.blake2b(said.encode(), digest_size=8).digest()
                row[int.from_bytes(hashed, "big") % self.dimensions] += 1
        return checked(rows, texts=len(texts), dimensions=self.dimensions)
